"""What happened, as one stream of facts, and its listeners.

A listener decides nothing and must be quick, as it is called synchronously. `router.app` adds the
listeners: metrics and the event stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from msgspec import Struct

from router.prediction import Prediction

log = logging.getLogger(__name__)


class PredictionChanged(Struct, frozen=True):
    """A prediction was accepted, has started, waits again or has ended; its status says which."""

    prediction: Prediction


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
    """A start has succeeded (`ready`) or failed, after `seconds`."""

    model: str
    seconds: float
    ready: bool


class RequestEnded(Struct, frozen=True):
    """An HTTP request was answered, after `seconds`. `route`: the template of its path. `status`: 0
    when the client disconnected before the response."""

    method: str
    route: str
    status: int
    seconds: float


Fact = PredictionChanged | PredictionRefused | ModelChanged | LoadEnded | RequestEnded
Listener = Callable[[Fact], None]


class Facts:
    """Calls every listener with every fact, in order. The exception of a listener is logged, and
    the others are still called: a fact may be reported in the middle of a prediction's end or a
    model's start, which must not fail because of it."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = tuple(listeners)

    def tell(self, fact: Fact) -> None:
        """Call all listeners now."""
        for listener in self._listeners:
            try:
                listener(fact)
            except Exception:
                log.exception("a listener failed")
