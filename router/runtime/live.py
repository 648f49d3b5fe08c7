"""A prediction on its way, and the reasons for which it is ended before its model has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from router.domain.errors import RouterError
from router.domain.prediction import Failure, Prediction, Status
from router.ports import Timer

MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a prediction is withdrawn, and how it then ends: while it waits, or while it runs."""

    failure: Failure
    waiting: Status
    running: Status


CANCELED = Verdict(
    Failure("canceled", "The prediction was canceled"), Status.CANCELED, Status.CANCELED
)
# Replicate's words for `Cancel-After`: aborted before it ran, canceled while it ran.
OVERDUE = Verdict(
    Failure("deadline_exceeded", "The prediction did not end before its deadline"),
    Status.ABORTED,
    Status.CANCELED,
)


@dataclass(slots=True)
class Live:
    """A prediction on its way. `prediction` is always its present state, `done` its end."""

    prediction: Prediction
    done: asyncio.Future[None]
    verdict: Verdict | None = None  # overrides what the model says
    timer: Timer | None = None  # runs out when it has run too long
    deadline: Timer | None = None  # runs out when it has lived too long
    dropped_with: RouterError | None = None
    accepted: bool = False  # its caller has been, or is about to be, told that it will run

    async def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or after so long. Whoever waits may leave without harm."""
        if not self.done.done():
            await asyncio.wait({self.done}, timeout=timeout_s)

    def stop_timer(self) -> None:
        """It does not run now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop_timers(self) -> None:
        """It has ended."""
        self.stop_timer()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def hopeless(p: Prediction, now: float) -> tuple[Status, Failure] | None:
    """How a prediction that an earlier run of the router left behind ends without running."""
    running = p.status is Status.PROCESSING
    if p.deadline_at is not None and p.deadline_at <= now:
        return (OVERDUE.running if running else OVERDUE.waiting), OVERDUE.failure
    if running and p.attempts >= MAX_ATTEMPTS:
        reason = f"The server stopped during each of {p.attempts} attempts"
        return Status.FAILED, Failure("worker_died", reason)
    return None
