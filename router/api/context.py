"""What the faces share, put together once by `router.app`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from router.domain.errors import ModelUnavailable, UnknownModel
from router.domain.package import Package
from router.ports import Files, StartError
from router.runtime.events import EventStream
from router.runtime.inputs import InputSpec
from router.runtime.intake import Intake
from router.runtime.live import Live
from router.runtime.loop import SchedulerLoop
from router.runtime.predictions import Predictions
from router.runtime.uploads import Uploads
from router.runtime.webhooks import Webhooks

Describe = Callable[[Package], Awaitable[Mapping[str, Any]]]


@dataclass(slots=True)
class Context:
    """The running service, as the faces see it."""

    packages: Mapping[str, Package]
    loop: SchedulerLoop
    predictions: Predictions
    intake: Intake
    files: Files
    describe: Describe
    max_upload_bytes: int
    sync_limit_s: float
    started_at: float
    uploads: Uploads
    webhooks: Webhooks
    webhook_secret: str
    replicate_owner: str
    cog_version: str
    metrics: Callable[[], bytes]
    events: EventStream
    backend_of: Callable[[str], str]  # of a model of the scheduler: local, cog, replicate, modal
    is_open: bool = False
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)  # a hash of each of the schemas
    _specs: dict[str, InputSpec] = field(default_factory=dict)

    def package(self, name: str) -> Package:
        """The package of that name. Raises UnknownModel."""
        package = self.packages.get(name)
        if package is None:
            known = ", ".join(self.packages) or "none"
            raise UnknownModel(f"Cannot find model '{name[:80]}'; there are: {known}")
        return package

    async def spec(self, package: Package) -> InputSpec:
        """What the model takes; waits while its schema is being made. Raises
        ModelUnavailable when the runner cannot be read."""
        spec = self._specs.get(package.name)
        if spec is None:
            try:
                schema = await self.describe(package)
            except StartError as error:
                raise ModelUnavailable(
                    f"Cannot read '{package.name}': {error}", retry_after_s=30
                ) from error
            self.schemas[package.name] = schema
            described = orjson.dumps([package.name, schema], option=orjson.OPT_SORT_KEYS)
            self.versions[package.name] = hashlib.sha256(described).hexdigest()
            spec = self._specs[package.name] = InputSpec(schema)
        return spec


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


async def wait_for_end(request: Request, context: Context, live: Live) -> None:
    """Wait until the prediction ends or the synchronous limit is reached.

    When the client goes away meanwhile, the prediction is canceled, and that is its end.
    """
    if not live.done.done():
        await asyncio.wait({live.done}, timeout=DISCONNECT_CHECK_AFTER_S)
    if live.done.done():
        return
    leaving = asyncio.create_task(gone(request))
    try:
        await asyncio.wait(
            {live.done, leaving},
            timeout=context.sync_limit_s - DISCONNECT_CHECK_AFTER_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if leaving.done():
            context.predictions.cancel(live.prediction.id)
            await asyncio.wait({live.done})
    except asyncio.CancelledError:
        # The server cancels handlers when it is itself told to stop at once.
        context.predictions.cancel(live.prediction.id)
        raise
    finally:
        leaving.cancel()
