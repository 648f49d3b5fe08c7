"""Request ids, the access log, and HTTP metrics: the outermost ASGI layer.

It is outside even the layer that answers a bug with 500, so that this answer has an id too.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable
from urllib.parse import quote

from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.http.pages import ROUTE
from router.observability.facts import Fact, Facts, RequestEnded

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,64}")
UNMATCHED = "unmatched"
# A path may have 16 KiB, three times as much when quoted, and any client may send one.
LOGGED_PATH_CHARS = 500


class RequestLog:
    """Gives every response an `X-Request-Id`: the client's own if it is valid, else a new one.
    Reports every request as a fact, and logs it."""

    def __init__(self, app: ASGIApp, facts: Facts) -> None:
        self._app = app
        self._facts = facts
        facts.add(log_request)
        self._templates: dict[object, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and report it when it has been answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(scope)
        scope["callme_request_id"] = request_id.decode()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
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


def log_request(fact: Fact) -> None:
    """Log the request in one line, if it is one. This is a listener of
    `router.observability.facts`."""
    if isinstance(fact, RequestEnded):
        fields = {
            "request_id": fact.request_id,
            "method": fact.method,
            # Quoted, because a client could send control characters for a terminal.
            "path": quote(fact.path[:LOGGED_PATH_CHARS]),
            "route": fact.route,
            "status": fact.status,
            "seconds": round(fact.seconds, 4),
        }
        log.info("request", extra=fields)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return bytes(value)
    return secrets.token_hex(16).encode()


def templates(routes: Iterable[BaseRoute]) -> dict[object, str]:
    """Return the path template of every endpoint. The endpoint of a mount is its application."""
    out: dict[object, str] = {}
    for route in routes:
        if isinstance(route, Route):
            out.setdefault(route.endpoint, route.path)
        elif isinstance(route, Mount):
            out.setdefault(route.app, f"{route.path}/{{path}}")
    return out
