"""Which models are evicted so that another fits in memory. Pure functions over the models'
present state.

`judge_claim` finds memory for a model that should become resident, `judge_overcommitment` where
models hold more than there is. Rules:
1. A model that runs something is never evicted. A model that has just become ready is not touched:
   it stays for four times as long as it took to bring, at least 1 s and at most `min_residency_s`
   (10 s; `Policy.protection_s`).
2. Idle models are evicted first: of those with the lowest priority (2) the one with the lowest
   cost. The cost is the time to bring the model back x its recent demand / the bytes that it frees
   (`Model.cost_to_evict`). Models that are to stay loaded come last. A model is spared where one
   that comes after it frees enough without it (`enough_of`).
3. If that does not free enough, sleeping models must give up the rest that they hold on the card:
   first those asleep now, then those put to sleep for this claim.
4. Only then a model with work of its own is drained, and only for a claim that has waited
   `patience_s` (15 s; less when the claiming model is asleep, `Policy.claim_patience_s`): it is
   granted nothing new, and is evicted when its last run ends. So a busy model cannot starve another
   without a limit. It is not drained before it has been ready for as long as it took to bring, 60 s
   at most (`Model.drainable_at`).
A model that is only preloaded evicts nobody (`Residency`).

These functions only choose. `router.scheduling.residency` asks them after each event.
`Transitions.free_memory` decides between sleep and stop: the model sleeps if it can and if main
memory has room for its copies (`sleeping.judge_copies`), for which sleeping models may be stopped;
else it is stopped. To free everything that it holds, the driver suspends the process. If the driver
cannot, or if suspending and waking takes longer than a start, the process is stopped.

Without any claim, time evicts too (`Residency.free_idle`): after 300 s idle a model sleeps, or is
stopped if it cannot; after 3600 s asleep it is stopped (`idle_to_sleep_s`, `asleep_to_stop_s`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from router.scheduling.model import GONE, LEAVING, Model, Phase
from router.scheduling.tunables import Policy


class Depth(Enum):
    """SLEEP: each model keeps what it holds asleep. SUSPEND: those that the driver can suspend lose
    that too. FULL: every model loses it, by a stop if needed."""

    SLEEP = auto()
    SUSPEND = auto()
    FULL = auto()


@dataclass(frozen=True, slots=True)
class ClaimDecision:
    """What to do for one claim. `evict`: models to put to sleep, or to stop if they cannot sleep;
    one that sleeps already is evicted fully. `evict_fully`: models that must free all their memory:
    the driver suspends them, else they are stopped. `drain`: models that get no new predictions.
    When `fits` is false and all are empty: wait."""

    fits: bool
    evict: tuple[Model, ...] = ()
    drain: tuple[Model, ...] = ()
    evict_fully: tuple[Model, ...] = ()


def held_bytes(models: Iterable[Model]) -> int:
    """Memory of all models that are loading, resident or asleep, or whose memory is not yet
    measured to be free."""
    return sum(m.held_bytes for m in models)


def leaving_bytes(models: Iterable[Model]) -> int:
    """The part of `held_bytes` that models are giving back now."""
    return sum(m.freed_by_leaving_bytes for m in models if m.phase in LEAVING)


def judge_claim(
    claim: Model,
    others: Iterable[Model],
    free_bytes: int,
    now: float,
    *,
    may_drain: bool,
) -> ClaimDecision:
    """Decide how `claim` gets its memory when `free_bytes` are free.

    `free_bytes`: the budget less all that is held and all that older claims have reserved; it may
    be negative. Memory that models are freeing now counts as coming: nobody is evicted for it.
    """
    # A model that needs no memory fits even where more is held than the budget.
    if claim.claim_bytes <= max(free_bytes, 0):
        return ClaimDecision(fits=True)
    others = [m for m in others if m is not claim]
    short = claim.claim_bytes - free_bytes - leaving_bytes(others)
    if short <= 0:
        return ClaimDecision(fits=False)
    chosen = _chosen(others, short, now, may_drain=may_drain)
    return chosen or ClaimDecision(fits=False)


def judge_overcommitment(
    models: Iterable[Model],
    over_bytes: int,
    now: float,
    *,
    may_drain: bool,
) -> ClaimDecision:
    """Decide which models free `over_bytes`, the memory held above the budget. When all
    candidates together hold less, take them all."""
    models = list(models)
    if chosen := _chosen(models, over_bytes, now, may_drain=may_drain):
        return chosen
    idle, sleepers = _idle(models, now), _sleepers(models, now)
    busy = _busy(models, now) if may_drain else []
    return _decision(busy, evict_fully=(*idle, *sleepers))


def _chosen(
    models: list[Model], bytes_needed: int, now: float, *, may_drain: bool
) -> ClaimDecision | None:
    """The models to evict for that much memory: the first of several tries that frees enough;
    None when no try does."""
    idle, sleepers = _idle(models, now), _sleepers(models, now)
    to_suspend = [m for m in sleepers if m.may_suspend]
    tries = [
        (idle, Depth.SLEEP),
        (idle + to_suspend, Depth.SLEEP),
        (idle + to_suspend, Depth.SUSPEND),
        (idle + sleepers, Depth.SLEEP),
        (idle + sleepers, Depth.FULL),
    ]
    if may_drain:
        busy = _busy(models, now)
        tries += [
            (idle + busy, Depth.SLEEP),
            (idle + sleepers + busy, Depth.SLEEP),
            (idle + sleepers + busy, Depth.FULL),
        ]
    for candidates, depth in tries:
        if victims := enough_of(candidates, bytes_needed, depth):
            emptied = [m for m in victims if not m.running and _is_emptied(m, depth)]
            others = [m for m in victims if m not in emptied]
            return _decision(others, evict_fully=emptied)
    return None


def _idle(models: Iterable[Model], now: float) -> list[Model]:
    """The models that may be evicted now, in the order of rule 2."""
    idle = [m for m in models if m.is_idle and m.held_bytes and now >= m.evictable_at]
    return sorted(idle, key=lambda m: (m.stays_loaded, -m.own.priority, m.cost_to_evict(now)))


def _sleepers(models: Iterable[Model], now: float) -> list[Model]:
    """The sleepers that hold memory, those without waiting predictions first."""
    asleep = [m for m in models if m.phase is Phase.ASLEEP and m.held_bytes]
    return sorted(asleep, key=lambda m: (bool(m.waiting), m.cost_to_evict(now)))


def _busy(models: Iterable[Model], now: float) -> list[Model]:
    """The models that may be drained now. One that is draining already stays the first choice.
    Otherwise two could be drained in turns, and neither would ever run nothing."""
    busy = [
        m
        for m in models
        if m.phase is Phase.READY and not m.is_idle and m.held_bytes and now >= m.drainable_at
    ]
    return sorted(busy, key=lambda m: (not m.draining, m.cost_to_evict(now)))


def _is_emptied(m: Model, depth: Depth) -> bool:
    return depth is Depth.FULL or (depth is Depth.SUSPEND and m.may_suspend)


def _decision(chosen: Iterable[Model], *, evict_fully: Iterable[Model] = ()) -> ClaimDecision:
    chosen = list(chosen)
    return ClaimDecision(
        fits=False,
        evict=tuple(m for m in chosen if not m.running),
        drain=tuple(m for m in chosen if m.running),
        evict_fully=tuple(evict_fully),
    )


def enough_of(
    candidates: Sequence[Model], bytes_needed: int, depth: Depth = Depth.SLEEP
) -> list[Model]:
    """The first candidates that together free at least `bytes_needed`, without those that a later
    one makes unnecessary. Empty when all candidates together free less."""
    freed_by = {
        m.name: m.held_bytes if _is_emptied(m, depth) else m.freed_by_leaving_bytes
        for m in candidates
    }
    chosen: list[Model] = []
    freed = 0
    for m in candidates:
        if freed >= bytes_needed:
            break
        if freed_by[m.name]:
            chosen.append(m)
            freed += freed_by[m.name]
    if freed < bytes_needed:
        return []
    # The last one is needed, but it may be so large that earlier ones are not needed any more.
    for m in chosen[-2::-1]:
        if freed - freed_by[m.name] >= bytes_needed:
            chosen.remove(m)
            freed -= freed_by[m.name]
    return chosen


def claims(models: Iterable[Model], now: float, policy: Policy) -> list[Model]:
    """The models that should become resident, in this order: by priority, which rises as they
    wait; by the age of the claim, oldest first; by the time in their phase, longest first.
    Preloads come last."""
    claiming = [
        m
        for m in models
        if m.claims_memory
        and (m.phase is not Phase.FAILED or now >= m.retry_at)
        and (m.phase is Phase.ASLEEP or m.phase in GONE)
    ]

    def order(m: Model) -> tuple[bool, int, float, float]:
        since = m.claim_since()
        aged = int((now - since) / policy.ageing_s) if m.waiting else 0
        return not m.waiting, max(0, m.own.priority - aged), since, m.phase_since

    return sorted(claiming, key=order)
