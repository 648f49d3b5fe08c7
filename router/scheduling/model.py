"""What the scheduler knows of one model: its phase, its queue, and what it has cost so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from router.scheduling.queue import Waiter, WaitingLine
from router.scheduling.sleep_record import SleepRecord, smooth
from router.scheduling.tunables import OwnPolicy, Policy

# Demand is a count of requests. A request counts half after this time. See `demand`.
DEMAND_HALF_LIFE_S = 600.0
THE_POLICYS = OwnPolicy()
# A model is protected from draining for as long as it took to bring, but no longer than this: a
# first load may include a download of many minutes.
LONGEST_PROTECTION_S = 60.0


class Phase(StrEnum):
    """The phase of a model's process. `busy` is not a phase: it is READY with something running."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    FALLING_ASLEEP = "suspending"  # by the hook, the driver or both; the APIs keep the old word
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    FAILED = "failed"


# What the APIs show: the phases, "busy" (READY with something running) and "unhealthy" (READY with
# a problem).
STATES = (*(phase.value for phase in Phase), "busy", "unhealthy")
# In these phases the model has no process.
GONE = (Phase.STOPPED, Phase.FAILED)
# In these phases the model is giving its memory back.
LEAVING = (Phase.FALLING_ASLEEP, Phase.STOPPING)
# In these phases the model becomes READY next.
COMING = (Phase.STARTING, Phase.WAKING)


class Run(Struct, frozen=True):
    """A running prediction, and the generation of the model's process that runs it."""

    waiter: Waiter
    generation: int
    withdrawn: bool = False


