"""What the faces share, put together once by `router.app`."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from router.errors import ModelUnavailable, UnknownModel
from router.inputs.input_schema import InputSpec
from router.inputs.request_inputs import Intake
from router.inputs.uploads import Uploads
from router.models.catalog import Package
from router.models.process import StartError
from router.observability.events import EventStream
from router.predictions.in_flight import Live
from router.predictions.loop import SchedulerLoop
from router.predictions.service import Predictions
from router.predictions.webhooks import Webhooks
from router.storage.store import Files

Describe = Callable[[Package], Awaitable[Mapping[str, Any]]]

# Soon enough for a back-end that is just starting; a loop of boxes, or one that never answers,
# would otherwise be asked with every request.
RETRY_DESCRIBE_S = 5.0
RETRY_DESCRIBE_MAX_S = 300.0  # where a back-end asks for more patience than the first


async def no_problems() -> Sequence[str]:
    """Nothing is wrong."""
    return ()


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
    hardware: str  # what the models run on
    metrics: Callable[[], bytes]
    events: EventStream
    keyed_digest: Callable[[str], str]  # of a digest: a guess cannot be checked without the box
    backend_of: Callable[[str], str]  # of a model of the scheduler: local, cog, replicate, modal
    # Of the state folder now, each in a sentence.
    problems: Callable[[], Awaitable[Sequence[str]]] = no_problems
    is_open: bool = False
    schemas: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)  # a hash of each of the schemas
    _specs: dict[str, InputSpec] = field(default_factory=dict)
    _describing: dict[str, asyncio.Task[InputSpec | None]] = field(default_factory=dict)
    _unreadable: dict[str, tuple[str, float]] = field(default_factory=dict)  # why, until when

    def package(self, name: str) -> Package:
        """The package of that name. Raises UnknownModel."""
        package = self.packages.get(name)
        if package is None:
            known = ", ".join(self.packages) or "none"
            raise UnknownModel(f"Cannot find model '{name[:80]}'; there are: {known}")
        return package

    async def spec(self, package: Package) -> InputSpec:
        """What the model takes; waits while its schema is being made or asked for, once for all
        who wait. Raises ModelUnavailable when it cannot be had, and again without another try
        for RETRY_DESCRIBE_S after that."""
        name = package.name
        if (spec := self._specs.get(name)) is not None:
            return spec
        self._raise_recent(name)
        task = self._describing.get(name)
        if task is None:
            task = self._describing[name] = asyncio.create_task(self._describe(package))
            task.add_done_callback(lambda _: self._describing.pop(name, None))
        # Shielded: a caller that leaves takes nothing from the others.
        spec = await asyncio.shield(task)
        if spec is None:
            self._raise_recent(name)
            raise ModelUnavailable(f"Cannot read '{name}'", retry_after_s=1)
        return spec

    async def _describe(self, package: Package) -> InputSpec | None:
        """None when it cannot be had; the reason is kept."""
        name = package.name
        try:
            schema = await self.describe(package)
        except StartError as error:
            wait_s = max(RETRY_DESCRIBE_S, min(error.retry_after_s or 0.0, RETRY_DESCRIBE_MAX_S))
            self._unreadable[name] = str(error), time.monotonic() + wait_s
            return None
        self.schemas[name] = schema
        described = orjson.dumps([name, schema], option=orjson.OPT_SORT_KEYS)
        self.versions[name] = hashlib.sha256(described).hexdigest()
        spec = self._specs[name] = InputSpec(schema)
        return spec

    def _raise_recent(self, name: str) -> None:
        """Raise a failure that is not yet to be tried again."""
        reason, until = self._unreadable.get(name, ("", 0.0))
        if (left_s := until - time.monotonic()) > 0:
            raise ModelUnavailable(f"Cannot read '{name}': {reason}", retry_after_s=max(left_s, 1))


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
    await live.wait(DISCONNECT_CHECK_AFTER_S)
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
