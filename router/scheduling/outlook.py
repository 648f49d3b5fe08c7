"""What would become of one more prediction: asked of the scheduler, without changing it."""

from __future__ import annotations

import math

from router.scheduling import refusals
from router.scheduling.scheduler import Scheduler


class Outlook:
    """Fulfils `router.predictions.overflow.Lines`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def expected_wait_s(self, model: str, now: float) -> float:
        """Seconds until it would start, infinite when it never would. What making room takes
        is not in it: nobody knows when others are done."""
        m, policy = self._scheduler.models[model], self._scheduler.policy
        if m.need_bytes > self._scheduler.budget_bytes or refusals.must_not_wait(m, policy, now):
            return math.inf
        return refusals.eta_s(m, len(m.waiting) + 1, policy, now)

    def takes(self, model: str, owner: str, now: float) -> bool:
        """Whether it would be let in."""
        scheduler = self._scheduler
        m = scheduler.models[model]
        return not scheduler.draining and not refusals.refusal(m, owner, scheduler.policy, now)

    def is_waiting(self, prediction_id: str, now: float) -> bool:
        """Whether the prediction is in a line, and not running."""
        return self._scheduler.standing(prediction_id, now) is not None
