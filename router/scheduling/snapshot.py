"""The scheduler's state at one moment, for the rest of the router to read. The values are frozen:
what the scheduler does later does not change them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.scheduling import refusals
from router.scheduling.eviction import held_bytes
from router.scheduling.model import GONE, STATES, Model, Phase
from router.scheduling.tunables import Policy

__all__ = [
    "STATES",
    "Estimate",
    "ModelSnapshot",
    "Phase",
    "QueuedPrediction",
    "Snapshot",
    "Standing",
]


@dataclass(frozen=True, slots=True)
class Standing:
    """One waiting prediction. `position`: 1 is next. `eta_s`: seconds until it would start."""

    position: int
    eta_s: float


@dataclass(frozen=True, slots=True)
class QueuedPrediction:
    """One waiting prediction in a model's queue. `position`: 1 is next. `waited_s`: seconds since
    it joined. `eta_s`: seconds until it would start."""

    id: str
    position: int
    waited_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """One model. `state` is one of STATES. `phase_for_s`: seconds in this phase, None before its
    first change. `set_up_since`, `set_up_until`: when its last set-up began, and when it succeeded
    or failed, in the scheduler's clock. `wanted`: it is to be loaded when there is room.
    `stays_loaded`: it stays loaded without use now. `restarting`: it is to be stopped and loaded
    again. `memory_bytes`: what it holds now. `footprint_bytes`: the most that was measured, None
    before its first load. The averages `load_s` and `service_s` are None before the first
    measurement. `problem`: what the runner's own health check reports, "" when healthy.
    `failure_location`: the line of the package that failed, for the operator only.

    `can_sleep`: its process may be put to sleep. `staged`: its memory has been copied.
    `host_bytes`: what the copies take of main memory. `residue_bytes`: what it holds asleep,
    `freed_bytes`: what a sleep frees, both None before they are known. `wake_s`, `sleep_s`:
    averages. `sleep_refusal`: why it did not sleep at the last try, "" when it did.

    `can_suspend`: the driver can suspend its process; if not, `suspend_refusal` says why.
    `suspended`: it has. `suspend_s`, `resume_s`: averages of that, and of a wake from there."""

    name: str
    phase: Phase
    state: str
    phase_for_s: float | None
    set_up_since: float
    set_up_until: float
    wanted: bool
    stays_loaded: bool
    restarting: bool
    running: tuple[str, ...]
    queue: tuple[QueuedPrediction, ...]
    concurrency: int
    memory_bytes: int
    footprint_bytes: int | None
    load_s: float | None
    service_s: float | None
    loads: int
    evictions: int
    crashes: int
    failures: int
    crashed: bool
    problem: str
    failure_reason: str
    failure_location: str
    log_tail: tuple[str, ...]
    retry_in_s: float
    can_sleep: bool = False
    staged: bool = False
    host_bytes: int = 0
    residue_bytes: int | None = None
    freed_bytes: int | None = None
    wake_s: float | None = None
    sleep_s: float | None = None
    sleep_refusal: str = ""
    can_suspend: bool = False
    suspend_refusal: str = ""
    suspended: bool = False
    suspend_s: float | None = None
    resume_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models by name, and the memory that they share. `host_budget_bytes`, `host_held_bytes`:
    the main memory that copies of models may take and do take."""

    shutting_down: bool
    budget_bytes: int
    held_bytes: int
    host_budget_bytes: int
    host_held_bytes: int
    models: Mapping[str, ModelSnapshot]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What would happen to one more prediction. `wait_s`: seconds until it would start, infinite if
    it never would. The time to evict other models is not included: it is not known when they are
    done. `accepted`: whether the queue would accept it."""

    wait_s: float
    accepted: bool


def snapshot_of(
    models: Iterable[Model],
    budget_bytes: int,
    host_budget_bytes: int,
    policy: Policy,
    now: float,
    *,
    shutting_down: bool,
) -> Snapshot:
    """The scheduler's state at `now`, in the scheduler's clock."""
    models = tuple(models)
    return Snapshot(
        shutting_down=shutting_down,
        budget_bytes=budget_bytes,
        held_bytes=held_bytes(models),
        host_budget_bytes=host_budget_bytes,
        host_held_bytes=sum(m.held_host_bytes for m in models),
        models={m.name: model_snapshot(m, policy, now) for m in models},
    )


def model_snapshot(m: Model, policy: Policy, now: float) -> ModelSnapshot:
    """One model's part of the snapshot."""
    queue = (
        QueuedPrediction(w.id, i, now - w.since, refusals.eta_s(m, i, policy, now))
        for i, w in enumerate(m.waiting.order(now), 1)
    )
    return ModelSnapshot(
        name=m.name,
        phase=m.phase,
        state=m.state,
        phase_for_s=now - m.phase_since if m.phase_since else None,
        set_up_since=m.set_up_since,
        set_up_until=m.set_up_until,
        wanted=m.load_requested or (m.stays_loaded and m.phase in (*GONE, Phase.ASLEEP)),
        stays_loaded=m.stays_loaded,
        restarting=m.pending_command == "restart",
        running=tuple(sorted(m.running)),
        queue=tuple(queue),
        concurrency=m.concurrency,
        memory_bytes=m.held_bytes,
        footprint_bytes=m.footprint_bytes,
        load_s=m.load_s,
        service_s=m.service_s,
        loads=m.loads,
        evictions=m.evictions,
        crashes=m.crashes,
        failures=m.failures,
        crashed=m.crashed,
        problem=m.problem,
        failure_reason=m.failure_reason,
        failure_location=m.failure_location,
        log_tail=m.log_tail,
        retry_in_s=max(m.retry_at - now, 0.0),
        can_sleep=m.can_sleep,
        staged=m.staged,
        host_bytes=m.host_bytes,
        residue_bytes=m.residue_bytes,
        freed_bytes=m.freed_bytes,
        wake_s=m.wake_s,
        sleep_s=m.sleep_s,
        sleep_refusal=m.sleep_refusal,
        can_suspend=m.can_suspend,
        suspend_refusal=m.suspend_refusal,
        suspended=m.suspended,
        suspend_s=m.suspend_s,
        resume_s=m.resume_s,
    )


def estimate_of(m: Model, owner: str, budget_bytes: int, policy: Policy, now: float) -> Estimate:
    """The estimate for one more prediction of that owner, on a router that is not stopping."""
    accepted = refusals.refusal(m, owner, policy, now) is None
    if m.need_bytes > budget_bytes or refusals.must_not_wait(m, policy, now):
        return Estimate(math.inf, accepted)
    return Estimate(refusals.eta_s(m, len(m.waiting) + 1, policy, now), accepted)
