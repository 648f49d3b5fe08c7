"""The stop of the server: one flag for all of it, set at Ctrl-C and not after the last response."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

# After the last response, clients get this long to read it. Otherwise a client that does not read
# keeps its connection, and uvicorn by default waits for it without a limit.
UNREAD_S = 5.0


class Shutdown:
    """Whether the server is stopping. There is one object for the application, which may be started
    again after it was stopped."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def begun(self) -> bool:
        """Whether the stop has begun. From then on no new work is accepted."""
        return self._begun.is_set()

    async def wait(self) -> None:
        """Return when the stop has begun."""
        await self._begun.wait()

    def on_begin(self, callback: Callable[[], object]) -> None:
        """Call `callback` each time that the server begins to stop."""
        self._callbacks.append(callback)

    def begin(self) -> None:
        """Begin the stop. A second call does nothing."""
        if not self.begun:
            self._begun.set()
            for callback in self._callbacks:
                callback()

    def reset(self) -> None:
        """The server starts, or starts again."""
        self._begun.clear()


def stop_on_signal(
    begin: Callable[[], object],
    force: Callable[[], object],
    grace_s: float,
    server: uvicorn.Server | None,
) -> Callable[[], None]:
    """Call `begin` at SIGINT or SIGTERM, and `force` `grace_s` seconds later. Returns a function
    that undoes this.

    uvicorn ends the lifespan only when every request has been answered, and would wait without a
    limit for a prediction, and for a body that never ends. With this, waiting predictions and
    incomplete bodies are refused at once, running predictions have `grace_s`, and every request is
    answered before the lifespan ends.
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
        # uvicorn closes the connections then, unless it was started with its own limit.
        server.config.timeout_graceful_shutdown = math.ceil(grace_s + UNREAD_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
