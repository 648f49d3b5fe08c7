"""Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.http.context import gone
from router.http.headers import header

EVENT_STREAM = "text/event-stream"
# Proxies close a connection that has been silent for about a minute.
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"
# Time limit for the last message, to a client that may not be reading.
PARTING_S = 0.5
STALL_S = 30.0
# A large event is sent in pieces of this size, so that even a slow reader shows progress.
PIECE_BYTES = 1 << 16
LINE_END = re.compile(r"\r\n|\n|\r")


def accepts(request: Request, media_type: str) -> bool:
    """Whether the Accept header names exactly this type and does not exclude it with q=0."""
    accepted = (header(request.scope, b"accept") or "").lower()
    if media_type not in accepted:
        return False
    for part in accepted.split(","):
        kind, *parameters = (p.strip().replace(" ", "") for p in part.split(";"))
        if kind == media_type:
            return not any(re.fullmatch(r"q=0(\.0*)?", p) for p in parameters)
    return False


def event_bytes(kind: str, data: str, event_id: str = "") -> bytes:
    """Return one event as bytes. Data of several lines arrives unchanged."""
    lines = [f"event: {kind}"]
    if event_id:
        lines.append(f"id: {event_id}")
    lines += [f"data: {line}" for line in LINE_END.split(data)]
    return "\n".join([*lines, "", ""]).encode()


class EventResponse(Response):
    """Sends chunks until there are no more, the client leaves (`on_leave`), or `over` returns.

    `on_close` is called in every case. A client that reads nothing for STALL_S seconds is given
    up, whatever it has received before.
    """

    media_type = EVENT_STREAM

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        over: Callable[[], Coroutine[Any, Any, object]],
        *,
        on_leave: Callable[[], object] = lambda: None,
        on_close: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._over = over
        self._on_leave = on_leave
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(gone(Request(scope, receive)))
        over = asyncio.create_task(self._over())
        tasks = {sending, leaving, over}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if leaving.done() and not sending.done():
                self._on_leave()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._on_close()
        if not sending.cancelled() and (error := sending.exception()):
            if not isinstance(error, TimeoutError):
                raise error
            self._on_leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        async for chunk in self._chunks:
            for start in range(0, len(chunk), PIECE_BYTES):
                piece = chunk[start : start + PIECE_BYTES]
                async with asyncio.timeout(STALL_S):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
