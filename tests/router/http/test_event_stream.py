"""The stream keeps a silent connection alive and never waits for a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message

from router.http import sse
from router.http.apis import events
from router.http.apis.events import event_response
from router.http.sse import EventResponse
from router.observability.events import QUEUE_LIMIT, EventStream, Subscription
from router.observability.facts import Facts, PredictionChanged
from router.prediction import Prediction
from router.shutdown import Shutdown

WAITING = Prediction("a", "echo", {}, created_at=1.0)


async def never() -> Message:
    """A client that stays."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def test_a_comment_where_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the stream is closed; then the body ends as it should."""
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.01)
    shutdown, sent = Shutdown(), list[Message]()
    stream = EventStream(shutdown, Facts())

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 5:
            shutdown.begin()

    async with asyncio.timeout(5):
        await event_response(stream, [b"first\n\n"])({"type": "http"}, never, send)
    bodies = [m["body"] for m in sent[1:]]
    assert bodies[:3] == [b"first\n\n", b": still here\n\n", b": still here\n\n"]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that never ends holds up neither the facts nor the handler."""
    monkeypatch.setattr(sse, "PARTING_S", 0.01)
    stream = EventStream(Shutdown(), Facts())
    stuck = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(5):
        answering = asyncio.create_task(
            event_response(stream, [b"first\n\n"])({"type": "http"}, never, send)
        )
        await stuck.wait()
        for _ in range(QUEUE_LIMIT + 1):
            stream.note(PredictionChanged(WAITING))
        await answering


async def test_a_client_that_goes_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler ends with it, and its subscription."""
    stream = EventStream(Shutdown(), Facts())
    left: list[Subscription] = []
    monkeypatch.setattr(stream, "unsubscribe", left.append)

    async def going() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        """Taken."""

    async with asyncio.timeout(5):
        await event_response(stream, [])({"type": "http"}, going, send)
    assert len(left) == 1


@pytest.mark.slow
async def test_a_slow_reader_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is whether it reads, not how much there is; one that has stopped is given up."""
    monkeypatch.setattr(sse, "STALL_S", 0.05)
    monkeypatch.setattr(sse, "PIECE_BYTES", 10)
    got, left = bytearray(), list[str]()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 200
        yield b"y" * 5

    async def over() -> None:
        await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        await asyncio.sleep(0.01)  # 20 pieces take four times as long as one may
        got.extend(message.get("body", b""))
        if b"y" in got:
            await asyncio.get_running_loop().create_future()

    async with asyncio.timeout(10):
        response = EventResponse(chunks(), over, on_leave=lambda: left.append("left"))
        await response({"type": "http"}, never, send)
    assert got == b"x" * 200 + b"y" * 5
    assert left == ["left"]
