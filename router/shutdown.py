"""Stopping: one flag for the whole server, raised at Ctrl-C and not when the last request has been
answered."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

# After everything has been answered: a client that does not read what it asked for holds its
# connection, and uvicorn by default waits for it without a limit.
UNREAD_S = 5.0


class Shutdown:
    """Whether the server is stopping. One object for the whole application, which may be opened
    again after it was closed."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def begun(self) -> bool:
        """No new work is accepted from here on."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Return when it has begun."""
        await self._begun.wait()

    def on_begin(self, callback: Callable[[], object]) -> None:
        """Call it each time that the server begins to stop."""
        self._callbacks.append(callback)

    def begin(self) -> None:
        """Stop accepting. Called again, it does nothing."""
        if not self.begun:
            self._begun.set()
            for callback in self._callbacks:
                callback()

    def reset(self) -> None:
        """The server starts (again)."""
        self._begun.clear()


def stop_on_signal(
    begin: Callable[[], object],
    force: Callable[[], object],
    grace_s: float,
    server: uvicorn.Server | None,
) -> Callable[[], None]:
    """Call `begin` at SIGINT or SIGTERM and `force` after `grace_s` seconds; returns how to undo
    this.

    uvicorn ends the lifespan only when every request has been answered, and would wait without a
    limit for a prediction, and for a body that never ends. With this, what waits or is still being
    sent is refused at once, what runs has `grace_s`, and every request is answered before the
    lifespan ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    event_loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def stop() -> None:
        begin()
        event_loop.call_later(grace_s, force)

    def on_signal(number: int, frame: FrameType | None) -> None:
        event_loop.call_soon_threadsafe(stop)
        if callable(before[number]):
            before[number](number, frame)

    if server is not None and server.config.timeout_graceful_shutdown is None:
        # Connections are given up then, unless uvicorn was started with a limit of its own.
        server.config.timeout_graceful_shutdown = math.ceil(grace_s + UNREAD_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
