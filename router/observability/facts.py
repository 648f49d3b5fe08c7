"""Observers that are not of the outside world, and what they may be told of the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.prediction import Prediction
from router.scheduling.model import STATES
from router.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelReading:
    """One model at one moment. `states`: every state, and whether it is in it."""

    name: str
    states: Mapping[str, bool]
    queued: int
    running: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The models at one moment, and the memory that they may use together."""

    budget_bytes: int
    models: Sequence[ModelReading]


class Observer(Protocol):
    """Told of facts; decides nothing, is waited for by nobody, and must be quick."""

    def prediction_changed(self, p: Prediction) -> None:
        """It was accepted, has started, waits again, or has ended: see its status."""

    def prediction_refused(self, model: str, code: str) -> None:
        """One was not accepted; nothing of it is left."""

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """It is in another phase; a stop has a reason."""

    def load_ended(self, model: str, seconds: float, *, ready: bool) -> None:
        """A start has succeeded or failed."""

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `route` is the template of the path."""


class Observers:
    """Fulfils Observer: tells several. One that fails is logged and harms nobody."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)

    def prediction_changed(self, p: Prediction) -> None:
        """Tell all."""
        self._tell(lambda o: o.prediction_changed(p))

    def prediction_refused(self, model: str, code: str) -> None:
        """Tell all."""
        self._tell(lambda o: o.prediction_refused(model, code))

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """Tell all."""
        self._tell(lambda o: o.model_changed(model, state, reason))

    def load_ended(self, model: str, seconds: float, *, ready: bool) -> None:
        """Tell all."""
        self._tell(lambda o: o.load_ended(model, seconds, ready=ready))

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Tell all."""
        self._tell(lambda o: o.request_ended(method, route, status, seconds))

    def _tell(self, fact: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                fact(observer)
            except Exception:
                # The facts are told in the midst of a prediction's end or a model's start.
                log.exception("an observer failed")


def read(scheduler: Scheduler) -> Reading:
    """What the scheduler has at this moment."""
    return Reading(
        budget_bytes=scheduler.budget_bytes,
        models=tuple(
            ModelReading(
                name=m.name,
                states={state: state == m.state for state in STATES},
                queued=len(m.waiting),
                running=len(m.running),
                memory_bytes=m.need_bytes if m.holds_memory else 0,
            )
            for m in scheduler.models.values()
        ),
    )
