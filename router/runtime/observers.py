"""Observers that are not of the outside world, and what they may be told of the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from router.domain.prediction import Prediction
from router.ports import ModelReading, Observer, Reading
from router.scheduling.model import STATES
from router.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)


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
