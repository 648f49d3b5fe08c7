"""Request ids, trace ids, the access log, and HTTP metrics: the outermost ASGI layer.

It is outside even the layer that answers a bug with 500, so that this answer has an id too.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import quote

from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.http.pages import ROUTE
from router.logs import log_info
from router.observability.facts import Facts, RequestEnded
from router.prediction import new_id
from router.trace_context import RESPONSE_HEADER, TraceContext, parse

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
UNMATCHED = "unmatched"
PLAIN_PATH = re.compile(r"[A-Za-z0-9/_.~-]*")  # what `quote` would not change
# In the scope: the request's span, absent when it belongs to no trace.
TRACE = "callme_trace"
# Only these methods begin a trace. Otherwise each poll and probe would begin one.
BEGIN_TRACES = frozenset({"POST", "PUT"})
TRACE_RESPONSE = RESPONSE_HEADER.encode()
# The span of a request, from the caller's span; None when it is not to be traced.
BeginTrace = Callable[[TraceContext | None], TraceContext | None]
# A path may have 16 KiB, three times as much when quoted, and any client may send one.
LOGGED_PATH_CHARS = 500


class RequestLog:
    """Gives every response an `X-Request-Id`: the client's own if it is valid, else a new one.
    Reports every request as a fact, and logs it.

    A request of a trace gets a span from `begin_trace`, and its response a `traceresponse`. Without
    `begin_trace` no trace begins here, and the caller's span is only sent on.
    """

    def __init__(self, app: ASGIApp, facts: Facts, begin_trace: BeginTrace | None = None) -> None:
        self._app = app
        self._facts = facts
        self._begin_trace = begin_trace
        facts.add(log_request, RequestEnded)
        self._templates: dict[object, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and report it when it has been answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id, parent = _read_headers(scope)
        scope["callme_request_id"] = request_id.decode()
        added = [(b"x-request-id", request_id)]
        trace, began_at = parent, 0.0
        if self._begin_trace is not None and (parent or scope["method"] in BEGIN_TRACES):
            trace, began_at = self._begin_trace(parent), time.time()
        if trace is not None:
            scope[TRACE] = trace
            added.append((TRACE_RESPONSE, trace.header.encode()))
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            ended = RequestEnded(
                scope["method"],
                self._route(scope),
                status,  # 0 when the client left before the response
                seconds,
                scope["path"],
                scope["callme_request_id"],
                trace,
                began_at,
            )
            self._facts.tell(ended)

    def _route(self, scope: Scope) -> str:
        """Return the path template of the route that answered, or UNMATCHED when none did.

        It is found by the endpoint, which every router leaves in the scope. FastAPI's router
        leaves the route itself only for its own kind of routes.
        """
        endpoint = scope.get("endpoint")
        if endpoint is None:
            route: str = scope.get(ROUTE, UNMATCHED)
            return route
        if self._templates is None:
            self._templates = templates(scope["app"].routes)
        return self._templates.get(endpoint, UNMATCHED)


def log_request(fact: RequestEnded) -> None:
    """Log the request in one line. This is a listener of `router.observability.facts`."""
    fields = {
        "request_id": fact.request_id,
        "method": fact.method,
        # Quoted, because a client could send control characters for a terminal.
        "path": _quoted(fact.path[:LOGGED_PATH_CHARS]),
        "route": fact.route,
        "status": fact.status,
        "seconds": round(fact.seconds, 4),
    }
    if fact.trace is not None:
        fields["trace_id"] = fact.trace.trace_id
    log_info(log, "request", fields)


def _quoted(path: str) -> str:
    return path if PLAIN_PATH.fullmatch(path) else quote(path)


def _read_headers(scope: Scope) -> tuple[bytes, TraceContext | None]:
    """The request's id, and the caller's span. With two `traceparent` headers there is no span."""
    request_id, parents, state = b"", [], b""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if not request_id and REQUEST_ID.fullmatch(value):
                request_id = bytes(value)
        elif name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            state = state + b"," + value if state else value
    trace = None
    if len(parents) == 1:
        trace = parse(parents[0].decode("latin-1"), state.decode("latin-1"))
    return request_id or new_id().encode(), trace


def templates(routes: Iterable[BaseRoute]) -> dict[object, str]:
    """Return the path template of every endpoint. The endpoint of a mount is its application."""
    out: dict[object, str] = {}
    for route in routes:
        if isinstance(route, Route):
            out.setdefault(route.endpoint, route.path)
        elif isinstance(route, Mount):
            out.setdefault(route.app, f"{route.path}/{{path}}")
    return out
