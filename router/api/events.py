"""`GET /events`: the changes of models and predictions as Server-Sent Events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from router.api.context import context_of, gone
from router.runtime.events import EventStream, Subscription

# Proxies close what is silent for a minute or so.
HEARTBEAT_S = 15.0
# The last words to a client that may not be reading.
PARTING_S = 0.5


class EventResponse(Response):
    """Sends `first`, then events as they come, until the client goes or the stream ends."""

    media_type = "text/event-stream"

    def __init__(self, stream: EventStream, first: list[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send. A write that a client does not take is given up with the subscription."""
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with self._stream.subscribe() as subscription:
            sending = asyncio.create_task(self._send_events(subscription, send))
            leaving = asyncio.create_task(gone(Request(scope, receive)))
            tasks = {sending, leaving}
            try:
                await asyncio.wait(
                    {*tasks, subscription.ended}, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING_S):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_events(self, subscription: Subscription, send: Send) -> None:
        await _send_chunk(send, b"".join(self._first))
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    kind, data = await subscription.events.get()
            except TimeoutError:
                await _send_chunk(send, b": still here\n\n")
            else:
                await _send_chunk(send, event_bytes(kind, data))


async def _send_chunk(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


def event_bytes(kind: str, data: Mapping[str, str]) -> bytes:
    """One event as it is sent."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(data))


async def events(request: Request) -> Response:
    """Every model's state now, then what changes."""
    context = context_of(request)
    models = context.loop.scheduler.models.values()
    first = [event_bytes("model", {"model": m.name, "state": m.phase.value}) for m in models]
    return EventResponse(context.events, first)


def add_routes(app: Starlette) -> None:
    """The stream."""
    app.add_route("/events", events, methods=["GET"])
