"""What happened, as one stream of facts, and its listeners.

A listener decides nothing and must be quick, as it is called synchronously. The listeners are
metrics, the event stream, the log of requests, the counts of usage, and traces.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec import Struct

from router.prediction import Prediction
from router.trace_context import TraceContext

log = logging.getLogger(__name__)
# Facts wait this long, so that the next request of a quick caller does not wait for their
# listeners. What happens within this time is delivered together, which is also cheaper.
DELAY_S: Final = 0.01


class PredictionChanged(Struct, frozen=True):
    """A prediction was accepted, has started, waits again or has ended; its status says which."""

    prediction: Prediction


class PredictionEnded(Struct, frozen=True):
    """A prediction has ended, after PredictionChanged. `file_bytes`: the size of its input
    files."""

    prediction: Prediction
    file_bytes: int


class PredictionRefused(Struct, frozen=True):
    """A prediction was not accepted, and nothing of it is kept. `code`: a code of
    `router.errors`."""

    model: str
    code: str


class ModelChanged(Struct, frozen=True):
    """A model is in a new state, one of `router.scheduling.snapshot.STATES`. `reason`: why it stops
    or falls asleep, or what its health check reports; else ""."""

    model: str
    state: str
    reason: str = ""


class LoadEnded(Struct, frozen=True):
    """A start has succeeded (`ready`) or failed, after `seconds`, at `ended_at` (seconds since the
    epoch)."""

    model: str
    seconds: float
    ready: bool
    ended_at: float = 0.0


class WakeEnded(Struct, frozen=True):
    """A wake has succeeded (`ready`) or failed, after `seconds`, by all ways that it took; at
    `ended_at` (seconds since the epoch)."""

    model: str
    seconds: float
    ready: bool
    ended_at: float


class MemoryMoved(Struct, frozen=True):
    """A model's memory was copied (`stage`), freed (`sleep`) or filled again (`wake`), or the
    driver moved it away (`suspend`) or back (`resume`). `size`: the bytes."""

    model: str
    move: str
    size: int
    seconds: float


class SleepRefused(Struct, frozen=True):
    """A model would not sleep, or not let its memory be copied. `reason`: for a person."""

    model: str
    reason: str


class RequestEnded(Struct, frozen=True):
    """An HTTP request was answered, after `seconds`. `route`: the template of its `path`. `status`:
    0 when the client disconnected before the response. `trace`: its span, which began at `began_at`
    (seconds since the epoch); None when it belongs to no trace."""

    method: str
    route: str
    status: int
    seconds: float
    path: str
    request_id: str
    trace: TraceContext | None = None
    began_at: float = 0.0


Fact = (
    PredictionChanged
    | PredictionEnded
    | PredictionRefused
    | ModelChanged
    | LoadEnded
    | WakeEnded
    | MemoryMoved
    | SleepRefused
    | RequestEnded
)
# Called with the facts of its kinds.
Listener = Callable[[Any], None]


class Facts:
    """Calls each listener with the facts of its kinds, in order, a little later. The exception of a
    listener is logged, and the others are still called."""

    def __init__(self, listeners: Iterable[Listener] = (), delay_s: float = DELAY_S) -> None:
        """delay_s: how long a fact waits; 0: `tell` delivers it at once."""
        self._kinds: dict[Listener, tuple[type[Fact], ...]] = dict.fromkeys(listeners, ())
        self._listeners: dict[type, list[Listener]] = {}  # by kind, found when first needed
        self._delay_s = delay_s
        self._waiting: list[Fact] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, listener: Listener, *kinds: type[Fact]) -> None:
        """Call this one, too, with every fact of these kinds from now on; of all, without any."""
        self.deliver()
        self._kinds[listener] = kinds
        self._listeners.clear()

    def remove(self, listener: Listener) -> None:
        """Do not call this one any more."""
        del self._kinds[listener]
        self._listeners.clear()

    def tell(self, fact: Fact) -> None:
        """Deliver the fact `delay_s` from now. Needs a running event loop unless that is 0."""
        self._waiting.append(fact)
        if not self._delay_s:
            self.deliver()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay_s, self.deliver)

    def deliver(self) -> None:
        """Deliver now what waits. A reader of what a listener has collected calls this first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        facts, self._waiting = self._waiting, []
        for fact in facts:
            for listener in self._listeners.get(fact.__class__) or self._of(fact.__class__):
                try:
                    listener(fact)
                except Exception:
                    log.exception("a listener failed")

    def _of(self, kind: type) -> list[Listener]:
        found = [one for one, kinds in self._kinds.items() if not kinds or kind in kinds]
        self._listeners[kind] = found
        return found
