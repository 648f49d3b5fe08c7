"""The scheduler's limits and times, with their defaults. `router.settings` takes its defaults from
here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """The scheduler's limits and times; see docs/operations.md.

    `queue_limit`: places in one model's queue. `idle_to_sleep_s`: after this time an idle model
    gives its memory back. `asleep_to_stop_s`: after this time a sleeping model is stopped.
    `min_residency_s`: a model that has just become ready stays for this time.
    `patience_s`: how long a claim waits for idle models before busy ones are drained for it.
    `ageing_s`: a waiter's priority rises by one in this time. `unhealthy_to_restart_s`: how long a
    model's own health check may fail before the model is restarted. `backoff_first_s`: the wait
    after a first failure; it doubles with each further one, up to `backoff_max_s`.
    `wait_out_backoff_s`: after a crash, waiters stay in the queue if the back-off is no longer than
    this. `default_footprint_bytes`, `unknown_load_s`, `unknown_service_s`: what is assumed of a
    model before it has been measured.
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
        """Seconds until the next attempt. `failures`: failures in a row, 1 or more."""
        # At 2**60 the limit has long been reached; a much larger exponent overflows a float.
        return min(self.backoff_first_s * 2.0 ** min(failures - 1, 60), self.backoff_max_s)
