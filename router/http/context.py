"""What the HTTP APIs share. `router.composition` makes it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from router.errors import UnknownModel
from router.inputs.file_uploads import Uploads
from router.inputs.input_schema import InputSchema
from router.inputs.model_schemas import ModelSchemas
from router.inputs.request_inputs import RequestInputs
from router.models.catalog import Package
from router.observability.events import EventStream
from router.predictions.in_flight import InFlight
from router.predictions.lifecycle import Predictions
from router.predictions.operator_commands import ModelCommands
from router.predictions.remote_files import RemoteFiles
from router.predictions.scheduler_loop import SchedulerLoop
from router.predictions.usage import Usage
from router.predictions.versions import Versions
from router.predictions.webhooks import Webhooks
from router.shutdown import Shutdown
from router.storage.store import Files


async def no_problems() -> Sequence[str]:
    """Report no problem."""
    return ()


@dataclass(slots=True)
class Context:
    """The running service, as the HTTP APIs see it."""

    packages: Mapping[str, Package]
    left_out: Mapping[str, str]  # folders that are not served, with why
    loop: SchedulerLoop
    shutdown: Shutdown
    predictions: Predictions
    request_inputs: RequestInputs
    files: Files
    schemas: ModelSchemas
    max_upload_bytes: int
    sync_limit_s: float
    started_at: float  # seconds since the epoch
    started_at_monotonic: float  # the same moment in the scheduler's clock
    uploads: Uploads
    remote_files: RemoteFiles
    model_commands: ModelCommands
    webhooks: Webhooks
    webhook_secret: str
    replicate_owner: str
    cog_version: str
    hardware: str  # what the models run on
    usage: Usage
    replicate_price_per_s: float | None  # of this hardware, in US dollars
    metrics: Callable[[], bytes]
    events: EventStream
    # Keyed hash of a digest: without the key of this machine, a guess cannot be checked.
    keyed_digest: Callable[[str], str]
    backend_of: Callable[[str], str]  # by the scheduler's model name: local, cog, replicate, modal
    # The present problems of the state folder, one sentence each.
    problems: Callable[[], Awaitable[Sequence[str]]] = no_problems
    versions: Versions | None = None

    def wall_time(self, monotonic: float) -> float:
        """Return a time of the scheduler's clock in seconds since the epoch.

        The same moment gives the same answer at each call, also when the wall clock is adjusted.
        """
        return self.started_at + (monotonic - self.started_at_monotonic)

    def package(self, name: str) -> Package:
        """Return the package of that name. Raises UnknownModel when there is none."""
        package = self.packages.get(name)
        if package is None:
            known = ", ".join(self.packages) or "none"
            raise UnknownModel(f"Cannot find model '{name[:80]}'; there are: {known}")
        return package

    def serving(self, package: Package) -> Package:
        """The version of the package that serves the next request for it."""
        if self.versions is None:
            return package
        version = self.versions.choose(package.name)
        return package if version == package.name else self.packages[version]

    @property
    def models(self) -> Sequence[str]:
        """The names of the packages, without those that are versions of another one."""
        return [name for name in self.packages if "@" not in name]

    async def input_schema(self, package: Package) -> InputSchema:
        """Return the model's inputs. Raises ModelUnavailable when its schema cannot be read."""
        return await self.schemas.input_schema(package)


def context_of(request: Request) -> Context:
    """Return the context of the application that received the request."""
    context: Context = request.app.state.context
    return context


# The check for a disconnected client starts only after this time. So a prediction that is quick, or
# waits only in a short queue, does not pay for the extra task.
DISCONNECT_CHECK_AFTER_S = 0.2


async def gone(request: Request) -> None:
    """Return when the client has disconnected. The body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def wait_for_end(request: Request, context: Context, in_flight: InFlight) -> None:
    """Wait until the prediction ends or the synchronous limit is reached.

    When the client disconnects meanwhile, the prediction is canceled, and this waits for its end.
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
        # The server cancels its handlers when it must stop at once.
        context.predictions.cancel(in_flight.prediction.id)
        raise
    finally:
        leaving.cancel()
