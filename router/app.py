"""Makes the ASGI application from the settings: the HTTP APIs, who may call them, and around them
what `router.composition` makes. `router/http/apis/__init__.py` says how to add an API."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from router.backends import Backends
from router.clock import SystemClock
from router.composition import Telemetry, running
from router.config_mistakes import mistakes
from router.disk import private_errors
from router.errors import RouterError
from router.http.apis import (
    cog,
    downloads,
    events,
    native,
    operations,
    package_files,
    remote_files,
    replicate,
    replicate_catalog,
    replicate_files,
    streams,
    usage,
)
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.connections import Limits
from router.http.context import Context
from router.http.errors import on_http_exception, on_router_error, on_unexpected
from router.http.middleware import LoopDetection, StartupErrors, with_security_headers
from router.http.openapi import build_openapi
from router.http.pages import Pages
from router.http.request_log import RequestLog
from router.keys.key import parse_keys, who_is_served
from router.keys.key_store import KeyFileError, Keyring
from router.models.catalog import survey
from router.models.memory import (
    GpuMemory,
    detect_memory,
)
from router.observability.events import EventStream
from router.observability.facts import Facts
from router.observability.metrics import PrometheusMetrics
from router.observability.otlp import open_traces
from router.scheduling.messages import RouterStopping
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
    telemetry = Telemetry(
        PrometheusMetrics(facts), EventStream(shutdown, facts), facts, open_traces(facts)
    )
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
        if telemetry.traces is not None:
            await telemetry.traces.close()

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
    _observe_requests(app, telemetry, settings.cors_origins)
    # A request is compared with the routes in this order: the most used ones come first, and
    # `/{model}`, which matches every short path, comes last.
    cog.add_routes(app)
    replicate.add_routes(app)
    app.openapi_url = "/openapi.json"
    app.setup()
    operations.add_routes(app)
    usage.add_routes(app)
    events.add_routes(app)
    package_files.add_routes(app)
    replicate_files.add_routes(app)
    streams.add_routes(app)
    downloads.add_routes(app)
    remote_files.add_routes(app)
    replicate_catalog.add_routes(app)
    native.add_routes(app)
    return app


def _observe_requests(app: FastAPI, telemetry: Telemetry, cors_origins: Collection[str]) -> None:
    """Put these around the layer that answers unexpected exceptions with 500. `add_middleware`
    would put them inside it."""
    build = app.build_middleware_stack

    def build_all() -> ASGIApp:
        within = with_security_headers(build(), cors_origins)
        begin_trace = telemetry.traces.begin if telemetry.traces else None
        return StartupErrors(RequestLog(within, telemetry.facts, begin_trace))

    app.build_middleware_stack = build_all  # type: ignore[method-assign]


def _stop_on_signal(context: Context, grace_s: float) -> Callable[[], None]:
    def begin() -> None:
        context.shutdown.begin()
        context.loop.post(RouterStopping())

    def force() -> None:
        context.loop.post(RouterStopping(force=True))

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


def _environments(settings: Settings, has_gpu: bool) -> dict[str, dict[str, str]]:
    """Variables to add to the models' environments: under `*` for all, and by model."""
    demo = settings.weights is Weights.DEMO or (settings.weights is Weights.AUTO and not has_gpu)
    common = {"WEIGHTS": "demo"} if demo else {}
    return {"*": common, **{name: dict(m.env) for name, m in settings.models.items()}}
