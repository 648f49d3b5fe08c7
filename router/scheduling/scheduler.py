"""The scheduler: events in, effects out. All decisions of the router about who runs, who is
resident and who waits are made here and nowhere else.

It does no I/O and has no clock: every call brings `now` (seconds, monotonic), and the loop
around it (`router/runtime/loop.py`) performs the effects and reports back. A phase changes
only in the handlers below:

    STOPPED ─Start▶ STARTING ─Ready▶ READY ─Stop▶ STOPPING ─Stopped▶ STOPPED
       ▲                │              └─Died▶ STOPPING ─Stopped▶ FAILED
       └─(back-off over)┴─StartFailed▶ FAILED ─Start▶ STARTING
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.domain import messages as msg
from router.domain.errors import ModelUnavailable, QueueFull, RouterError, ShuttingDown
from router.scheduling.model import Model, Phase, Run
from router.scheduling.residency import held_bytes, judge_claim, take_until
from router.scheduling.waiting import Waiter, WaitingLine

STOPPING = "Cannot predict: the server is stopping"


@dataclass(frozen=True, slots=True)
class Policy:
    """The scheduler's numbers. Seconds, bytes, requests; see docs/operations.md."""

    queue_limit: int = 64
    idle_to_sleep_s: float = 300.0
    min_residency_s: float = 10.0
    patience_s: float = 15.0
    ageing_s: float = 30.0
    backoff_first_s: float = 1.0
    backoff_max_s: float = 300.0
    wait_out_backoff_s: float = 10.0
    default_footprint_bytes: int = 4 << 30
    unknown_load_s: float = 30.0
    unknown_service_s: float = 2.0


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
                self.models[event.model].concurrency = event.max_concurrency
            case msg.Warm():
                self.models[event.model].wanted = True
            case msg.Draining():
                self._drain(force=event.force, now=now)
            case msg.Tick():
                pass
        self._pump(now)
        out, self._out = self._out, []
        return out

    def next_wakeup(self, now: float) -> float | None:
        """When a Tick could change something, or None: events alone will."""
        times: list[float] = []
        p = self.policy
        for m in self.models.values():
            if m.phase is Phase.FAILED and m.waiting:
                times.append(m.retry_at)
            if m.is_idle:
                times.append(max(m.last_used, m.phase_since) + p.idle_to_sleep_s)
            if m.phase in (Phase.STOPPED, Phase.FAILED) and m.waiting:
                times.append(_waiting_since(m) + p.patience_s)
                times += [
                    o.phase_since + p.min_residency_s
                    for o in self.models.values()
                    if o.phase is Phase.READY
                ]
        return min((t for t in times if t > now), default=None)

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
        m = self.models[e.model]
        m.note_request(now)
        if refusal := self._refusal(m, now):
            self._out.append(msg.Drop(e.id, refusal))
            return
        m.waiting.join(Waiter(e.id, e.owner, e.priority, now))
        self._model_of[e.id] = m

    def _refusal(self, m: Model, now: float) -> RouterError | None:
        if self.draining:
            return ShuttingDown(STOPPING, retry_after_s=10)
        backoff_left_s = m.retry_at - now
        # A crash is likely to be over with the next start, so a short back-off is waited out;
        # a set-up that failed will most likely fail again, so its callers are told at once.
        patient = m.crashed and backoff_left_s <= self.policy.wait_out_backoff_s
        if m.phase is Phase.FAILED and backoff_left_s > 0 and not patient:
            return self._unavailable(m, backoff_left_s)
        if len(m.waiting) >= self.policy.queue_limit:
            service_s = self._service_s(m) / m.concurrency
            wait_s = service_s + m.wait_for_start_s(now, self.policy.unknown_load_s)
            return QueueFull(
                f"Cannot queue: {len(m.waiting)} predictions already wait for '{m.name}'",
                retry_after_s=max(1.0, wait_s),
            )
        return None

    def _withdrawn(self, e: msg.Withdrawn) -> None:
        m = self._model_of.get(e.id)
        if m is None:
            return
        if run := m.running.get(e.id):
            self._out.append(msg.Interrupt(e.id, m.name, run.generation))
        else:
            m.waiting.leave(e.id)
            del self._model_of[e.id]

    def _run_ended(self, e: msg.Finished | msg.Requeued, now: float) -> None:
        m = self.models[e.model]
        run = m.running.get(e.id)
        if run is None or run.generation != e.generation:
            return
        del m.running[e.id]
        m.last_used = now
        if isinstance(e, msg.Requeued) and not self.draining:
            m.waiting.join(run.waiter)
            return
        del self._model_of[e.id]
        if isinstance(e, msg.Requeued):
            self._out.append(msg.Drop(e.id, ShuttingDown(STOPPING)))
        elif e.service_s is not None:
            m.note_service(e.service_s)
            m.failures = 0

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
                for w in m.waiting.clear():
                    self._drop(w.id, self._unavailable(m, m.retry_at - now))
            case msg.Died() if m.phase is Phase.READY:
                self._note_failure(m, e.reason, now, crashed=True)
                m.crashes += 1
                self._stop(m, "crashed", now)
            case msg.Stopped() if m.phase is Phase.STOPPING:
                m.enter(Phase.FAILED if m.retry_at > now else Phase.STOPPED, now)
            case _:
                pass  # a report that came after the phase it speaks of

    def _note_failure(self, m: Model, reason: str, now: float, *, crashed: bool) -> None:
        backoff_s = self.policy.backoff_first_s * 2**m.failures
        m.failures += 1
        m.retry_at = now + min(backoff_s, self.policy.backoff_max_s)
        m.failure_reason = reason
        m.crashed = crashed
        m.wanted = False

    def _drain(self, *, force: bool, now: float) -> None:
        self.draining = True
        for m in self.models.values():
            m.wanted = False
            for w in m.waiting.clear():
                self._drop(w.id, ShuttingDown(STOPPING))
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
        free = self.budget_bytes - held_bytes(self.models.values())
        drain: set[str] = set()
        for m in self._claims(now):
            if m.need_bytes > self.budget_bytes:
                self._cannot_fit(m)
                continue
            others = [o for o in self.models.values() if o is not m]
            since = m.waiting.oldest_since()
            verdict = judge_claim(
                m,
                others,
                free,
                now,
                impatient=since is not None and now - since >= self.policy.patience_s,
                min_residency_s=self.policy.min_residency_s,
            )
            if verdict.fits:
                m.generation += 1
                m.enter(Phase.STARTING, now)
                self._out.append(msg.Start(m.name, m.generation))
            elif since is None:
                continue  # preloading claims only what is free
            for victim in verdict.stop:
                victim.evictions += 1
                self._stop(victim, f"evicted for {m.name}", now)
            drain.update(v.name for v in verdict.drain)
            # What an older claim waits for is not given to a younger, smaller one.
            free -= m.need_bytes
        return drain

    def _claims(self, now: float) -> Iterable[Model]:
        """Models that should become resident, longest waiting first, preloads last."""
        if self.draining:
            return []
        claims = [
            m
            for m in self.models.values()
            if (m.waiting or m.wanted)
            and (m.phase is Phase.STOPPED or (m.phase is Phase.FAILED and now >= m.retry_at))
        ]
        return sorted(claims, key=_waiting_since)

    def _cannot_fit(self, m: Model) -> None:
        m.wanted = False
        error = ModelUnavailable(
            f"Cannot start '{m.name}': it needs {m.need_bytes >> 20} MiB and models may use "
            f"{self.budget_bytes >> 20} MiB together",
            retry_after_s=30,
        )
        for w in m.waiting.clear():
            self._drop(w.id, error)

    def _stop_idle(self, now: float) -> None:
        for m in self.models.values():
            idle_since = max(m.last_used, m.phase_since)
            if m.is_idle and (self.draining or now - idle_since >= self.policy.idle_to_sleep_s):
                self._stop(m, "shutdown" if self.draining else "idle", now)

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
                if m.is_idle and now - m.phase_since >= self.policy.min_residency_s
            ),
            key=lambda m: m.cost_to_evict(now),
        )
        for m in take_until(idle, over) or idle:
            m.evictions += 1
            self._stop(m, "memory", now)

    # ---- small acts ----------------------------------------------------------------------

    def _stop(self, m: Model, reason: str, now: float) -> None:
        m.enter(Phase.STOPPING, now)
        self._out.append(msg.Stop(m.name, m.generation, reason))

    def _drop(self, prediction_id: str, error: RouterError) -> None:
        self._model_of.pop(prediction_id, None)
        self._out.append(msg.Drop(prediction_id, error))

    def _unavailable(self, m: Model, retry_after_s: float) -> ModelUnavailable:
        return ModelUnavailable(
            f"Cannot start '{m.name}': {m.failure_reason}", retry_after_s=max(1.0, retry_after_s)
        )

    def _service_s(self, m: Model) -> float:
        return m.service_s if m.service_s is not None else self.policy.unknown_service_s

    def _eta_s(self, m: Model, position: int, now: float) -> float:
        """Load time left, then one service time for every full round ahead in the queue."""
        rounds = (len(m.running) + position - 1) // m.concurrency
        start_s = m.wait_for_start_s(now, self.policy.unknown_load_s)
        return start_s + rounds * self._service_s(m)


def _waiting_since(m: Model) -> float:
    since = m.waiting.oldest_since()
    return math.inf if since is None else since
