"""The scheduler: events in, effects out. Only it decides which prediction runs, which waits and
which model is resident.

It does no I/O and has no clock: every call is given `now` (seconds, monotonic), and the loop
around it (`router/predictions/scheduler_loop.py`) performs the effects and reports back. A phase
changes only in the handlers below:

    STOPPED ─Start▶ STARTING ─Ready▶ READY ─Stop▶ STOPPING ─Stopped▶ STOPPED
       ▲                │              └─Died▶ STOPPING ─Stopped▶ FAILED
       └─(back-off over)┴─StartFailed▶ FAILED ─Start▶ STARTING

and, for a process that can sleep:

    READY ─Sleep▶ SUSPENDING ─Slept▶ ASLEEP ─Wake▶ WAKING ─Woke▶ READY

From these, Died, SleepFailed and, after a long sleep, Stop lead to STOPPING. SleepRefused leads
from SUSPENDING back to READY. The copies that a sleep needs are made before it, in READY (Stage).

A ready model whose own health check fails is granted no predictions: they wait. What already
runs on it goes on. When nothing runs any more and the check has failed for
`unhealthy_to_restart_s`, the model is stopped like one that crashed. The first time, it is then
started again without a request. The second time, it is started again like any model that
crashed: by the next prediction that comes after its back-off.

Only the stop of the router and the operator (Unload) take a model out of STARTING before its start
has ended. When a
crashed model reports Stopped after its back-off has ended, it becomes STOPPED, not FAILED.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace as replaced

from msgspec.structs import replace

from router.errors import RouterError
from router.scheduling import messages as msg
from router.scheduling import refusals, sleeping
from router.scheduling.eviction import (
    claims,
    held_bytes,
    judge_claim,
    judge_overcommitment,
    leaving_bytes,
)
from router.scheduling.model import COMING, GONE, Model, Phase, Run
from router.scheduling.queue import Waiter, WaitingLine
from router.scheduling.snapshot import Estimate, Snapshot, Standing, estimate_of, snapshot_of
from router.scheduling.tunables import OwnPolicy, Policy

__all__ = ["OwnPolicy", "Policy", "Scheduler"]

UNLIMITED = 1 << 62


class Scheduler:
    """The pure state machine. `concurrency`: every model's name, and how many predictions it may
    run at once. `weightless`: the models that run on other machines and take no memory here.
    `labels`: what messages call a model, where that is not its name. `host_budget_bytes`: the main
    memory that the copies of all sleepers together may take; None: without a limit. `own_policies`:
    of models that have some of the policy's numbers of their own."""

    def __init__(
        self,
        concurrency: Mapping[str, int],
        budget_bytes: int,
        policy: Policy | None = None,
        weightless: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        *,
        host_budget_bytes: int | None = None,
        own_policies: Mapping[str, OwnPolicy] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.budget_bytes = budget_bytes
        self.host_budget_bytes = UNLIMITED if host_budget_bytes is None else host_budget_bytes
        self.draining = False
        self.models = {
            name: Model(
                name,
                parallel,
                WaitingLine(self.policy.ageing_s),
                0 if name in weightless else self.policy.default_footprint_bytes,
                (labels or {}).get(name, name),
                own=(own_policies or {}).get(name, OwnPolicy()),
            )
            for name, parallel in concurrency.items()
        }
        self._model_of: dict[str, Model] = {}  # every prediction that waits or runs
        self._over_since: float | None = None  # more memory is held than there is
        self._handled_at = 0.0
        self._out: list[msg.Effect] = []

    # ---- events ---------------------------------------------------------------------------

    def handle(self, event: msg.Event, now: float) -> list[msg.Effect]:
        """Handle one event and return the effects to perform."""
        match event:
            case msg.Submitted():
                self._submitted(event, now)
            case msg.Withdrawn():
                self._withdrawn(event)
            case msg.Finished() | msg.Requeued():
                self._run_ended(event, now)
            case msg.Ready() | msg.HealthChanged() | msg.StartFailed() | msg.Died() | msg.Stopped():
                self._process_changed(event, now)
            case msg.Staged() | msg.Slept() | msg.SleepRefused() | msg.SleepFailed() | msg.Woke():
                self._sleep_changed(event, now)
            case msg.Measured():
                self.budget_bytes = event.budget_bytes
                if event.host_budget_bytes is not None:
                    self.host_budget_bytes = event.host_budget_bytes
                for name, measured in event.footprints.items():
                    self.models[name].note_footprint(measured)
            case msg.Described():
                self.models[event.model].concurrency = max(1, event.max_concurrency)
            case msg.Warm() | msg.Unload() | msg.Keep():
                self._asked(event, now)
            case msg.Draining():
                self._drain(force=event.force, now=now)
            case msg.Tick():
                pass
        self._pump(now)
        self._handled_at = now
        out, self._out = self._out, []
        return out

    def next_wakeup(self, now: float) -> float | None:
        """When a Tick could change something; None when only other events can.

        A moment between the last `handle` and `now` has not been acted on, so it is due at once.
        """
        due = [t for m in self.models.values() for t in m.turning_points(self.policy)]
        if self._over_since is not None:
            due.append(self._over_since + self.policy.patience_s)
        first = min((t for t in due if t > self._handled_at), default=None)
        return None if first is None else max(first, now)

    # ---- what callers may ask ------------------------------------------------------------

    def standing(self, prediction_id: str, now: float) -> Standing | None:
        """Queue position and expected wait of a waiting prediction, None if it is not waiting."""
        m = self._model_of.get(prediction_id)
        if m is None or prediction_id in m.running:
            return None
        ids = [w.id for w in m.waiting.order(now)]
        position = ids.index(prediction_id) + 1
        return Standing(position, refusals.eta_s(m, position, self.policy, now))

    def estimate(self, model: str, owner: str, now: float) -> Estimate:
        """What would happen to one more prediction of that owner."""
        estimate = estimate_of(self.models[model], owner, self.budget_bytes, self.policy, now)
        return replaced(estimate, accepted=False) if self.draining else estimate

    def snapshot(self, now: float) -> Snapshot:
        """Every model, its queue and its memory at `now`."""
        models = self.models.values()
        budgets = self.budget_bytes, self.host_budget_bytes
        return snapshot_of(models, *budgets, self.policy, now, draining=self.draining)

    # ---- handlers ------------------------------------------------------------------------

    def _submitted(self, e: msg.Submitted, now: float) -> None:
        if e.id in self._model_of:
            return  # it waits or runs already, and must not run twice
        m = self.models[e.model]
        m.note_request(now)
        if refusal := self._refusal(m, e.owner, now):
            self._out.append(msg.Drop(e.id, refusal))
            return
        m.waiting.join(Waiter(e.id, e.owner, e.priority, now))
        self._model_of[e.id] = m

    def _refusal(self, m: Model, owner: str, now: float) -> RouterError | None:
        if self.draining:
            return refusals.shutting_down()
        return refusals.refusal(m, owner, self.policy, now)

    def _withdrawn(self, e: msg.Withdrawn) -> None:
        m = self._model_of.get(e.id)
        if m is None:
            return
        run = m.running.get(e.id)
        if run is None:
            m.waiting.leave(e.id)
            del self._model_of[e.id]
        elif not run.withdrawn:
            m.running[e.id] = replace(run, withdrawn=True)
            self._out.append(msg.Interrupt(e.id, m.name, run.generation))

    def _asked(self, e: msg.Warm | msg.Unload | msg.Keep, now: float) -> None:
        m = self.models[e.model]
        if isinstance(e, msg.Keep):
            m.keep, m.let_go = e.keep, False
            return
        if isinstance(e, msg.Unload):
            m.asked = "restart" if e.again else "unload"
            m.let_go = not e.again
            return
        m.wanted = m.phase is not Phase.READY and m.phase not in COMING
        if e.at_once:
            m.forget_failures(now)

    def _run_ended(self, e: msg.Finished | msg.Requeued, now: float) -> None:
        m = self.models[e.model]
        run = m.running.get(e.id)
        if run is None or run.generation != e.generation:
            return
        del m.running[e.id]
        m.last_used = now
        if isinstance(e, msg.Requeued):
            self._handed_back(m, run, now)
            return
        del self._model_of[e.id]
        if e.service_s is not None:
            m.note_service(e.service_s)
            # A result of an earlier process says nothing about the present one.
            if m.phase is Phase.READY and e.generation == m.generation:
                m.failures = 0

    def _handed_back(self, m: Model, run: Run, now: float) -> None:
        if run.withdrawn:
            self._drop(run.waiter.id, refusals.canceled())
        elif self.draining:
            self._drop(run.waiter.id, refusals.shutting_down())
        elif refusals.must_not_wait(m, self.policy, now):
            self._drop(run.waiter.id, refusals.backing_off(m, now))
        else:
            m.waiting.rejoin(run.waiter)

    def _process_changed(
        self,
        e: msg.Ready | msg.HealthChanged | msg.StartFailed | msg.Died | msg.Stopped,
        now: float,
    ) -> None:
        m = self.models[e.model]
        if e.generation != m.generation:
            return
        match e:
            case msg.Ready() if m.phase is Phase.STARTING:
                m.enter(Phase.READY, now)
                m.note_ready(now, e.load_s)
                m.set_up_until = now
                m.wanted = False
                m.can_sleep = e.can_sleep
                m.note_load(e.load_s)
                m.note_footprint(e.footprint_bytes)
            case msg.HealthChanged() if m.phase in (Phase.STARTING, Phase.READY):
                m.note_health(e.problem, now)
            case msg.StartFailed() if m.phase is Phase.STARTING:
                self._note_failure(m, e, now, crashed=False, asked_s=e.retry_after_s)
                m.set_up_until = now
                m.enter(Phase.FAILED, now)
            case msg.Died() if m.phase not in (*GONE, Phase.STARTING, Phase.STOPPING):
                self._crash(m, e, "crashed", now, well_until=now)
            case msg.Stopped() if m.phase is Phase.STOPPING:
                m.enter(Phase.FAILED if m.retry_at > now else Phase.STOPPED, now)
            case _:
                pass  # the report came after its phase had ended

    def _sleep_changed(
        self,
        e: msg.Staged | msg.Slept | msg.SleepRefused | msg.SleepFailed | msg.Woke,
        now: float,
    ) -> None:
        m = self.models[e.model]
        if e.generation != m.generation:
            return
        if not isinstance(e, msg.SleepFailed):
            sleeping.note_report(m, e, self.policy, now)
        elif m.phase is Phase.SUSPENDING:
            self._stop(m, "cannot sleep", now)

    def _crash(self, m: Model, e: msg.Died, reason: str, now: float, *, well_until: float) -> None:
        if well_until - m.phase_since >= self.policy.backoff_max_s:
            m.failures = 0  # it ran for so long that this is not the earlier failure again
        self._note_failure(m, e, now, crashed=True)
        m.crashes += 1
        self._stop(m, reason, now)

    def _note_failure(
        self,
        m: Model,
        e: msg.StartFailed | msg.Died,
        now: float,
        *,
        crashed: bool,
        asked_s: float = 0.0,
    ) -> None:
        m.failures += 1
        # A remote that asks for a longer wait than the limit is still asked again at the limit.
        asked_s = min(asked_s, self.policy.backoff_max_s)
        m.retry_at = now + max(self.policy.backoff_s(m.failures), asked_s)
        m.failure_reason, m.log_tail = e.reason, e.log_tail
        m.failure_place = e.place if isinstance(e, msg.StartFailed) else ""
        m.crashed = crashed
        m.wanted = False
        if not crashed or refusals.must_not_wait(m, self.policy, now):
            self._drop_waiters(m, refusals.backing_off(m, now))

    def _drain(self, *, force: bool, now: float) -> None:
        self.draining = True
        for m in self.models.values():
            self._drop_waiters(m, refusals.shutting_down())
            at_work = m.phase is Phase.READY and bool(m.running) and not force
            if m.phase not in GONE and m.phase is not Phase.STOPPING and not at_work:
                self._stop(m, "forced" if force else "shutdown", now)

    # ---- from state to effects --------------------------------------------------------------

    def _pump(self, now: float) -> None:
        self._restart_unhealthy(now)
        draining = self._do_as_asked(now)
        draining |= self._admit_claims(now) | self._relieve(now)
        models, budget = self.models.values(), self.host_budget_bytes
        for sleeper in sleeping.judge_host_overcommitment(models, budget, now):
            self._stop(sleeper, "host memory", now)
        for m in models:
            m.draining = m.name in draining
            while (
                m.phase is Phase.READY
                and m.waiting
                and len(m.running) < m.concurrency
                and not m.draining
                and not m.problem
            ):
                w = m.waiting.take(now)
                m.running[w.id] = Run(w, m.generation)
                self._out.append(msg.Run(w.id, m.name, m.generation))
        self._stop_idle(now)

    def _do_as_asked(self, now: float) -> set[str]:
        """Stop the models that the operator wants stopped. Return the names of those that must
        drain before."""
        drain: set[str] = set()
        for m in self.models.values():
            if not m.asked or self.draining:
                continue
            if m.running:
                drain.add(m.name)
                continue
            reason, m.asked = m.asked, ""
            if m.phase not in GONE and m.phase is not Phase.STOPPING:
                self._stop(m, reason, now)
            m.wanted = reason == "restart"
            if m.wanted:
                m.forget_failures(now)
        return drain

    def _restart_unhealthy(self, now: float) -> None:
        for m in self.models.values():
            if m.phase is not Phase.READY or not m.problem or m.running or self.draining:
                continue
            if now >= m.restart_at(self.policy.unhealthy_to_restart_s):
                e = msg.Died(m.name, m.generation, f"its health check fails: {m.problem}")
                self._crash(m, e, "unhealthy", now, well_until=m.problem_since)
                m.wanted = m.failures == 1

    def _admit_claims(self, now: float) -> set[str]:
        """Start the models that fit and stop those evicted for others. Return the names of the
        models that must drain."""
        drain: set[str] = set()
        if self.draining or not (claiming := claims(self.models.values(), now, self.policy)):
            return drain
        free = self.budget_bytes - held_bytes(self.models.values())
        for m in claiming:
            claim_bytes = m.claim_bytes  # before `_bring`: then it is held
            if m.need_bytes > self.budget_bytes:
                m.wanted = False
                self._drop_waiters(m, refusals.too_large(m, self.budget_bytes))
                continue
            decision = judge_claim(
                m,
                self.models.values(),
                free,
                now,
                impatient=now >= m.impatient_at(self.policy),
                policy=self.policy,
            )
            if decision.fits:
                self._bring(m, now)
            elif not m.waiting:
                continue  # preloading takes only free memory
            for victim in decision.stop:
                self._evict(victim, f"evicted for {m.name}", now)
            for victim in decision.end:
                self._end(victim, f"evicted for {m.name}", now)
            drain.update(v.name for v in decision.drain)
            # The memory that an older claim waits for is not given to a younger, smaller one.
            free -= claim_bytes
        return drain

    def _stop_idle(self, now: float) -> None:
        p = self.policy
        for m in self.models.values():
            if m.phase is Phase.ASLEEP:
                if not m.waiting and now >= m.stop_asleep_at(p):
                    self._stop(m, "long asleep", now)
            elif not m.is_idle:
                continue
            elif self.draining:
                self._stop(m, "shutdown", now)
            elif now >= m.idle_at(p):
                self._give_back(m, "idle", now)
            elif m.wants_staging and now >= m.stage_at(p):
                self._stage(m)

    def _relieve(self, now: float) -> set[str]:
        """Free memory when models grew or another program took some: stop idle models at once, and
        drain busy ones too when that has not been enough for `patience_s`. Return the names of the
        models that must drain."""
        over = held_bytes(self.models.values()) - self.budget_bytes
        if over > 0:
            over -= leaving_bytes(self.models.values())
        if over <= 0 or self.draining:
            self._over_since = None
            return set()
        if self._over_since is None:
            self._over_since = now
        relief = judge_overcommitment(
            self.models.values(),
            over,
            now,
            impatient=now >= self._over_since + self.policy.patience_s,
            policy=self.policy,
        )
        for m in relief.stop:
            self._evict(m, "memory", now)
        for m in relief.end:
            self._end(m, "memory", now)
        return {m.name for m in relief.drain}

    # ---- single steps ---------------------------------------------------------------------

    def _bring(self, m: Model, now: float) -> None:
        """Wake the model when it is asleep, else start it."""
        if m.phase is Phase.ASLEEP:
            m.enter(Phase.WAKING, now)
            self._out.append(msg.Wake(m.name, m.generation))
        else:
            m.generation += 1
            m.problem = ""
            m.enter(Phase.STARTING, now)
            self._out.append(msg.Start(m.name, m.generation))

    def _evict(self, m: Model, reason: str, now: float) -> None:
        if m.phase is Phase.STOPPING:
            return  # it was stopped a moment ago, for the copies of another victim
        if m.phase is Phase.ASLEEP:
            self._end(m, reason, now)
        elif self._give_back(m, reason, now):
            m.evictions += 1

    def _end(self, m: Model, reason: str, now: float) -> None:
        """Stop a model that must give back even what it would hold asleep."""
        if m.phase is Phase.STOPPING:
            return
        m.evictions += 1
        self._stop(m, reason, now)

    def _give_back(self, m: Model, reason: str, now: float) -> bool:
        """Free the memory of a model that runs nothing: by sleep if it can, else by a stop. False
        when a sleeper is being stopped first, to make room for its copies."""
        if not m.can_sleep:
            self._stop(m, reason, now)
            return True
        decision = sleeping.judge_copies(m, self.models.values(), self.host_budget_bytes, now)
        for sleeper in decision.stop:
            self._stop(sleeper, "host memory", now)
        if decision.stop or decision.wait:
            return False
        if not decision.fits:
            self._stop(m, reason, now)
            return True
        m.problem = ""
        m.host_limit_bytes = m.likely_host_bytes
        m.enter(Phase.SUSPENDING, now)
        self._out.append(msg.Sleep(m.name, m.generation, reason, m.host_limit_bytes))
        return True

    def _stage(self, m: Model) -> None:
        """Have the memory of an idle model copied, if there is room for the copies and the models
        do not all fit in memory together, so that one will have to leave."""
        models = self.models.values()
        crowded = sum(o.need_bytes for o in models) > self.budget_bytes
        room = sleeping.host_room_bytes(models, self.host_budget_bytes)
        if crowded and m.likely_host_bytes <= room:
            m.host_limit_bytes = m.likely_host_bytes
            self._out.append(msg.Stage(m.name, m.generation, m.host_limit_bytes))

    def _stop(self, m: Model, reason: str, now: float) -> None:
        if reason != "unhealthy":
            m.problem = ""
        m.enter(Phase.STOPPING, now)
        self._out.append(msg.Stop(m.name, m.generation, reason))

    def _drop(self, prediction_id: str, error: RouterError) -> None:
        self._model_of.pop(prediction_id, None)
        self._out.append(msg.Drop(prediction_id, error))

    def _drop_waiters(self, m: Model, error: RouterError) -> None:
        for w in m.waiting.clear():
            self._drop(w.id, error)
