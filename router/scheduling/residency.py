"""Which models are in memory. This is reviewed after every event.

The rules of who must leave are in `router.scheduling.eviction` and `router.scheduling.sleeping`;
the steps, and the choice between sleep and stop, are in `router.scheduling.transitions`.
"""

from __future__ import annotations

from router.scheduling import messages as msg
from router.scheduling import refusals, sleeping
from router.scheduling.eviction import (
    claims,
    held_bytes,
    judge_claim,
    judge_overcommitment,
    leaving_bytes,
)
from router.scheduling.model import GONE, Phase
from router.scheduling.transitions import Transitions


class Residency:
    """Starts, stops, wakes and puts to sleep, by the steps of `transitions`."""

    def __init__(self, transitions: Transitions) -> None:
        self._steps = transitions
        self._over_since: float | None = None  # since when more memory is held than there is

    def review(self, now: float) -> set[str]:
        """Bring, evict, stop and restart models as is due now. Return the names of the models that
        must drain: they begin no new prediction."""
        steps = self._steps
        if self._nothing_to_do():
            self._over_since = None
            return set()
        self._restart_unhealthy(now)
        draining = self._obey_operator(now)
        draining |= self._admit_claims(now) | self._relieve(now)
        models = steps.models.values()
        for sleeper in sleeping.judge_host_overcommitment(models, steps.host_budget_bytes, now):
            steps.stop(sleeper, "host memory", now)
        return draining

    def _nothing_to_do(self) -> bool:
        """Whether no model is unhealthy, has a command or claims memory, and memory suffices.

        This is so after nearly every event, and this check costs a fifth of the whole review."""
        held = host = 0
        for m in self._steps.models.values():
            if m.pending_command or m.problem or (m.phase is not Phase.READY and m.claims_memory):
                return False
            held += m.held_bytes
            host += m.held_host_bytes
        return held <= self._steps.budget_bytes and host <= self._steps.host_budget_bytes

    def relief_due_at(self) -> float | None:
        """From when busy models must drain too, because evicting idle ones was not enough. None
        while no more memory is held than there is."""
        if self._over_since is None:
            return None
        return self._over_since + self._steps.policy.patience_s

    def free_idle(self, now: float) -> None:
        """Put models to sleep that are idle for long, stop those asleep for long, and stage idle
        ones. While the router shuts down, stop idle ones."""
        steps = self._steps
        p = steps.policy
        for m in steps.models.values():
            if m.phase is Phase.ASLEEP:
                if not m.waiting and now >= m.stop_asleep_at(p):
                    steps.stop(m, "long asleep", now)
            elif not m.is_idle:
                continue
            elif steps.shutting_down:
                steps.stop(m, "shutdown", now)
            elif now >= m.idle_at(p):
                steps.free_memory(m, "idle", now)
            elif m.wants_staging and now >= m.stage_at(p):
                steps.stage(m)

    def _obey_operator(self, now: float) -> set[str]:
        """Stop the models that have a pending command and run nothing. Return the names of those
        that must drain first."""
        drain: set[str] = set()
        for m in self._steps.models.values():
            if not m.pending_command or self._steps.shutting_down:
                continue
            if m.running:
                drain.add(m.name)
                continue
            reason, m.pending_command = m.pending_command, ""
            if m.phase not in GONE and m.phase is not Phase.STOPPING:
                self._steps.stop(m, reason, now)
            m.load_requested = reason == "restart"
            if m.load_requested:
                m.forget_failures(now)
        return drain

    def _restart_unhealthy(self, now: float) -> None:
        for m in self._steps.models.values():
            if (
                m.phase is not Phase.READY
                or not m.problem
                or m.running
                or self._steps.shutting_down
            ):
                continue
            if now >= m.restart_at(self._steps.policy.unhealthy_to_restart_s):
                e = msg.Died(m.name, m.generation, f"its health check fails: {m.problem}")
                self._steps.crash(m, e, "unhealthy", now, well_until=m.problem_since)
                m.load_requested = m.failures == 1

    def _admit_claims(self, now: float) -> set[str]:
        """Bring the models that fit and evict others for those that do not. Return the names of
        the models that must drain."""
        steps = self._steps
        drain: set[str] = set()
        if steps.shutting_down or not (
            claiming := claims(steps.models.values(), now, steps.policy)
        ):
            return drain
        free = steps.budget_bytes - held_bytes(steps.models.values())
        # A model that waits for its memory does not lose what it holds to a younger claim.
        others = list(steps.models.values())
        for m in claiming:
            if m.phase is not Phase.ASLEEP and m.phase not in GONE:
                continue  # it has just been evicted for an older claim
            claim_bytes = m.claim_bytes  # read before `bring`, which makes it held memory
            if m.need_bytes > steps.budget_bytes:
                m.load_requested = False
                # Another program may free what it holds.
                for_now = m.need_bytes <= steps.most_bytes
                error = refusals.too_large(m, steps.budget_bytes)
                steps.drop_waiters(m, error, in_outage=for_now)
                continue
            decision = judge_claim(
                m,
                others,
                free,
                now,
                may_drain=now >= m.drains_others_at(steps.policy),
            )
            if decision.fits:
                steps.bring(m, now)
            elif not m.waiting:
                continue  # preloading takes only free memory
            for victim in decision.evict:
                steps.evict(victim, f"evicted for {m.name}", now)
            for victim in decision.evict_fully:
                steps.evict_fully(victim, f"evicted for {m.name}", now)
            drain.update(v.name for v in decision.drain)
            # A younger, smaller claim does not get the memory that an older claim waits for.
            free -= claim_bytes
            if not decision.fits:
                others.remove(m)
        return drain

    def _relieve(self, now: float) -> set[str]:
        """Free memory after models grew or another program took some: evict idle models at once,
        and drain busy ones too if that is not enough for `patience_s`. Return the names of the
        models that must drain."""
        steps = self._steps
        over = held_bytes(steps.models.values()) - steps.budget_bytes
        if over > 0:
            over -= leaving_bytes(steps.models.values())
        if over <= 0 or steps.shutting_down:
            self._over_since = None
            return set()
        if self._over_since is None:
            self._over_since = now
        relief = judge_overcommitment(
            steps.models.values(),
            over,
            now,
            may_drain=now >= self._over_since + steps.policy.patience_s,
        )
        for m in relief.evict:
            steps.evict(m, "memory", now)
        for m in relief.evict_fully:
            steps.evict_fully(m, "memory", now)
        return {m.name for m in relief.drain}
