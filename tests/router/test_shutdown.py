"""One flag for the whole server, and those who must know of it at once."""

from __future__ import annotations

import asyncio

from router.shutdown import Shutdown


async def test_it_begins_once() -> None:
    """All waiting tasks are woken, callbacks are called once; reset, it can begin again."""
    shutdown = Shutdown()
    calls: list[int] = []
    shutdown.on_begin(lambda: calls.append(1))
    waiting = asyncio.create_task(shutdown.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    shutdown.begin()
    shutdown.begin()
    await asyncio.wait_for(waiting, 5)
    assert (shutdown.begun, calls) == (True, [1])
    shutdown.reset()
    assert not shutdown.begun
    shutdown.begin()
    assert calls == [1, 1]
