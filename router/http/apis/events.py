"""`GET /events`: changes of models and predictions as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from router.http.auth import admin_only
from router.http.context import context_of
from router.http.sse import HEARTBEAT, HEARTBEAT_S, EventResponse, event_bytes
from router.observability.events import EventStream, Subscription


async def follow(subscription: Subscription, first: list[bytes]) -> AsyncIterator[bytes]:
    """Yield `first`, then each event as it comes, and a heartbeat every HEARTBEAT_S seconds."""
    yield b"".join(first)
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                kind, data = await subscription.events.get()
        except TimeoutError:
            yield HEARTBEAT
        else:
            yield change_bytes(kind, data)


def change_bytes(kind: str, data: Mapping[str, str]) -> bytes:
    """Return one change as an event."""
    return event_bytes(kind, orjson.dumps(data).decode())


def event_response(stream: EventStream, first: list[bytes]) -> EventResponse:
    """Send one client `first`, then every change from now on."""
    subscription = stream.subscribe()
    return EventResponse(
        follow(subscription, first),
        subscription.wait_ended,
        on_close=lambda: stream.unsubscribe(subscription),
    )


@admin_only
async def events(request: Request) -> Response:
    """Send the present state of every model, then every change."""
    context = context_of(request)
    models = context.loop.snapshot().models.values()
    first = [change_bytes("model", {"model": m.name, "state": m.phase.value}) for m in models]
    return event_response(context.events, first)


def add_routes(app: Starlette) -> None:
    """Add the route of the event stream."""
    app.add_route("/events", events, methods=["GET"])
