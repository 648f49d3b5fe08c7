"""What the faces share, put together once by `router.app`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from router.errors import UnknownModel
from router.inputs.input_schema import InputSchema
from router.inputs.model_schemas import ModelSchemas
from router.inputs.request_inputs import RequestInputs
from router.inputs.uploads import Uploads
from router.models.catalog import Package
from router.observability.events import EventStream
from router.predictions.in_flight import InFlight
from router.predictions.loop import SchedulerLoop
from router.predictions.service import Predictions
from router.predictions.webhooks import Webhooks
from router.shutdown import Shutdown
from router.storage.store import Files


async def no_problems() -> Sequence[str]:
    """Nothing is wrong."""
    return ()


@dataclass(slots=True)
class Context:
    """The running service, as the faces see it."""

    packages: Mapping[str, Package]
    loop: SchedulerLoop
    shutdown: Shutdown
    predictions: Predictions
    request_inputs: RequestInputs
    files: Files
    schemas: ModelSchemas
    max_upload_bytes: int
    sync_limit_s: float
    started_at: float
    uploads: Uploads
    webhooks: Webhooks
    webhook_secret: str
    replicate_owner: str
    cog_version: str
    hardware: str  # what the models run on
    metrics: Callable[[], bytes]
    events: EventStream
    keyed_digest: Callable[[str], str]  # of a digest: a guess cannot be checked without the box
    backend_of: Callable[[str], str]  # of a model of the scheduler: local, cog, replicate, modal
    # Of the state folder now, each in a sentence.
    problems: Callable[[], Awaitable[Sequence[str]]] = no_problems

    def package(self, name: str) -> Package:
        """The package of that name. Raises UnknownModel."""
        package = self.packages.get(name)
        if package is None:
            known = ", ".join(self.packages) or "none"
            raise UnknownModel(f"Cannot find model '{name[:80]}'; there are: {known}")
        return package

    async def input_schema(self, package: Package) -> InputSchema:
        """What the model takes. Raises ModelUnavailable when that cannot be had."""
        return await self.schemas.input_schema(package)


def context_of(request: Request) -> Context:
    """The context of the application that the request came to."""
    context: Context = request.app.state.context
    return context


# A client that has gone is looked for only after this long, so that a quick prediction does
# not pay for the extra task.
DISCONNECT_CHECK_AFTER_S = 0.05


async def gone(request: Request) -> None:
    """Return when the client has disconnected. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_end(request: Request, context: Context, in_flight: InFlight) -> None:
    """Wait until the prediction ends or the synchronous limit is reached.

    When the client goes away meanwhile, the prediction is canceled, and that is its end.
    """
    await in_flight.wait(DISCONNECT_CHECK_AFTER_S)
    if in_flight.done.done():
        return
    leaving = asyncio.create_task(gone(request))
    try:
        await asyncio.wait(
            {in_flight.done, leaving},
            timeout=context.sync_limit_s - DISCONNECT_CHECK_AFTER_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if leaving.done():
            context.predictions.cancel(in_flight.prediction.id)
            await asyncio.wait({in_flight.done})
    except asyncio.CancelledError:
        # The server cancels handlers when it is itself told to stop at once.
        context.predictions.cancel(in_flight.prediction.id)
        raise
    finally:
        leaving.cancel()
