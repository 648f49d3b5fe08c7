"""Ctrl-C: to stop begins at the signal, not when the last request has been answered."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from router.http.body_timeout import BodyReads
from router.http.context import Context
from router.scheduling.messages import Draining
from router.server_limits import running_server

# After everything has been answered: a client that does not read what it asked for holds its
# connection for ever, and uvicorn by default waits for it.
UNREAD_S = 5.0


def _bound_the_end(limit_s: float) -> None:
    """Have uvicorn give up connections so long after the signal, unless it has a limit already."""
    server = running_server()
    if server is not None and server.config.timeout_graceful_shutdown is None:
        server.config.timeout_graceful_shutdown = math.ceil(limit_s)


def stop_on_signal(context: Context, reads: BodyReads, grace_s: float) -> Callable[[], None]:
    """Begin to stop at the signal itself; returns how to undo this.

    uvicorn ends the lifespan only when every request has been answered, and would wait for a
    prediction as long as it takes, and for a body that never ends for ever. With this, what
    waits or is still being sent is refused at once, what runs has `grace_s`, and every request
    is answered before the lifespan ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    event_loop = asyncio.get_running_loop()
    before: dict[int, Any] = {}

    def begin() -> None:
        context.is_open = False
        context.events.close()
        reads.close()
        context.loop.post(Draining())
        event_loop.call_later(grace_s, context.loop.post, Draining(force=True))

    def on_signal(number: int, frame: FrameType | None) -> None:
        event_loop.call_soon_threadsafe(begin)
        if callable(before[number]):
            before[number](number, frame)

    _bound_the_end(grace_s + UNREAD_S)
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
