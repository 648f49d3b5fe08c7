"""A body that never ends holds nobody up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from router.errors import MalformedRequest, ShuttingDown
from router.http.body_timeout import BodyReads
from router.shutdown import Shutdown


def receiving(*messages: Message) -> Callable[[], Any]:
    """A `receive` that gives these and then nothing more."""
    left = list(messages)

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


PIECE = {"type": "http.request", "body": b"x", "more_body": True}
LAST = {"type": "http.request", "body": b"y", "more_body": False}


async def test_a_body_that_stops_coming() -> None:
    """The client's fault, once the idle limit is over."""
    receive = BodyReads(Shutdown(), idle_limit_s=0.01).watch(receiving(PIECE))
    assert await receive() == PIECE
    with pytest.raises(MalformedRequest):
        await receive()


async def test_stopping_waits_for_no_body() -> None:
    """A read under way ends at once, and so does one that begins later."""
    shutdown = Shutdown()
    reads = BodyReads(shutdown)
    first, second = reads.watch(receiving()), reads.watch(receiving())
    task = asyncio.ensure_future(first())
    await asyncio.sleep(0)
    shutdown.begin()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(task, 1)
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(second(), 1)


async def test_what_has_arrived_is_read_while_stopping() -> None:
    """A whole body is not thrown away."""
    shutdown = Shutdown()
    reads = BodyReads(shutdown)
    shutdown.begin()
    assert await reads.watch(receiving(LAST))() == LAST


async def test_after_the_body_only_the_clients_leaving_is_waited_for() -> None:
    """That may take longer than any limit."""
    receive = BodyReads(Shutdown(), idle_limit_s=0.01).watch(receiving(LAST))
    assert await receive() == LAST
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(), 0.05)
