"""The scheduler: events in, effects out. Only it decides which prediction runs, which waits and
which model is resident.

It does no I/O and has no clock: every call is given `now` (seconds, monotonic), and the loop
around it (`router/predictions/scheduler_loop.py`) performs the effects and reports back. This
module says what each event changes. After each event `router/scheduling/residency.py` decides what
is in memory. The steps of both are in `router/scheduling/transitions.py`. The phases:

    STOPPED ─Start▶ STARTING ─Ready▶ READY ─Stop▶ STOPPING ─Stopped▶ STOPPED
       ▲                │              └─Died▶ STOPPING ─Stopped▶ FAILED
       └─(back-off over)┴─StartFailed▶ FAILED ─Start▶ STARTING

and, for a process that can sleep:

    READY ─Sleep▶ FALLING_ASLEEP ─Slept▶ ASLEEP ─Wake▶ WAKING ─Woke▶ READY

From these phases, Died, SleepFailed and, after a long sleep, Stop lead to STOPPING. SleepRefused
leads from FALLING_ASLEEP back to the phase before. The copies that a sleep needs are made before
it, in READY (Stage).

When another model needs what a sleeper still holds, a second Sleep leads from ASLEEP through
FALLING_ASLEEP to ASLEEP. The driver has then suspended the process (`Model.suspended`). A process
that the hook cannot put to sleep is suspended by the driver alone.

A ready model whose own health check fails is granted no predictions: they wait. What already
runs on it goes on. When nothing runs any more and the check has failed for
`unhealthy_to_restart_s`, the model is stopped like one that crashed. After the first such stop it
is started again without a request. After the second it is started again like any model that
crashed: for the next prediction after its back-off.

A model leaves STARTING before its start has ended only when the router shuts down or the operator
unloads or restarts it (Unload). A crashed model that reports Stopped after the end of its back-off
becomes STOPPED, not FAILED.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace as replaced

from msgspec.structs import replace

from router.errors import RouterError
from router.scheduling import messages as msg
from router.scheduling import refusals, sleeping
from router.scheduling.model import COMING, GONE, Model, Phase, Run
from router.scheduling.queue import Waiter, WaitingLine
from router.scheduling.residency import Residency
from router.scheduling.snapshot import Estimate, Snapshot, Standing, estimate_of, snapshot_of
from router.scheduling.transitions import Transitions
from router.scheduling.tunables import OwnPolicy, Policy

__all__ = ["OwnPolicy", "Policy", "Scheduler"]

UNLIMITED = 1 << 62


class Scheduler:
    """The pure state machine.

    `concurrency`: every model's name, and how many predictions it may run at once.
    `remote_models`: those that run on other machines. They take no memory here.
    `labels`: what messages call a model, where that is not its name.
    `host_budget_bytes`: the main memory that the copies of all sleepers together may take; None: no
    limit.
    `own_policies`: the numbers of single models that replace the policy's.
    `most_bytes`: what models could share if no other program took any; None: not known.
    """

    def __init__(
        self,
        concurrency: Mapping[str, int],
        budget_bytes: int,
        policy: Policy | None = None,
        remote_models: Collection[str] = (),
        labels: Mapping[str, str] | None = None,
        *,
        host_budget_bytes: int | None = None,
        most_bytes: int | None = None,
        own_policies: Mapping[str, OwnPolicy] | None = None,
    ) -> None:
        self.policy = policy or Policy()
        self.models: Mapping[str, Model] = {
            name: Model(
                name,
                parallel,
                WaitingLine(self.policy.ageing_s),
                0 if name in remote_models else self.policy.default_footprint_bytes,
                (labels or {}).get(name, name),
                name in remote_models,
                own=(own_policies or {}).get(name, OwnPolicy()),
                growth_bytes=self.policy.growth_bytes,
            )
            for name, parallel in concurrency.items()
        }
        host_bytes = UNLIMITED if host_budget_bytes is None else host_budget_bytes
        most_bytes = budget_bytes if most_bytes is None else most_bytes
        self._steps = Transitions(self.models, self.policy, budget_bytes, host_bytes, most_bytes)
        self._residency = Residency(self._steps)
        self._handled_at = 0.0

    @property
    def budget_bytes(self) -> int:
        """The memory that the models share."""
        return self._steps.budget_bytes

    @property
    def shutting_down(self) -> bool:
        """Whether the router shuts down. Then nothing new is accepted."""
        return self._steps.shutting_down

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
                self._steps.note_budget(event.budget_bytes)
                if event.host_budget_bytes is not None:
                    self._steps.host_budget_bytes = event.host_budget_bytes
                for name, measured in event.footprints.items():
                    self.models[name].note_footprint(measured)
            case msg.Described():
                self.models[event.model].concurrency = max(1, event.max_concurrency)
            case msg.Load() | msg.Unload() | msg.Keep():
                self._note_command(event, now)
            case msg.RouterStopping():
                self._shut_down(force=event.force, now=now)
            case msg.Tick():
                pass
        self._pump(now)
        self._handled_at = now
        out, self._steps.effects = self._steps.effects, []
        return out

    def next_wakeup(self, now: float) -> float | None:
        """When a Tick could change something; None when only other events can.

        A moment after the last `handle` and before `now` has had no effect yet: it is due at once.
        """
        first = math.inf
        for m in self.models.values():
            for at in m.wakeup_times(self.policy):
                if self._handled_at < at < first:
                    first = at
        relief_due_at = self._residency.relief_due_at()
        if relief_due_at is not None and self._handled_at < relief_due_at < first:
            first = relief_due_at
        return None if first == math.inf else max(first, now)

    # ---- what callers may ask ------------------------------------------------------------

    def standing(self, prediction_id: str, now: float) -> Standing | None:
        """Queue position and expected wait of a waiting prediction, None if it is not waiting."""
        m = self._steps.model_of.get(prediction_id)
        if m is None or prediction_id in m.running:
            return None
        ids = [w.id for w in m.waiting.order(now)]
        position = ids.index(prediction_id) + 1
        return Standing(position, refusals.eta_s(m, position, self.policy, now))

    def estimate(self, model: str, owner: str, now: float) -> Estimate:
        """What would happen to one more prediction of that owner."""
        estimate = estimate_of(self.models[model], owner, self.budget_bytes, self.policy, now)
        return replaced(estimate, accepted=False) if self.shutting_down else estimate

    def snapshot(self, now: float) -> Snapshot:
        """Every model, its queue and its memory at `now`."""
        models = self.models.values()
        budgets = self._steps.budget_bytes, self._steps.host_budget_bytes
        return snapshot_of(models, *budgets, self.policy, now, shutting_down=self.shutting_down)

    # ---- handlers ------------------------------------------------------------------------

    def _submitted(self, e: msg.Submitted, now: float) -> None:
        if e.id in self._steps.model_of:
            return  # it waits or runs already, and must not run twice
        m = self.models[e.model]
        m.note_request(now)
        if refusal := self._refusal(m, e, now):
            self._steps.effects.append(msg.Drop(e.id, refusal))
            return
        m.waiting.join(
            Waiter(e.id, e.owner, e.priority, now, waits_out_outages=e.waits_out_outages)
        )
        self._steps.model_of[e.id] = m

    def _refusal(self, m: Model, e: msg.Submitted, now: float) -> RouterError | None:
        if self.shutting_down:
            return refusals.shutting_down()
        return refusals.refusal(m, e.owner, self.policy, now, waits_out_outages=e.waits_out_outages)

    def _withdrawn(self, e: msg.Withdrawn) -> None:
        m = self._steps.model_of.get(e.id)
        if m is None:
            return
        run = m.running.get(e.id)
        if run is None:
            m.waiting.leave(e.id)
            del self._steps.model_of[e.id]
        elif not run.withdrawn:
            m.running[e.id] = replace(run, withdrawn=True)
            self._steps.effects.append(msg.Interrupt(e.id, m.name, run.generation))

    def _note_command(self, e: msg.Load | msg.Unload | msg.Keep, now: float) -> None:
        m = self.models[e.model]
        if isinstance(e, msg.Keep):
            m.keep_loaded, m.unloaded_by_operator = e.keep, False
            return
        if isinstance(e, msg.Unload):
            m.pending_command = "restart" if e.again else "unload"
            m.unloaded_by_operator = not e.again
            return
        m.load_requested = m.phase is not Phase.READY and m.phase not in COMING
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
        del self._steps.model_of[e.id]
        if e.service_s is not None:
            m.note_service(e.service_s)
            # A result of an earlier process says nothing about the present one.
            if m.phase is Phase.READY and e.generation == m.generation:
                m.failures = 0

    def _handed_back(self, m: Model, run: Run, now: float) -> None:
        if run.withdrawn:
            self._steps.drop(run.waiter.id, refusals.canceled())
        elif self.shutting_down:
            self._steps.drop(run.waiter.id, refusals.shutting_down())
        elif refusals.must_not_wait(
            m, self.policy, now, waits_out_outages=run.waiter.waits_out_outages
        ):
            self._steps.drop(run.waiter.id, refusals.backing_off(m, now))
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
                m.note_ready(now, e.load_s, self.policy)
                m.set_up_until = now
                m.load_requested = False
                m.can_sleep = e.can_sleep
                m.can_suspend, m.suspend_refusal = e.can_suspend, e.suspend_refusal
                m.note_load(e.load_s)
                m.note_footprint(e.footprint_bytes)
            case msg.HealthChanged() if m.phase in (Phase.STARTING, Phase.READY):
                m.note_health(e.problem, now)
            case msg.StartFailed() if m.phase is Phase.STARTING:
                self._steps.note_failure(m, e, now, crashed=False, asked_s=e.retry_after_s)
                m.set_up_until = now
                m.enter(Phase.FAILED, now)
            case msg.Died() if m.phase not in (*GONE, Phase.STARTING, Phase.STOPPING):
                self._steps.crash(m, e, "crashed", now, well_until=now)
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
        elif m.phase is Phase.FALLING_ASLEEP:
            self._steps.stop(m, "cannot sleep", now)

    def _shut_down(self, *, force: bool, now: float) -> None:
        self._steps.shutting_down = True
        for m in self.models.values():
            self._steps.drop_waiters(m, refusals.shutting_down())
            at_work = m.phase is Phase.READY and bool(m.running) and not force
            if m.phase not in GONE and m.phase is not Phase.STOPPING and not at_work:
                self._steps.stop(m, "forced" if force else "shutdown", now)

    def _pump(self, now: float) -> None:
        """Decide what is in memory, then which predictions begin."""
        # Which models drain depends on which ones drain already. So this is repeated until
        # nothing changes any more.
        for _ in self.models:
            draining = self._residency.review(now)
            changed = [m for m in self.models.values() if m.draining != (m.name in draining)]
            for m in changed:
                m.draining = not m.draining
            if not changed:
                break
        for m in self.models.values():
            while (
                m.phase is Phase.READY
                and m.waiting
                and len(m.running) < m.concurrency
                and not m.draining
                and not m.problem
            ):
                w = m.waiting.take(now)
                m.running[w.id] = Run(w, m.generation)
                self._steps.effects.append(msg.Run(w.id, m.name, m.generation))
        self._residency.free_idle(now)
