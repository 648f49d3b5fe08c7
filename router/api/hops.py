"""A request that has been here before is refused: 508, in the shape of its API."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from router.api.error_handlers import render_error
from router.api.headers import header
from router.domain import hops
from router.domain.errors import LoopDetected

HEADER = hops.HEADER.lower().encode()


class Hops:
    """The ASGI layer. What it lets through knows through which boxes it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] != "http" or header(scope, HEADER) is None:
            await self._app(scope, receive, send)
            return
        try:
            via = hops.read(",".join(Headers(scope=scope).getlist(hops.HEADER)))
        except LoopDetected as error:
            await render_error(scope, error)(scope, receive, send)
            return
        with hops.coming_through(via):
            await self._app(scope, receive, send)
