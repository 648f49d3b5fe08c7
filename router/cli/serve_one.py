"""`callme serve MODEL`: one model on a port of its own, with Cog's API at its root, as `cog serve`.

It is a complete router for this model alone. So predictions queue, where Cog's own server would
refuse all but one.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

PORT = 8393  # Cog's default
PATHS = frozenset({"/", "/health-check", "/openapi.json", "/predictions"})


class CogAtRoot:
    """An ASGI layer: the paths of a Cog server lead to this model. All others are the router's."""

    def __init__(self, app: ASGIApp, model: str) -> None:
        self._app = app
        self._prefix = f"/models/{model}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the model's own path."""
        if scope["type"] == "http":
            path = scope["path"]
            if path in PATHS or path.startswith("/predictions/"):
                path = f"{self._prefix}{path}".rstrip("/")
                scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)