@dataclass(slots=True, eq=False)
class Model(SleepRecord):
    """One model's state. Only the scheduler changes it. Moments are seconds of the scheduler's
    clock."""

    name: str
    concurrency: int
    waiting: WaitingLine
    default_footprint_bytes: int
    label: str = ""  # its name in messages
    is_remote: bool = False  # it runs on another machine
    phase: Phase = Phase.STOPPED
    generation: int = 0
    running: dict[str, Run] = field(default_factory=dict)
    load_requested: bool = False
    draining: bool = False
    keep_loaded: bool = False  # the schedule wants it loaded now
    unloaded_by_operator: bool = False  # this overrides `keep_loaded` until its next start
    pending_command: str = ""  # of the operator, not done yet: "unload" or "restart"
    phase_since: float = 0.0
    holds_memory: bool = False
    ready_since: float = 0.0
    evictable_at: float = 0.0  # from when it may be evicted, if it is idle
    # From when it may be drained: when it has been ready for as long as it took to bring, but at
    # most for LONGEST_PROTECTION_S. So models that take turns spend at most half of the time on
    # being brought, if each is brought within LONGEST_PROTECTION_S.
    drainable_at: float = 0.0
    set_up_since: float = 0.0  # when its last set-up began
    set_up_until: float = 0.0  # when its last set-up succeeded or failed
    own: OwnPolicy = THE_POLICYS
    growth_bytes: int = 0  # see Policy
    last_used: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    failure_reason: str = ""
    failure_location: str = ""
    log_tail: tuple[str, ...] = ()
    crashed: bool = False
    outage: bool = False  # its other machine is away
    problem: str = ""  # what the runner's own health check reports; see `note_health`
    problem_since: float = 0.0
    footprint_bytes: int | None = None
    load_s: float | None = None
    service_s: float | None = None
    loads: int = 0
    evictions: int = 0
    crashes: int = 0
    _demand: float = 0.0
    _demand_at: float = 0.0

    @property
    def stays_loaded(self) -> bool:
        """Whether it stays loaded without use, and is loaded when there is room."""
        return self.keep_loaded and not self.unloaded_by_operator

    @property
    def claims_memory(self) -> bool:
        """Whether it is to be loaded or woken, if it is not ready."""
        return bool(self.waiting) or self.load_requested or self.stays_loaded

    @property
    def need_bytes(self) -> int:
        """Memory that the model takes when resident: the most ever measured, else the default."""
        if self.footprint_bytes is None:
            return self.default_footprint_bytes
        return self.footprint_bytes

    @property
    def expected_residue_bytes(self) -> int:
        """Memory that the model will hold when it is asleep; 0 when nothing is known."""
        if self.residue_bytes is not None:
            return min(self.residue_bytes, self.need_bytes)
        return 0 if self.freed_bytes is None else max(self.need_bytes - self.freed_bytes, 0)

    @property
    def held_bytes(self) -> int:
        """Memory that counts as the model's now: all that it needs; asleep, only its residue."""
        if self.holds_memory:
            return self.need_bytes
        return 0 if self.phase in GONE or self.suspended else self.expected_residue_bytes

    @property
    def claim_bytes(self) -> int:
        """Memory that must be free to bring the model. What it holds asleep is its own already."""
        return self.need_bytes - self.held_bytes

    @property
    def freed_by_leaving_bytes(self) -> int:
        """Bytes that its eviction frees: all that it holds, or all but the residue if the hook puts
        it to sleep. While it is leaving: the bytes that it is freeing."""
        falls = self.phase is Phase.FALLING_ASLEEP and not self.to_suspend
        keeps = falls or (self.phase is Phase.READY and self.can_sleep)
        return self.held_bytes - (self.expected_residue_bytes if keeps else 0)

    @property
    def likely_host_bytes(self) -> int:
        """Main memory that its copies may take: somewhat more than the last copies took, or than
        the model holds if there were none. Memory comes in whole pages, and a model may grow, for
        example by caches for inputs of a new size."""
        known = self.host_bytes or self.need_bytes
        return max(self.held_host_bytes, known + max(known // 8, self.growth_bytes))

    @property
    def driver_bytes(self) -> int:
        """Memory that the driver would move to main memory: the residue of a model that can sleep,
        all memory of any other."""
        return self.expected_residue_bytes if self.can_sleep else self.need_bytes

    def likely_host_bytes_of(self, *, hook: bool, driver: bool) -> int:
        """Main memory that it may take when the hook, the driver or both put it to sleep."""
        copies = self.likely_host_bytes if hook else self.held_host_bytes
        return copies + (self.driver_bytes + self.driver_bytes // 8 if driver else 0)

    @property
    def may_suspend(self) -> bool:
        """Whether the driver can suspend its process, and a suspension with its wake takes less
        time than a start."""
        return (
            self.can_suspend
            and not self.suspended
            and (self.load_s is None or self.suspension_s(self.driver_bytes) < self.load_s)
        )

    @property
    def likely_wake_s(self) -> float | None:
        """Seconds that its next wake takes; None if that is not known. `to_suspend` counts as
        suspended already."""
        if self.suspended or self.to_suspend:
            return self.expected_resume_s(self.driver_bytes)
        return self.expected_wake_s

    @property
    def is_idle(self) -> bool:
        """Whether it is ready with nothing running and nothing waiting."""
        return self.phase is Phase.READY and not self.running and not self.waiting

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.phase is Phase.READY and self.problem:
            return "unhealthy"
        return "busy" if self.phase is Phase.READY and self.running else self.phase.value

    def enter(self, phase: Phase, now: float) -> None:
        """Change the phase and note the time. Memory counts as held from the beginning of a load
        until a measurement has shown that it is free."""
        self.phase = phase
        self.phase_since = now
        if phase is Phase.STARTING:
            self.set_up_since = now
            self.unloaded_by_operator = False
        if phase in COMING:
            self.holds_memory = True
        elif phase in GONE or phase is Phase.ASLEEP:
            self.holds_memory = False
        if phase in GONE:
            self.forget_process()

    def note_ready(self, now: float, brought_in_s: float, p: Policy) -> None:
        """Remember when it became ready. How long that took decides from when it may be evicted
        and drained."""
        self.ready_since = now
        self.evictable_at = now + p.protection_s(brought_in_s)
        worth_s = min(brought_in_s, LONGEST_PROTECTION_S)
        self.drainable_at = max(self.evictable_at, now + worth_s)

    def end_copying(self, *, unless: Phase | None = None) -> None:
        """Its copies do not grow any more, unless it is in the phase `unless`."""
        if self.phase is not unless:
            self.host_limit_bytes = None

    def note_health(self, problem: str, now: float) -> None:
        """Remember the result of the runner's own health check, "" when healthy. A stop for another
        reason forgets the problem (`Transitions.stop`)."""
        if problem and not self.problem:
            self.problem_since = now
        self.problem = problem

    def forget_failures(self, now: float) -> None:
        """End its back-off: the operator may have repaired what failed."""
        self.failures = 0
        self.retry_at = min(self.retry_at, now)

    def note_request(self, now: float) -> None:
        """Count one request towards demand."""
        self._demand = self.demand(now) + 1.0
        self._demand_at = now

    def demand(self, now: float) -> float:
        """The number of recent requests, where each counts half after DEMAND_HALF_LIFE_S. It is
        proportional to the likelihood of another request, with one factor for all models."""
        return float(self._demand * 0.5 ** ((now - self._demand_at) / DEMAND_HALF_LIFE_S))

    def note_load(self, seconds: float) -> None:
        """Count a completed set-up and update the average load time."""
        self.load_s = smooth(self.load_s, seconds)
        self.loads += 1

    def note_service(self, seconds: float) -> None:
        """Update the average service time."""
        self.service_s = smooth(self.service_s, seconds)

    def note_footprint(self, measured_bytes: int) -> None:
        """Remember the most memory measured: a peak that was reached once will be reached again.
        0 means that nothing could be measured, as when the driver sees other pids."""
        if measured_bytes > 0:
            self.footprint_bytes = max(self.footprint_bytes or 0, measured_bytes)

    # Deadlines. The scheduler's conditions and its timer (`Scheduler.next_wakeup`) compute them by
    # the same expressions. So the timer never fires slightly too early.

    def restart_at(self, unhealthy_to_restart_s: float) -> float:
        """When a ready but unhealthy model is restarted, if it runs nothing."""
        return self.problem_since + unhealthy_to_restart_s

    @property
    def idle_since(self) -> float:
        """Since when an idle model is idle."""
        return max(self.last_used, self.ready_since)

    def idle_at(self, p: Policy) -> float:
        """When an idle model has been idle for too long."""
        own_s = math.inf if self.stays_loaded else self.own.idle_to_sleep_s
        idle_s = p.idle_to_sleep_s if own_s is None else own_s
        # A model that refused to sleep is asked again, but not at once. One that cannot sleep is
        # stopped.
        asked_again_at = self.stage_after if self.refusals and self.can_sleep else 0.0
        return max(self.idle_since + idle_s, self.evictable_at, asked_again_at)

    def stage_at(self, p: Policy) -> float:
        """When the memory of an idle model may be copied."""
        return max(self.idle_since + p.idle_to_stage_s, self.stage_after)

    @property
    def wants_staging(self) -> bool:
        """Whether it is idle and could sleep, but has no copies, and none are under way."""
        return (
            self.can_sleep
            and not self.staged
            and self.host_limit_bytes is None
            and not self.problem
            and self.is_idle
        )

    def stop_asleep_at(self, p: Policy) -> float:
        """When a sleeping model has been asleep for too long."""
        own_s = math.inf if self.stays_loaded else self.own.asleep_to_stop_s
        return self.phase_since + (p.asleep_to_stop_s if own_s is None else own_s)

    def drains_others_at(self, p: Policy) -> float:
        """From when busy models are drained for its claim."""
        asleep = self.phase is Phase.ASLEEP
        return self.claim_since() + p.claim_patience_s(self.likely_wake_s if asleep else None)

    def claim_since(self) -> float:
        """Since when a model that is not resident claims memory: since its oldest waiter joined, or
        since it entered its present phase if that was later; infinity for a preload.

        Counting starts again with each phase. Otherwise a model that was just evicted would have
        the older claim and evict the newcomer."""
        since = self.waiting.oldest_since()
        return math.inf if since is None else max(since, self.phase_since)

    def wakeup_times(self, p: Policy) -> list[float]:
        """The moments after which the scheduler may do something with it that it may not do
        now."""
        found: list[float] = []
        if self.phase is Phase.READY:
            found += (self.evictable_at, self.drainable_at)
            if self.problem:
                found.append(self.restart_at(p.unhealthy_to_restart_s))
            if self.is_idle and not self.stays_loaded:
                found.append(self.idle_at(p))
            if self.wants_staging:
                found.append(self.stage_at(p))
        elif self.phase is Phase.ASLEEP or self.phase in GONE:
            if self.phase is Phase.ASLEEP and not self.stays_loaded:
                found.append(self.stop_asleep_at(p))
            if self.claims_memory:
                found.append(self.retry_at)
            if self.waiting:
                found.append(self.drains_others_at(p))
        return found

    def cost_to_evict(self, now: float) -> float:
        """Expected seconds lost per byte freed: time to bring it back x demand / bytes.

        The model with the smallest cost is evicted first. Demand counts as one request a day or
        more. So of two unused models the one that is quicker to bring back is evicted first.
        """
        if self.phase is Phase.READY and self.can_sleep:
            lost_s = self.wake_s
        elif self.may_suspend:
            lost_s = self.suspension_s(self.driver_bytes)
        else:
            lost_s = self.load_s
        lost_s = 1.0 if lost_s is None else lost_s
        return lost_s * max(self.demand(now), 1 / 86400) / max(self.freed_by_leaving_bytes, 1)

    def cost_to_end_sleep(self, now: float) -> float:
        """Expected seconds lost per byte of main memory that is freed when it is stopped instead of
        being asleep: (time to start - time to wake) x demand / bytes."""
        lost_s = max((self.load_s or 1.0) - (self.likely_wake_s or 0.0), 0.0)
        taken = self.host_bytes + self.suspended_bytes
        return lost_s * max(self.demand(now), 1 / 86400) / max(taken, 1)

    def wait_for_start_s(self, now: float, unknown_load_s: float) -> float:
        """Seconds until the model could be ready; 0 when it is ready."""
        load_s = self.load_s if self.load_s is not None else unknown_load_s
        match self.phase:
            case Phase.READY if self.draining or self.problem:
                return load_s  # it will be stopped, and then started again for its waiters
            case Phase.READY:
                return 0.0
            case Phase.STARTING:
                return max(load_s - (now - self.phase_since), 0.5)
            case Phase.FALLING_ASLEEP | Phase.ASLEEP | Phase.WAKING:
                return load_s if self.likely_wake_s is None else self.likely_wake_s
            case _:
                return max(self.retry_at - now, 0.0) + load_s
