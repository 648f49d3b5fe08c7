"""The scheduler: events in, effects out. All decisions of the router about who runs, who is
resident and who waits are made here and nowhere else.

It does no I/O and has no clock: every call brings `now` (seconds, monotonic), and the loop
around it (`router/runtime/loop.py`) performs the effects and reports back. A phase changes
only in the handlers below:

    STOPPED ─Start▶ STARTING ─Ready▶ READY ─Stop▶ STOPPING ─Stopped▶ STOPPED
       ▲                │              └─Died▶ STOPPING ─Stopped▶ FAILED
       └─(back-off over)┴─StartFailed▶ FAILED ─Start▶ STARTING

Only the router's own stop takes a model out of STARTING before it has ended; a crash whose
back-off is over by the time of Stopped leads to STOPPED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from router.domain import messages as msg
from router.domain.errors import RouterError
from router.scheduling import refusals
from router.scheduling.model import Model, Phase, Run
from router.scheduling.policy import Policy
from router.scheduling.residency import enough_of, held_bytes, judge_claim
from router.scheduling.waiting import Waiter, WaitingLine

__all__ = ["Policy", "Scheduler", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one waiting prediction stands: 1 is next. `eta_s`: seconds until it would start."""

    position: int
    eta_s: float


class Scheduler:
    """The pure state machine. `concurrency` names every model and its parallel runs."""

    def __init__(
        self, concurrency: Mapping[str, int], budget_bytes: int, policy: Policy | None = None
    ) -> None:
        self.policy = policy or Policy()
        self.budget_bytes = budget_bytes
        self.draining = False
        self.models = {
            name: Model(
                name,
                parallel,
                WaitingLine(self.policy.ageing_s),
                self.policy.default_footprint_bytes,
            )
            for name, parallel in concurrency.items()
        }
        self._model_of: dict[str, Model] = {}  # every prediction that waits or runs
        self._handled_at = 0.0
        self._out: list[msg.Effect] = []

    # ---- the one entrance ----------------------------------------------------------------

    def handle(self, event: msg.Event, now: float) -> list[msg.Effect]:
        """Take in what happened and return what to do about it."""
        match event:
            case msg.Submitted():
                self._submitted(event, now)
            case msg.Withdrawn():
                self._withdrawn(event)
            case msg.Finished() | msg.Requeued():
                self._run_ended(event, now)
            case msg.Ready() | msg.StartFailed() | msg.Died() | msg.Stopped():
                self._process_changed(event, now)
            case msg.Measured():
                self.budget_bytes = event.budget_bytes
                for name, measured in event.footprints.items():
                    self.models[name].note_footprint(measured)
            case msg.Described():
                self.models[event.model].concurrency = max(1, event.max_concurrency)
            case msg.Warm():
                m = self.models[event.model]
                m.wanted = m.phase not in (Phase.STARTING, Phase.READY)
            case msg.Draining():
                self._drain(force=event.force, now=now)
            case msg.Tick():
                pass
        self._pump(now)
        self._handled_at = now
        out, self._out = self._out, []
        return out

    def next_wakeup(self, now: float) -> float | None:
        """When a Tick could change something, or None: events alone will.

        A moment between the last `handle` and `now` has not been acted on: it is due at once.
        """
        due = [t for m in self.models.values() for t in self._turning_points(m)]
        first = min((t for t in due if t > self._handled_at), default=None)
        return None if first is None else max(first, now)

    def _turning_points(self, m: Model) -> Iterable[float]:
        p = self.policy
        if m.phase is Phase.READY:
            yield m.settled_at(p.min_residency_s)
            yield m.drainable_at(p.min_residency_s)
            if m.is_idle:
                yield m.idle_at(p.idle_to_sleep_s, p.min_residency_s)
        elif m.phase in (Phase.STOPPED, Phase.FAILED) and (m.waiting or m.wanted):
            yield m.retry_at
            if m.waiting:
                yield m.claim_since() + p.patience_s

    # ---- what callers may ask ------------------------------------------------------------

    def standing(self, prediction_id: str, now: float) -> Standing | None:
        """Queue position and expected wait of a waiting prediction, None if it is not waiting."""
        m = self._model_of.get(prediction_id)
        if m is None or prediction_id in m.running:
            return None
        ids = [w.id for w in m.waiting.order(now)]
        position = ids.index(prediction_id) + 1
        return Standing(position, self._eta_s(m, position, now))

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
        if self._must_not_wait(m, now):
            return refusals.backing_off(m, now)
        if not m.waiting.has_room(owner, self.policy.queue_limit):
            return refusals.queue_full(m, self.policy, now)
        return None

    def _must_not_wait(self, m: Model, now: float) -> bool:
        """Whether the back-off is one that callers are told of at once.

        A crash is likely to be over with the next start, so a short back-off after one is
        waited out; a set-up that failed will most likely fail again.
        """
        backoff_left_s = m.retry_at - now
        short = m.crashed and backoff_left_s <= self.policy.wait_out_backoff_s
        return backoff_left_s > 0 and not short

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
            # What an earlier start still got done says nothing for the present one.
            if m.phase is Phase.READY and e.generation == m.generation:
                m.failures = 0

    def _handed_back(self, m: Model, run: Run, now: float) -> None:
        if run.withdrawn:
            self._drop(run.waiter.id, refusals.canceled())
        elif self.draining:
            self._drop(run.waiter.id, refusals.shutting_down())
        elif self._must_not_wait(m, now):
            self._drop(run.waiter.id, refusals.backing_off(m, now))
        else:
            m.waiting.rejoin(run.waiter)

    def _process_changed(
        self, e: msg.Ready | msg.StartFailed | msg.Died | msg.Stopped, now: float
    ) -> None:
        m = self.models[e.model]
        if e.generation != m.generation:
            return
        match e:
            case msg.Ready() if m.phase is Phase.STARTING:
                m.enter(Phase.READY, now)
                m.wanted = False
                m.note_load(e.load_s)
                m.note_footprint(e.footprint_bytes)
            case msg.StartFailed() if m.phase is Phase.STARTING:
                self._note_failure(m, e.reason, now, crashed=False)
                m.enter(Phase.FAILED, now)
            case msg.Died() if m.phase is Phase.READY:
                if now - m.phase_since >= self.policy.backoff_max_s:
                    m.failures = 0  # it has held for so long that this is a new trouble
                self._note_failure(m, e.reason, now, crashed=True)
                m.crashes += 1
                self._stop(m, "crashed", now)
            case msg.Stopped() if m.phase is Phase.STOPPING:
                m.enter(Phase.FAILED if m.retry_at > now else Phase.STOPPED, now)
            case _:
                pass  # a report that came after the phase it speaks of

    def _note_failure(self, m: Model, reason: str, now: float, *, crashed: bool) -> None:
        m.failures += 1
        m.retry_at = now + self.policy.backoff_s(m.failures)
        m.failure_reason = reason
        m.crashed = crashed
        m.wanted = False
        if not crashed or self._must_not_wait(m, now):
            self._drop_waiters(m, refusals.backing_off(m, now))

    def _drain(self, *, force: bool, now: float) -> None:
        self.draining = True
        for m in self.models.values():
            self._drop_waiters(m, refusals.shutting_down())
            if m.phase is Phase.STARTING or (m.phase is Phase.READY and (force or not m.running)):
                self._stop(m, "forced" if force else "shutdown", now)

    # ---- the pump: from state to effects -------------------------------------------------

    def _pump(self, now: float) -> None:
        draining = self._admit_claims(now)
        for m in self.models.values():
            m.draining = m.name in draining
            while (
                m.phase is Phase.READY
                and m.waiting
                and len(m.running) < m.concurrency
                and not m.draining
            ):
                w = m.waiting.take(now)
                m.running[w.id] = Run(w, m.generation)
                self._out.append(msg.Run(w.id, m.name, m.generation))
        self._stop_idle(now)
        self._stop_overcommitted(now)

    def _admit_claims(self, now: float) -> set[str]:
        """Start what fits and stop what must go; return who must drain."""
        drain: set[str] = set()
        if not (claims := self._claims(now)):
            return drain
        free = self.budget_bytes - held_bytes(self.models.values())
        for m in claims:
            if m.need_bytes > self.budget_bytes:
                m.wanted = False
                self._drop_waiters(m, refusals.too_large(m, self.budget_bytes))
                continue
            verdict = judge_claim(
                m,
                self.models.values(),
                free,
                now,
                impatient=now >= m.claim_since() + self.policy.patience_s,
                min_residency_s=self.policy.min_residency_s,
            )
            if verdict.fits:
                m.generation += 1
                m.enter(Phase.STARTING, now)
                self._out.append(msg.Start(m.name, m.generation))
            elif not m.waiting:
                continue  # preloading claims only what is free
            for victim in verdict.stop:
                victim.evictions += 1
                self._stop(victim, f"evicted for {m.name}", now)
            drain.update(v.name for v in verdict.drain)
            # What an older claim waits for is not given to a younger, smaller one.
            free -= m.need_bytes
        return drain

    def _claims(self, now: float) -> list[Model]:
        """Models that should become resident: longest claiming first, then longest away;
        preloads last."""
        if self.draining:
            return []
        claims = [
            m
            for m in self.models.values()
            if (m.waiting or m.wanted)
            and (m.phase is Phase.STOPPED or (m.phase is Phase.FAILED and now >= m.retry_at))
        ]
        return sorted(claims, key=lambda m: (m.claim_since(), m.phase_since))

    def _stop_idle(self, now: float) -> None:
        p = self.policy
        for m in self.models.values():
            if not m.is_idle:
                continue
            if self.draining:
                self._stop(m, "shutdown", now)
            elif now >= m.idle_at(p.idle_to_sleep_s, p.min_residency_s):
                self._stop(m, "idle", now)

    def _stop_overcommitted(self, now: float) -> None:
        """Make room when models grew or another program took memory."""
        over = held_bytes(self.models.values()) - self.budget_bytes
        over -= sum(m.need_bytes for m in self.models.values() if m.phase is Phase.STOPPING)
        if over <= 0:
            return
        idle = sorted(
            (
                m
                for m in self.models.values()
                if m.is_idle and now >= m.settled_at(self.policy.min_residency_s)
            ),
            key=lambda m: m.cost_to_evict(now),
        )
        for m in enough_of(idle, over) or idle:
            m.evictions += 1
            self._stop(m, "memory", now)

    # ---- small acts ----------------------------------------------------------------------

    def _stop(self, m: Model, reason: str, now: float) -> None:
        m.enter(Phase.STOPPING, now)
        self._out.append(msg.Stop(m.name, m.generation, reason))

    def _drop(self, prediction_id: str, error: RouterError) -> None:
        self._model_of.pop(prediction_id, None)
        self._out.append(msg.Drop(prediction_id, error))

    def _drop_waiters(self, m: Model, error: RouterError) -> None:
        for w in m.waiting.clear():
            self._drop(w.id, error)

    def _eta_s(self, m: Model, position: int, now: float) -> float:
        """Load time left, then one service time for every full round ahead in the queue."""
        rounds = (len(m.running) + position - 1) // m.concurrency
        start_s = m.wait_for_start_s(now, self.policy.unknown_load_s)
        return start_s + rounds * refusals.service_s_of(m, self.policy)
