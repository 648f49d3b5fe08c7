"""The composition root: settings in, an ASGI application out."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from router.backends import LOCAL, Backends
from router.clock import SystemClock
from router.errors import RouterError
from router.http import (
    cog,
    downloads,
    events,
    native,
    operations,
    replicate,
    replicate_catalog,
    replicate_files,
    streams,
)
from router.http.auth import Guard
from router.http.body_timeout import BodyReads
from router.http.connections import Limits
from router.http.context import Context, Describe
from router.http.errors import on_http_exception, on_router_error, on_unexpected
from router.http.middleware import Hops, PlainStart, for_browsers
from router.http.openapi import build_openapi
from router.http.replicate_views import webhook_view
from router.http.request_log import Access
from router.inputs.fetch import BoundedFetcher, UrlFetcher
from router.inputs.request_inputs import Intake
from router.inputs.uploads import Uploads
from router.keys.key import parse_keys, who_is_served
from router.keys.key_store import KeyFileError, Keyring
from router.models.catalog import Package, discover
from router.models.coglet_process import CogProcess, ProcessOptions
from router.models.memory import GpuMemory, detect_memory, hardware_name
from router.models.process import Memory, Process, StartError
from router.models.process_group import end_left_behind
from router.models.schemas import Schemas
from router.observability.telemetry import Telemetry
from router.prediction import Prediction
from router.predictions.loop import SchedulerLoop
from router.predictions.output_files import Outputs
from router.predictions.service import Predictions
from router.predictions.webhook_sender import WEBHOOK_FILE, HttpWebhookSender, load_secret
from router.predictions.webhooks import Webhooks
from router.scheduling.messages import Described, Warm
from router.scheduling.scheduler import Policy, Scheduler
from router.server_limits import bounded_server
from router.settings import Settings, Weights
from router.shutdown import stop_on_signal
from router.storage.private_files import NotPrivateError, make_state_folder
from router.storage.sealed_store import BOX_KEY_FILE, BoxKey, BoxKeyError, SealedStore, load_box_key
from router.storage.spool import Spool
from router.storage.sqlite_store import SqliteStore
from router.storage.state_folder import StateFolder

log = logging.getLogger(__name__)


class StateInUseError(RuntimeError):
    """Another router has this state folder open."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Nothing is started or written before its lifespan begins."""
    settings = settings or Settings()
    memory = detect_memory(settings.memory_reserve_bytes, settings.memory_limit_bytes)
    has_gpu = isinstance(memory, GpuMemory)
    packages = discover(settings.packages_dir.resolve(), _environments(settings, has_gpu))
    backends = Backends(settings, packages, SystemClock())
    telemetry = Telemetry()
    reads = BodyReads()
    keys = _make_keyring(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = Limits(settings.max_connections, settings.keep_alive_s)
        with bounded_server(limits):  # before the signals' handlers, by which it finds the server
            async with running(settings, backends, memory, telemetry) as context:
                app.state.context = context
                undo = stop_on_signal(context, reads, settings.shutdown_grace_s)
                try:
                    with _opened(keys):
                        yield
                finally:
                    undo()

    app = FastAPI(
        title="CALLME GPU backend",
        lifespan=lifespan,
        openapi_url=None,  # below
        redoc_url=None,
        redirect_slashes=False,
        # /metrics is ours; FastAPI would look for an exporter at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.openapi = lambda: build_openapi(app.state.context)  # type: ignore[method-assign]
    app.add_exception_handler(RouterError, on_router_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)
    app.add_middleware(Hops)  # within the guard
    app.add_middleware(Guard, keys=keys, max_body_bytes=settings.max_upload_bytes, reads=reads)
    _observe_requests(app, telemetry, settings.cors_origins)
    # A request is compared with one route after the other: what is asked for most comes first,
    # and `/{model}`, which fits every short path, last.
    cog.add_routes(app)
    replicate.add_routes(app)
    app.openapi_url = "/openapi.json"
    app.setup()
    operations.add_routes(app)
    events.add_routes(app)
    operations.add_routes(app)
    replicate_files.add_routes(app)
    streams.add_routes(app)
    downloads.add_routes(app)
    native.add_routes(app)
    replicate_catalog.add_routes(app)
    return app


def _observe_requests(app: FastAPI, telemetry: Telemetry, cors_origins: Collection[str]) -> None:
    """`add_middleware` would put these inside the layer that answers a bug with 500."""
    build = app.build_middleware_stack

    def build_all() -> ASGIApp:
        within = for_browsers(build(), cors_origins)
        return PlainStart(Access(within, telemetry.at_once, telemetry.afterwards))

    app.build_middleware_stack = build_all  # type: ignore[method-assign]


def _make_keyring(settings: Settings) -> Keyring:
    limits = (settings.requests_per_minute, settings.concurrent_requests)
    configured = parse_keys((k.get_secret_value() for k in settings.keys), *limits)
    admins = (k.get_secret_value() for k in settings.admin_keys)
    configured += parse_keys(admins, *limits, is_admin=True)
    return Keyring(settings.state, configured, *limits)


@contextlib.contextmanager
def _opened(keys: Keyring) -> Iterator[None]:
    try:
        with _private():
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
    settings: Settings, backends: Backends, memory: Memory, telemetry: Telemetry
) -> AsyncIterator[Context]:
    """Everything that has a life of its own, started, and stopped in reverse."""
    with _locked(settings.state):
        with _private():
            _clear_temp(settings.state)
        disk = _open_disk(settings.state)
        schemas = Schemas()
        loop = _make_loop(settings, backends, memory, schemas, telemetry)
        context = _make_context(
            *(settings, backends, loop, schemas),
            disk=disk,
            telemetry=telemetry,
            hardware=hardware_name(memory),
        )
        telemetry.open(loop.scheduler)
        loop.open()
        # Before any result can be added to what an earlier run had not delivered.
        await context.webhooks.open()
        resumed = await context.predictions.open()
        disk.store.remove_others(p.id for p in resumed)
        kept = [f.ref() for f in await context.uploads.open()]
        disk.spool.remove_strangers([*kept, *(f for p in resumed for f in p.files)])
        disk.outputs.remove_unowned(await disk.store.ended_ids())
        disk.watch.open()
        preparing = asyncio.create_task(_prepare(context, settings.preload))
        context.is_open = True
        try:
            yield context
        finally:
            context.is_open = False
            telemetry.close()
            preparing.cancel()
            await disk.watch.close()
            await loop.close(settings.shutdown_grace_s)
            await context.predictions.close()
            await context.uploads.close()
            await context.webhooks.close()
            await disk.database.close()


@dataclass(frozen=True, slots=True)
class Disk:
    """What lies in the state folder."""

    database: SqliteStore
    store: SealedStore
    spool: Spool
    outputs: Spool  # files of results, which are kept as long as those
    secret: str
    box_key: BoxKey
    watch: StateFolder


def _open_disk(state: Path) -> Disk:
    with _private():
        secret = load_secret(state / WEBHOOK_FILE)
        box_key = load_box_key(state / BOX_KEY_FILE)
        database = SqliteStore(state / "predictions.sqlite3")
        store = SealedStore(database, state / "sealed", box_key)
        spool, outputs = Spool(state / "spool"), Spool(state / "outputs")
    names = ("spool", "outputs", "sealed", "tmp", "cache")
    watch = StateFolder([state / name for name in names if (state / name).is_dir()], database)
    return Disk(database, store, spool, outputs, secret, box_key, watch)


def _make_context(
    settings: Settings,
    backends: Backends,
    loop: SchedulerLoop,
    schemas: Schemas,
    *,
    disk: Disk,
    telemetry: Telemetry,
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
        *(loop, store, spool, clock, webhooks),
        time_limit_s=settings.prediction_timeout_s,
        keep_results_s=keep_s,
        observer=telemetry.observer,
        routes=backends.routes,
        outputs=Outputs(disk.outputs, disk.secret),
    )
    find_output = predictions.links.file_of_url
    uploads = Uploads(database, spool, fetcher, clock, keep_s, find_output=find_output)
    context = Context(
        packages=backends.packages,
        loop=loop,
        predictions=predictions,
        intake=Intake(spool, uploads, settings.max_upload_bytes),
        files=spool,
        describe=_make_describe(schemas, loop, backends),
        max_upload_bytes=settings.max_upload_bytes,
        sync_limit_s=settings.sync_limit_s,
        started_at=clock.time(),
        uploads=uploads,
        webhooks=webhooks,
        webhook_secret=disk.secret,
        replicate_owner=settings.replicate_owner,
        cog_version=version("cog"),
        hardware=hardware,
        metrics=telemetry.exposition,
        events=telemetry.events,
        keyed_digest=disk.box_key.digest,
        backend_of=backends.kind,
        problems=disk.watch.problems,
    )
    return context


def _make_describe(schemas: Schemas, loop: SchedulerLoop, backends: Backends) -> Describe:
    async def describe(package: Package) -> Mapping[str, Any]:
        runs_here = backends.kind(package.name) == LOCAL
        try:
            description = await schemas.describe(package) if package.runner else None
        except StartError:
            if runs_here:
                raise
            description = None  # what it needs is installed there, and need not be here
        if description is None:
            return await backends.schema(package.name)
        if runs_here:
            loop.post(Described(package.name, description.max_concurrency))
        return description.schema

    return describe


def _make_loop(
    settings: Settings,
    backends: Backends,
    memory: Memory,
    schemas: Schemas,
    telemetry: Telemetry,
) -> SchedulerLoop:
    state = settings.state
    options = ProcessOptions(
        spool_dir=state / "spool",
        tmp_dir=state / "tmp",
        cache_dir=state / "cache",
        setup_timeout_s=settings.setup_timeout_s,
        measure=memory.measure,
    )
    policy = Policy(
        queue_limit=settings.queue_limit,
        idle_to_sleep_s=settings.idle_to_sleep_s,
        min_residency_s=settings.min_residency_s,
        unhealthy_to_restart_s=settings.unhealthy_to_restart_s,
        default_footprint_bytes=settings.default_footprint_bytes,
    )

    def make_process(package: Package) -> Process:
        if remote := backends.process(package.name):
            return remote
        known = schemas.known(package)
        if known:
            package = replace(package, max_concurrency=known.max_concurrency, streams=known.streams)
        return CogProcess(package, options)

    budget_bytes = memory.budget_bytes(0)
    scheduler = Scheduler(backends.concurrency, budget_bytes, policy, backends.weightless)
    return SchedulerLoop(
        scheduler, backends.homes, make_process, memory, SystemClock(), observer=telemetry.observer
    )


async def _prepare(context: Context, preload: tuple[str, ...]) -> None:
    """Read every package's schema, one after the other, and load those that are wanted."""
    for name, package in context.packages.items():
        try:
            await context.spec(package)
        except (RouterError, StartError) as error:
            log.error("package cannot be read", extra={"model": name, "reason": str(error)})
            continue
        except Exception:
            log.exception("package cannot be read", extra={"model": name})
            continue  # a bug, but none of the other models'
        if name in preload or "all" in preload:
            context.loop.post(Warm(name))


def _environments(settings: Settings, has_gpu: bool) -> dict[str, dict[str, str]]:
    """What is added to the models' environments: `*` for all, then each model's own."""
    demo = settings.weights is Weights.DEMO or (settings.weights is Weights.AUTO and not has_gpu)
    common = {"WEIGHTS": "demo"} if demo else {}
    return {"*": common, **{name: dict(m.env) for name, m in settings.models.items()}}


def _clear_temp(state: Path) -> None:
    """Private folders, made again: what an earlier router left in temp is nobody's, as are the
    processes that its models left."""
    if not end_left_behind(state / "spool"):
        log.error("what an earlier router has left running cannot be ended")
    shutil.rmtree(state / "tmp", ignore_errors=True)
    for name in ("tmp", "cache"):
        (state / name).mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _private() -> Iterator[None]:
    try:
        yield
    except (NotPrivateError, BoxKeyError) as error:
        raise RuntimeError(f"Cannot start: {error}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RuntimeError(f"Cannot start: {error.filename or 'state folder'}: {reason}") from error


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the state folder for this process alone. Raises StateInUseError."""
    with _private():
        make_state_folder(state)
        # Unbuffered: on a full disk a buffer would fail a second time, when it is closed.
        lock = (state / "lock").open("ab+", buffering=0)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateInUseError(
                "Cannot start: another router uses this state folder (CALLME_STATE_DIR)"
            ) from error
        with _private():
            lock.seek(0)
            lock.truncate()
            lock.write(f"{os.getpid()}\n".encode())
        yield
