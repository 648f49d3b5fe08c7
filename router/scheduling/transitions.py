"""The single steps of the scheduler. Each changes the state of one model or prediction and adds the
effects that follow. `Transitions` also holds the state that the steps share.

Which step is due is decided in `router.scheduling.scheduler` (events) and in
`router.scheduling.residency` (memory). `free_memory` decides between sleep and stop. `crash` and
`note_failure` begin a back-off and refuse predictions that must not wait for its end; what becomes
of those that ran is in `router.predictions.worker_death`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.errors import RouterError
from router.scheduling import messages as msg
from router.scheduling import refusals, sleeping
from router.scheduling.model import Model, Phase
from router.scheduling.tunables import Policy


@dataclass(slots=True)
class Transitions:
    """The models, the memory that they share (bytes), and the steps.

    `most_bytes`: what they could share if no other program took any. `model_of`: the model of
    every prediction that waits or runs, by the prediction's id. `effects`: those of the event that
    is being handled.
    """

    models: Mapping[str, Model]
    policy: Policy
    budget_bytes: int
    host_budget_bytes: int
    most_bytes: int
    shutting_down: bool = False
    model_of: dict[str, Model] = field(default_factory=dict)
    effects: list[msg.Effect] = field(default_factory=list)

    def note_budget(self, budget_bytes: int) -> None:
        """Set the memory that the models may share now."""
        self.budget_bytes = budget_bytes
        self.most_bytes = max(self.most_bytes, budget_bytes)

    def bring(self, m: Model, now: float) -> None:
        """Wake the model when it is asleep, else start it."""
        if m.phase is Phase.ASLEEP:
            m.enter(Phase.WAKING, now)
            self.effects.append(msg.Wake(m.name, m.generation))
        else:
            m.generation += 1
            m.problem = ""
            m.enter(Phase.STARTING, now)
            self.effects.append(msg.Start(m.name, m.generation))

    def evict(self, m: Model, reason: str, now: float) -> None:
        """Evict a model that runs nothing: by sleep if it can, else by a stop."""
        if m.phase is Phase.STOPPING:
            return  # it was stopped a moment ago, to make room for copies of another victim
        if m.phase is Phase.ASLEEP:
            self.evict_fully(m, reason, now)
        elif self.free_memory(m, reason, now):
            m.evictions += 1

    def evict_fully(self, m: Model, reason: str, now: float) -> None:
        """Evict a model so that it holds nothing, not even asleep: the driver suspends it, or it is
        stopped."""
        if m.phase is not Phase.STOPPING and self.free_memory(m, reason, now, fully=True):
            m.evictions += 1

    def free_memory(self, m: Model, reason: str, now: float, *, fully: bool = False) -> bool:
        """Free the memory of a model that runs nothing: by sleep if it can, else by a stop. False
        when other sleepers are stopped first, to make room for its copies; it is tried again after
        that. `fully`: it must not hold anything, not even asleep."""
        hook = m.can_sleep and m.phase is Phase.READY
        driver = m.may_suspend and (fully or not hook)
        if not driver and (fully or not hook):
            self.stop(m, reason, now)
            return True
        host_bytes = m.likely_host_bytes_of(hook=hook, driver=driver)
        decision = sleeping.judge_copies(
            m, host_bytes, self.models.values(), self.host_budget_bytes, now
        )
        for sleeper in decision.stop:
            self.stop(sleeper, "host memory", now)
        if decision.stop or decision.wait:
            return False
        if not decision.fits:
            self.stop(m, reason, now)
            return True
        m.problem = ""
        m.host_limit_bytes, m.to_suspend = host_bytes, driver
        m.enter(Phase.FALLING_ASLEEP, now)
        self.effects.append(
            msg.Sleep(m.name, m.generation, reason, host_bytes, hook=hook, driver=driver)
        )
        return True

    def stage(self, m: Model) -> None:
        """Have the memory of an idle model copied, if there is room for the copies, and if the
        models do not all fit in memory together: then one of them will have to leave."""
        models = self.models.values()
        crowded = sum(o.need_bytes for o in models) > self.budget_bytes
        room = sleeping.host_room_bytes(models, self.host_budget_bytes)
        if crowded and m.likely_host_bytes <= room:
            m.host_limit_bytes = m.likely_host_bytes
            self.effects.append(msg.Stage(m.name, m.generation, m.host_limit_bytes))

    def stop(self, m: Model, reason: str, now: float) -> None:
        """Stop the process of a model. What becomes of predictions that still run on it:
        `router.predictions.worker_death`."""
        if reason != "unhealthy":
            m.problem = ""
        m.enter(Phase.STOPPING, now)
        self.effects.append(msg.Stop(m.name, m.generation, reason))

    def crash(self, m: Model, e: msg.Died, reason: str, now: float, *, well_until: float) -> None:
        """Stop a model that has died or is unhealthy. `well_until`: until when it was well."""
        if well_until - m.phase_since >= self.policy.backoff_max_s:
            m.failures = 0  # it ran for so long that this is a new problem
        self.note_failure(m, e, now, crashed=True)
        m.crashes += 1
        self.stop(m, reason, now)

    def note_failure(
        self,
        m: Model,
        e: msg.StartFailed | msg.Died,
        now: float,
        *,
        crashed: bool,
        asked_s: float = 0.0,
    ) -> None:
        """Begin the back-off of a model, and drop the predictions that must not wait for its
        end."""
        m.failures += 1
        # If a remote asks for a longer wait than the limit, the limit decides.
        asked_s = min(asked_s, self.policy.backoff_max_s)
        m.retry_at = now + max(self.policy.backoff_s(m.failures), asked_s)
        m.failure_reason, m.log_tail = e.reason, e.log_tail
        m.failure_location = e.location if isinstance(e, msg.StartFailed) else ""
        m.crashed = crashed
        m.outage = m.is_remote and (isinstance(e, msg.Died) or e.outage)
        m.load_requested = False
        if not crashed or refusals.must_not_wait(m, self.policy, now):
            self.drop_waiters(m, refusals.backing_off(m, now), in_outage=m.outage)

    def drop(self, prediction_id: str, error: RouterError) -> None:
        """Refuse a prediction that waits, or that would have to wait."""
        self.model_of.pop(prediction_id, None)
        self.effects.append(msg.Drop(prediction_id, error))

    def drop_waiters(self, m: Model, error: RouterError, *, in_outage: bool = False) -> None:
        """Refuse the predictions that wait for the model. `in_outage`: only those that do not wait
        it out."""
        for w in m.waiting.clear(in_outage=in_outage):
            self.drop(w.id, error)
