"""A start that cannot be, told in a sentence instead of a stack trace."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What the service's own errors of starting begin with; anything else is a bug, told in full.
OWN_WORDS = "Cannot start: "


class PlainStart:
    """The outermost ASGI layer at start and end: Starlette gives uvicorn the whole traceback
    to log, whose last line is the error's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; shorten the message of a failed start that is ours."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                last = str(message.get("message", "")).rstrip().rpartition("\n")[2]
                _, found, reason = last.partition(OWN_WORDS)
                if found:
                    message = {**message, "message": OWN_WORDS + reason}
            await send(message)

        await self._app(scope, receive, told)
