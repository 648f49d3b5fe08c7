"""What the loop needs of whoever owns the predictions."""

from __future__ import annotations

from typing import Protocol

from router.domain.errors import RouterError
from router.domain.prediction import Job, Outcome, Progress


class Jobs(Protocol):
    """Whoever owns the predictions: told of every step, in this order."""

    def started(self, prediction_id: str) -> Job:
        """It is about to run: what to run."""

    def progressed(self, prediction_id: str, progress: Progress) -> None:
        """It has printed something, or put out a part of its output."""

    def handed_back(self, prediction_id: str) -> None:
        """It did not begin after all and waits again."""

    def finished(self, prediction_id: str, outcome: Outcome) -> float | None:
        """It ended. The return value is its service time in seconds if that says something."""

    def dropped(self, prediction_id: str, error: RouterError) -> None:
        """It will never run."""
