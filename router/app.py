"""Makes the ASGI application from the settings: all objects are created and connected here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from router.backends import LOCAL, Backends
from router.clock import SystemClock
from router.config_mistakes import mistakes
from router.disk import Disk, clear_temp, locked, open_disk, private_errors
from router.errors import RouterError
from router.http.apis import (
    cog,
    downloads,
    events,
    native,
    operations,
    package_files,
    replicate,
    replicate_catalog,
    replicate_files,
    streams,
)
from router.http.apis.replicate_views import webhook_view
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.connections import Limits
from router.http.context import Context
from router.http.errors import on_http_exception, on_router_error, on_unexpected
from router.http.middleware import LoopDetection, StartupErrors, with_security_headers
from router.http.openapi import build_openapi
from router.http.pages import Pages
from router.http.request_log import RequestLog
from router.inputs.fetch import BoundedFetcher, UrlFetcher
from router.inputs.model_schemas import ModelSchemas
from router.inputs.request_inputs import RequestInputs
from router.inputs.uploaded_ahead import Uploads
from router.keys.key import parse_keys, who_is_served
from router.keys.key_store import KeyFileError, Keyring
from router.models.catalog import Package, read_package, survey
from router.models.coglet_process import CogProcess, ProcessOptions
from router.models.memory import (
    GpuMemory,
    copies_budget_bytes,
    detect_memory,
    hardware_name,
)
from router.models.process_interface import Memory, Process
from router.models.schemas import Description
from router.observability.events import EventStream
from router.observability.facts import Facts
from router.observability.metrics import PrometheusMetrics
from router.prediction import Prediction
from router.predictions.lifecycle import Predictions
from router.predictions.output_files import Outputs
from router.predictions.restarts import Restarts
from router.predictions.scheduler_loop import Jobs, SchedulerLoop
from router.predictions.webhook_sender import HttpWebhookSender
from router.predictions.webhooks import Webhooks
from router.preload import prepare
from router.scheduling.messages import Described, Draining
from router.scheduling.scheduler import OwnPolicy, Policy, Scheduler
from router.server_limits import bounded_server, running_server
from router.settings import Settings, Weights
from router.shutdown import Shutdown, stop_on_signal

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. It starts and writes nothing before its lifespan begins."""
    settings = settings or Settings()
    memory = detect_memory(settings.memory_reserve_bytes, settings.memory_limit_bytes)
    has_gpu = isinstance(memory, GpuMemory)
    found = survey(settings.packages_dir.resolve(), _environments(settings, has_gpu))
    backends = Backends(settings, found[0], SystemClock(), left_out=found[1])
    for mistake in mistakes(settings, {*backends.packages, *backends.left_out}, os.environ):
        log.warning(mistake)
    shutdown = Shutdown()
    facts = Facts()
    telemetry = Telemetry(PrometheusMetrics(facts), EventStream(shutdown, facts), facts)
    keys = _make_keyring(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = Limits(settings.max_connections, settings.keep_alive_s)
        with bounded_server(limits):  # before our signal handlers: it finds uvicorn by its own
            async with running(settings, backends, memory, telemetry, shutdown) as context:
                app.state.context = context
                undo = _stop_on_signal(context, settings.shutdown_grace_s)
                try:
                    with _opened(keys):
                        # What exists now lives until the end: no collection has to walk it again.
                        gc.freeze()
                        yield
                finally:
                    undo()
        facts.deliver()

    app = FastAPI(
        title="CALLME GPU backend",
        lifespan=lifespan,
        openapi_url=None,  # set below
        docs_url=None,  # router.http.pages has it
        redoc_url=None,
        redirect_slashes=False,
        # The router has its own /metrics; FastAPI would look for an exporter at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.openapi = lambda: build_openapi(app.state.context)  # type: ignore[method-assign]
    app.add_exception_handler(RouterError, on_router_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)
    app.add_middleware(LoopDetection)  # inside AuthMiddleware
    app.add_middleware(
        AuthMiddleware,
        keys=keys,
        max_body_bytes=settings.max_upload_bytes,
        reads=BodyReads(shutdown),
    )
    app.add_middleware(Pages)  # outside AuthMiddleware: the page itself needs no key
    _observe_requests(app, telemetry.facts, settings.cors_origins)
    # A request is compared with the routes in this order: the most used ones come first, and
    # `/{model}`, which matches every short path, comes last.
    cog.add_routes(app)
    replicate.add_routes(app)
    app.openapi_url = "/openapi.json"
    app.setup()
    operations.add_routes(app)
    events.add_routes(app)
    package_files.add_routes(app)
    replicate_files.add_routes(app)
    streams.add_routes(app)
    downloads.add_routes(app)
    replicate_catalog.add_routes(app)
    native.add_routes(app)
    return app


def _observe_requests(app: FastAPI, facts: Facts, cors_origins: Collection[str]) -> None:
    """Put these around the layer that answers unexpected exceptions with 500. `add_middleware`
    would put them inside it."""
    build = app.build_middleware_stack

    def build_all() -> ASGIApp:
        within = with_security_headers(build(), cors_origins)
        return StartupErrors(RequestLog(within, facts))

    app.build_middleware_stack = build_all  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics and the event stream, and `facts`, which both listen to."""

    metrics: PrometheusMetrics
    events: EventStream
    facts: Facts


def _stop_on_signal(context: Context, grace_s: float) -> Callable[[], None]:
    def begin() -> None:
        context.shutdown.begin()
        context.loop.post(Draining())

    def force() -> None:
        context.loop.post(Draining(force=True))

    return stop_on_signal(begin, force, grace_s, running_server())


def _make_keyring(settings: Settings) -> Keyring:
    limits = (settings.requests_per_minute, settings.concurrent_requests)
    configured = parse_keys((k.get_secret_value() for k in settings.keys), *limits)
    admins = (k.get_secret_value() for k in settings.admin_keys)
    configured += parse_keys(admins, *limits, is_admin=True)
    return Keyring(settings.state, configured, *limits)


@contextlib.contextmanager
def _opened(keys: Keyring) -> Iterator[None]:
    try:
        with private_errors():
            keys.open()
    except KeyFileError as error:
        reason = str(error).removeprefix("Cannot read keys: ")
        raise RuntimeError(f"Cannot start: {reason}") from error
    accepted = keys.current()
    given_out = sum(not key.local for key in accepted.keys)
    log.info("who is served", extra={"keys": who_is_served(given_out, accepted.required)})
    try:
        yield
    finally:
        keys.close()


@contextlib.asynccontextmanager
async def running(
    settings: Settings, backends: Backends, memory: Memory, telemetry: Telemetry, shutdown: Shutdown
) -> AsyncIterator[Context]:
    """Start everything that runs in the background, and stop it in reverse order at the end."""
    with locked(settings.state):
        with private_errors():
            clear_temp(settings.state)
        disk = open_disk(settings.state)
        schemas = ModelSchemas(backends.describe)
        shutdown.reset()
        make_loop = partial(_make_loop, settings, backends, memory, schemas, facts=telemetry.facts)
        context = _make_context(
            *(settings, backends, make_loop, schemas),
            disk=disk,
            telemetry=telemetry,
            shutdown=shutdown,
            hardware=hardware_name(memory),
        )
        loop = context.loop
        schemas.on_described(partial(_note_concurrency, backends, loop))
        telemetry.metrics.watch(tuple(backends.scheduled), loop.snapshot)
        loop.open()
        # First the webhooks of an earlier run, before new results are added to the outbox.
        await context.webhooks.open()
        resumed = await context.predictions.open()
        disk.store.remove_others(p.id for p in resumed)
        kept = [f.ref() for f in await context.uploads.open()]
        disk.spool.remove_unreferenced([*kept, *(f for p in resumed for f in p.files)])
        disk.outputs.remove_unowned(await disk.store.ended_ids())
        disk.watch.open()
        preparing = asyncio.create_task(prepare(context, settings))
        try:
            yield context
        finally:
            shutdown.begin()
            preparing.cancel()
            await disk.watch.close()
            await loop.close(settings.shutdown_grace_s)
            await context.predictions.close()
            await context.uploads.close()
            await context.webhooks.close()
            await disk.database.close()


def _make_context(
    settings: Settings,
    backends: Backends,
    make_loop: Callable[[Jobs], SchedulerLoop],
    schemas: ModelSchemas,
    *,
    disk: Disk,
    telemetry: Telemetry,
    shutdown: Shutdown,
    hardware: str,
) -> Context:
    async def render(p: Prediction) -> dict[str, Any]:
        return await webhook_view(context, p)

    clock = SystemClock()
    keep_s = settings.keep_results_s
    database, store, spool = disk.database, disk.store, disk.spool
    sender = HttpWebhookSender(disk.secret, allow_private=settings.allow_private_urls)
    webhooks = Webhooks(store, database, sender, clock, render)
    fetcher = BoundedFetcher(UrlFetcher(spool, allow_private=settings.allow_private_urls))
    predictions = Predictions(
        *(make_loop, store, spool, clock, webhooks),
        time_limit_s=settings.prediction_timeout_s,
        time_limits_s={
            name: own.prediction_timeout_s
            for name, own in settings.models.items()
            if own.prediction_timeout_s is not None
        },
        keep_results_s=keep_s,
        facts=telemetry.facts,
        rules=backends.rules,
        outputs=Outputs(disk.outputs, disk.secret),
    )
    find_output = predictions.links.file_of_url
    uploads = Uploads(database, spool, fetcher, clock, keep_s, find_output=find_output)
    context = Context(
        packages=backends.packages,
        left_out=backends.left_out,
        loop=predictions.loop,
        shutdown=shutdown,
        predictions=predictions,
        request_inputs=RequestInputs(spool, uploads, settings.max_upload_bytes),
        files=spool,
        schemas=schemas,
        max_upload_bytes=settings.max_upload_bytes,
        sync_limit_s=settings.sync_limit_s,
        started_at=clock.time(),
        started_at_monotonic=clock.monotonic(),
        uploads=uploads,
        restarts=_make_restarts(settings, backends, predictions.loop, schemas),
        webhooks=webhooks,
        webhook_secret=disk.secret,
        replicate_owner=settings.replicate_owner,
        cog_version=version("cog"),
        hardware=hardware,
        metrics=telemetry.metrics.exposition,
        events=telemetry.events,
        keyed_digest=disk.box_key.digest,
        backend_of=backends.kind,
        problems=disk.watch.problems,
    )
    return context


def _make_restarts(
    settings: Settings, backends: Backends, loop: SchedulerLoop, schemas: ModelSchemas
) -> Restarts:
    def read(model: str) -> Package:
        old = backends.packages[model]
        return read_package(old.folder, old.added_env)

    return Restarts(
        schemas,
        is_local=lambda model: backends.kind(model) == LOCAL,
        read=read,
        use=backends.replace,
        post=loop.post,
    )


def _note_concurrency(
    backends: Backends, loop: SchedulerLoop, model: str, description: Description
) -> None:
    if backends.kind(model) == LOCAL:  # for a remote, the settings have it
        loop.post(Described(model, description.max_concurrency))


def _make_loop(
    settings: Settings,
    backends: Backends,
    memory: Memory,
    schemas: ModelSchemas,
    jobs: Jobs,
    *,
    facts: Facts,
) -> SchedulerLoop:
    state = settings.state
    options = ProcessOptions(
        spool_dir=state / "spool",
        tmp_dir=state / "tmp",
        cache_dir=state / "cache",
        setup_timeout_s=settings.setup_timeout_s,
        measure=memory.measure,
        sleep_device=_sleep_device(settings, memory),
    )
    policy = Policy(
        queue_limit=settings.queue_limit,
        idle_to_sleep_s=settings.idle_to_sleep_s,
        asleep_to_stop_s=settings.asleep_to_stop_s,
        min_residency_s=settings.min_residency_s,
        unhealthy_to_restart_s=settings.unhealthy_to_restart_s,
        default_footprint_bytes=settings.default_footprint_bytes,
    )

    def make_process(package: Package) -> Process:
        if remote := backends.process(package.name):
            return remote
        known = schemas.known(package.name)
        if known:
            package = replace(package, max_concurrency=known.max_concurrency, streams=known.streams)
        own = settings.models.get(package.name)
        if own is not None and own.sleep == "never":
            return CogProcess(package, replace(options, sleep_device=""))
        return CogProcess(package, options)

    budget_bytes = memory.budget_bytes(0)
    scheduler = Scheduler(
        *(backends.concurrency, budget_bytes, policy, backends.weightless, backends.labels),
        host_budget_bytes=copies_budget_bytes(0, settings.sleep_memory_bytes),
        own_policies={
            name: OwnPolicy(
                *(own.idle_to_sleep_s, own.asleep_to_stop_s, own.queue_limit, own.priority)
            )
            for name, own in settings.models.items()
        },
    )
    return SchedulerLoop(
        *(scheduler, backends.scheduled, make_process, memory, SystemClock()),
        jobs=jobs,
        facts=facts,
        copies_budget=partial(copies_budget_bytes, limit_bytes=settings.sleep_memory_bytes),
    )


def _sleep_device(settings: Settings, memory: Memory) -> str:
    """The memory that may sleep; "" when models are only stopped. On a machine without a GPU a
    sleep would move main memory to main memory."""
    if settings.sleep == "auto":
        return "cuda" if isinstance(memory, GpuMemory) else ""
    return "cpu" if settings.sleep == "cpu" else ""


def _environments(settings: Settings, has_gpu: bool) -> dict[str, dict[str, str]]:
    """Variables to add to the models' environments: under `*` for all, and by model."""
    demo = settings.weights is Weights.DEMO or (settings.weights is Weights.AUTO and not has_gpu)
    common = {"WEIGHTS": "demo"} if demo else {}
    return {"*": common, **{name: dict(m.env) for name, m in settings.models.items()}}
