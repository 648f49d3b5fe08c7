"""The scheduler's limits and times, with their defaults. `router.settings` takes its defaults from
here."""

from __future__ import annotations

from dataclasses import dataclass

# A model stays for this many times the time that it took to bring. So models that take turns spend
# at most a fifth of the time on moving, while `min_residency_s` (10 s) does not end their stay
# earlier: if they are brought within 2.5 s.
WORTH = 4.0
# A model stays at least this long, so a card that is full has at most one swap a second.
SHORTEST_PROTECTION_S = 1.0


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """The numbers of one model that replace the policy's; None: the policy's. `priority`: 0
    (first) to 2 (last) among the models that want memory."""

    idle_to_sleep_s: float | None = None
    asleep_to_stop_s: float | None = None
    queue_limit: int | None = None
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """The scheduler's limits and times; see docs/operations/settings.md.

    `queue_limit`: places in one model's queue.
    `idle_to_sleep_s`: after this time an idle model gives its memory back.
    `asleep_to_stop_s`: after this time a sleeping model is stopped.
    `idle_to_stage_s`: after this time the memory of an idle model is copied, so that it falls
    asleep quickly.
    `restage_s`: the wait after a copy that was refused.
    `min_residency_s`: the longest time for which a model that has just become ready is protected
    from eviction while it is idle (`protection_s`).
    `patience_s`: how long a claim waits for idle models before busy ones are drained for it. It is
    less for a model that is quick to wake (`claim_patience_s`).
    `ageing_s`: a waiter's priority rises by one in this time.
    `unhealthy_to_restart_s`: how long a model's own health check may fail before it is restarted.
    `backoff_first_s`: the wait after a first failure. It doubles with each further failure, up to
    `backoff_max_s`.
    `wait_out_backoff_s`: after a crash, waiters stay in the queue if the back-off is at most this.
    `default_footprint_bytes`, `unknown_load_s`, `unknown_service_s`: what is assumed of a model
    before it has been measured.
    `growth_bytes`: by how much more than the last copies new ones may take; an eighth of the last
    ones if that is more.
    """

    queue_limit: int = 64
    idle_to_sleep_s: float = 300.0
    asleep_to_stop_s: float = 3600.0
    idle_to_stage_s: float = 2.0
    restage_s: float = 60.0
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
    growth_bytes: int = 0

    def protection_s(self, brought_in_s: float) -> float:
        """Seconds for which an idle model is not evicted after it took `brought_in_s` to load or to
        wake."""
        worth_s = max(WORTH * brought_in_s, SHORTEST_PROTECTION_S)
        return min(self.min_residency_s, worth_s)

    def claim_patience_s(self, wake_s: float | None) -> float:
        """Seconds until busy models are drained for a claim. `wake_s`: how long the claiming model
        takes to wake; None for one that must be started."""
        if wake_s is None:
            return self.patience_s
        return min(self.patience_s, max(WORTH * wake_s, SHORTEST_PROTECTION_S))

    def backoff_s(self, failures: int) -> float:
        """Seconds until the next attempt. `failures`: failures in a row, 1 or more."""
        # A much larger exponent than 60 would overflow a float. The limit is reached long before.
        return min(self.backoff_first_s * 2.0 ** min(failures - 1, 60), self.backoff_max_s)
