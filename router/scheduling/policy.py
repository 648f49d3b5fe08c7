"""The scheduler's numbers, and their defaults: `router.settings` has no others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds, bytes, requests; see docs/operations.md.

    `queue_limit`: places in one model's line. `min_residency_s`: a model that has just become
    ready is left alone this long. `patience_s`: how long a claim waits for idle models before
    busy ones are drained for it. `ageing_s`: a waiter gains one priority in this time.
    `unhealthy_to_restart_s`: how long a model's own health check may say no before the model is
    restarted. `wait_out_backoff_s`: after a crash, waiters stay if the next start is this near.
    `unknown_…`: what is assumed of a model before it has been measured.
    """

    queue_limit: int = 64
    idle_to_sleep_s: float = 300.0
    asleep_to_stop_s: float = 3600.0
    min_residency_s: float = 10.0
    patience_s: float = 15.0
    ageing_s: float = 30.0
    unhealthy_to_restart_s: float = 15.0
    backoff_first_s: float = 1.0
    backoff_max_s: float = 300.0
    wait_out_backoff_s: float = 10.0
    default_footprint_bytes: int = 2 << 30
    unknown_load_s: float = 30.0
    unknown_service_s: float = 2.0

    def backoff_s(self, failures: int) -> float:
        """Seconds until the next attempt after this many failures in a row, 1 or more."""
        # Past 2**60 the limit has long been reached, and far past it a float overflows.
        return min(self.backoff_first_s * 2.0 ** min(failures - 1, 60), self.backoff_max_s)
