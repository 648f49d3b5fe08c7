"""Long steps of work, one in each turn of the event loop, so that short requests pass between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# What is shorter is done at once: a turn of the loop costs more.
LONG_BYTES = 64 << 10


class Turns:
    """Ten large bodies at once are parsed and decoded one step after the other: without this
    every turn of the event loop would have ten steps in it, and each waiting request ten times
    the wait. One object for the whole application."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, step: Callable[[], T]) -> T:
        """Call `step` when it is its turn. It should take at most some 10 ms."""
        async with self._lock:
            value = step()
            await asyncio.sleep(0)
        return value
