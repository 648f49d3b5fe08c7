"""Who must go so that another may come. Pure functions over the models' present state.

Rules, in order:
1. A model that runs something is never stopped; one that became ready less than
   `min_residency_s` ago is not touched at all.
2. Idle models go first, the cheapest to lose first.
3. Only for a claim that has waited `patience_s` may a model with work of its own be drained:
   it is granted nothing new, and goes when its last run ends. That is what keeps a busy
   model from starving another for ever. It has been ready for at least the time that it
   took to load by then, and that is what keeps two from thrashing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.scheduling.model import GONE, LEAVING, Model, Phase


@dataclass(frozen=True, slots=True)
class ClaimDecision:
    """What one claim needs now. Nothing in either tuple and not `fits`: wait."""

    fits: bool
    stop: tuple[Model, ...] = ()
    drain: tuple[Model, ...] = ()


def held_bytes(models: Iterable[Model]) -> int:
    """Memory spoken for: loading, resident and not yet seen to be free."""
    return sum(m.need_bytes for m in models if m.holds_memory)


def leaving_bytes(models: Iterable[Model]) -> int:
    """The part of it that is on its way back."""
    return sum(m.need_bytes for m in models if m.holds_memory and m.phase in LEAVING)


def judge_claim(
    claim: Model,
    others: Iterable[Model],
    free_bytes: int,
    now: float,
    *,
    impatient: bool,
    min_residency_s: float,
) -> ClaimDecision:
    """Decide how `claim` comes to its memory when `free_bytes` are free.

    free_bytes: budget less everything held and everything reserved by older claims; it may
    be negative. Memory on its way back counts as coming.
    """
    # What needs nothing fits also where more is held than there is.
    if claim.need_bytes <= max(free_bytes, 0):
        return ClaimDecision(fits=True)
    others = list(others)
    coming = leaving_bytes(others)
    short = claim.need_bytes - free_bytes - coming
    if short <= 0:
        return ClaimDecision(fits=False)
    idle = _idle(others, now, min_residency_s)
    if victims := enough_of(idle, short):
        return ClaimDecision(fits=False, stop=tuple(victims))
    if not impatient:
        return ClaimDecision(fits=False)
    return _decision(enough_of(idle + _busy(others, now, min_residency_s), short))


def judge_overcommitment(
    models: Iterable[Model],
    over_bytes: int,
    now: float,
    *,
    impatient: bool,
    min_residency_s: float,
) -> ClaimDecision:
    """Who gives back `over_bytes` that are held and not there: as many as can be had."""
    models = list(models)
    idle = _idle(models, now, min_residency_s)
    victims = enough_of(idle, over_bytes)
    if victims or not impatient:
        return ClaimDecision(fits=False, stop=tuple(victims or idle))
    both = idle + _busy(models, now, min_residency_s)
    return _decision(enough_of(both, over_bytes) or both)


def _idle(models: Iterable[Model], now: float, min_residency_s: float) -> list[Model]:
    """Who may be stopped now, the cheapest to lose first."""
    idle = [
        m for m in models if m.is_idle and m.need_bytes and now >= m.settled_at(min_residency_s)
    ]
    return sorted(idle, key=lambda m: m.cost_to_evict(now))


def _busy(models: Iterable[Model], now: float, min_residency_s: float) -> list[Model]:
    """Who may be drained now. A model already draining stays the first choice, or two could
    take turns at it for ever."""
    busy = [
        m
        for m in models
        if m.phase is Phase.READY
        and not m.is_idle
        and m.need_bytes
        and now >= m.drainable_at(min_residency_s)
    ]
    return sorted(busy, key=lambda m: (not m.draining, m.cost_to_evict(now)))


def _decision(chosen: Iterable[Model]) -> ClaimDecision:
    chosen = list(chosen)
    return ClaimDecision(
        fits=False,
        stop=tuple(m for m in chosen if not m.running),
        drain=tuple(m for m in chosen if m.running),
    )


def enough_of(candidates: Iterable[Model], bytes_needed: int) -> list[Model]:
    """The first candidates that together free enough, less those that are not needed for it
    after all; none when all together do not."""
    chosen: list[Model] = []
    freed = 0
    for m in candidates:
        if freed >= bytes_needed:
            break
        chosen.append(m)
        freed += m.need_bytes
    if freed < bytes_needed:
        return []
    # The last one is needed, but it may be so large that it makes earlier ones superfluous.
    for m in chosen[-2::-1]:
        if freed - m.need_bytes >= bytes_needed:
            chosen.remove(m)
            freed -= m.need_bytes
    return chosen


def claims(models: Iterable[Model], now: float) -> list[Model]:
    """Models that should become resident: longest claiming first, then longest away;
    preloads last."""
    claiming = [
        m
        for m in models
        if (m.waiting or m.wanted)
        and (m.phase is not Phase.FAILED or now >= m.retry_at)
        and (m.phase is Phase.ASLEEP or m.phase in GONE)
    ]
    return sorted(claiming, key=lambda m: (m.claim_since(), m.phase_since))
