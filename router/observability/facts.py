"""What happened, as one stream of facts, and its listeners.

A listener decides nothing, is waited for by nobody, and must be quick. `router.app` adds them:
metrics and the event stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from msgspec import Struct

from router.prediction import Prediction

log = logging.getLogger(__name__)


class PredictionChanged(Struct, frozen=True):
    """It was accepted, has started, waits again, or has ended: see its status."""

    prediction: Prediction


class PredictionRefused(Struct, frozen=True):
    """One was not accepted; nothing of it is left. `code`: of `router.errors`."""

    model: str
    code: str


class ModelChanged(Struct, frozen=True):
    """It is in another state (one of `router.scheduling.snapshot.STATES`). A stop has a reason."""

    model: str
    state: str
    reason: str = ""


class LoadEnded(Struct, frozen=True):
    """A start has succeeded or failed, after so many seconds."""

    model: str
    seconds: float
    ready: bool


class RequestEnded(Struct, frozen=True):
    """An HTTP request was answered. `route` is the template of the path. `status` is 0 when the
    client was gone before."""

    method: str
    route: str
    status: int
    seconds: float


Fact = PredictionChanged | PredictionRefused | ModelChanged | LoadEnded | RequestEnded
Listener = Callable[[Fact], None]


class Facts:
    """Tells every listener of every fact, in order. One that fails is logged, and the others are
    told: facts are told in the midst of a prediction's end or a model's start."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = tuple(listeners)

    def tell(self, fact: Fact) -> None:
        """At once."""
        for listener in self._listeners:
            try:
                listener(fact)
            except Exception:
                log.exception("a listener failed")
