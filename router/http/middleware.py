"""ASGI layers around the routes: security headers, loop detection, start-up errors."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router import loop_detection
from router.errors import LoopDetected
from router.http.errors import render_error
from router.http.headers import header

PREFLIGHT_MAX_AGE_S = 600
# Request headers that the APIs read and that a browser sends only where CORS allows them.
CORS_HEADERS = (
    "Authorization",
    "Cancel-After",
    "Content-Encoding",  # so that the answer is 415 and not a failed preflight
    "Content-Type",
    "If-Range",
    "Last-Event-ID",
    "Prefer",
    "Range",
    "Traceparent",
    "Tracestate",
    "X-Callme-Priority",
    "X-Request-Id",
)
EXPOSED_HEADERS = (
    *("Content-Range", "Location", "Retry-After", "Traceresponse"),
    *("X-Prediction-Id", "X-Request-Id"),
)
Header = tuple[bytes, bytes]
# A model's output that is shown as a page runs nothing, fetches nothing and cannot be framed. The
# router's own pages set a policy of their own (router.pages.files).
INERT = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
NAMES = frozenset(name for name, _ in INERT)


def with_security_headers(app: ASGIApp, cors_origins: Collection[str]) -> ASGIApp:
    """Wrap `app` with security headers and, for these origins (`*`: all), CORS.

    Responses set no cookie and a cookie gives no access, so credentials are not allowed.
    """
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors_origins,
            allow_methods=("GET", "POST", "PUT", "DELETE"),
            allow_headers=CORS_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_MAX_AGE_S,
        )
    return SecurityHeaders(app)


class SecurityHeaders:
    """ASGI layer that adds the security headers. A header that an endpoint has set is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_headers(message.get("headers", ()))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _with_headers(headers: Collection[Header]) -> list[Header]:
    """Return the headers with the security headers added.

    Every response passes here, so this works on raw headers: Starlette's took twice as long.
    """
    there = {name.lower() for name, _ in headers}
    if there.isdisjoint(NAMES):
        return [*headers, *INERT]
    return [*headers, *(header for header in INERT if header[0] not in there)]


HEADER = loop_detection.HEADER.lower().encode()


class LoopDetection:
    """ASGI layer that refuses a request that has passed this router before.

    For every other request it notes the routers that the request has passed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with LoopDetected."""
        if scope["type"] != "http" or header(scope, HEADER) is None:
            await self._app(scope, receive, send)
            return
        try:
            via = loop_detection.read(",".join(Headers(scope=scope).getlist(loop_detection.HEADER)))
        except LoopDetected as error:
            await render_error(scope, error)(scope, receive, send)
            return
        with loop_detection.coming_through(via):
            await self._app(scope, receive, send)


# The service's own start-up errors begin with this. Any other error is a bug, logged in full.
OWN_WORDS = "Cannot start: "


class StartupErrors:
    """The outermost ASGI layer at start and end. It shortens the message of a failed start.

    Starlette gives uvicorn the whole traceback to log; only its last line is the error's message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and shorten the message of a start-up error of our own."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_shortened(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                last = str(message.get("message", "")).rstrip().rpartition("\n")[2]
                _, found, reason = last.partition(OWN_WORDS)
                if found:
                    message = {**message, "message": OWN_WORDS + reason}
            await send(message)

        await self._app(scope, receive, send_shortened)
