"""Ctrl-C: to stop begins at the signal, not when the last request has been answered."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from router.api.context import Context
from router.api.patience import BodyReads
from router.domain.messages import Draining


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

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return undo
