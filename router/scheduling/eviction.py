"""Which models are evicted so that another fits in memory. Pure functions over the models'
present state.

Rules, in order:
1. A model that runs something is never stopped. A model that became ready less than
   `min_residency_s` ago is not touched at all.
2. Idle models are evicted first, the one with the lowest cost first (`Model.cost_to_evict`).
3. A model with work of its own is drained only for a claim that has waited `patience_s`: it is
   granted nothing new, and is evicted when its last run ends. So a busy model cannot starve
   another without a limit. By then it has been ready for at least the time that it took to load,
   so two models cannot spend all their time on evicting each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.scheduling.model import GONE, LEAVING, Model, Phase


@dataclass(frozen=True, slots=True)
class ClaimDecision:
    """What to do for one claim. When `fits` is false and both tuples are empty: wait."""

    fits: bool
    stop: tuple[Model, ...] = ()
    drain: tuple[Model, ...] = ()


def held_bytes(models: Iterable[Model]) -> int:
    """Memory of all models that are loading or resident, or whose memory is not yet measured to be
    free."""
    return sum(m.need_bytes for m in models if m.holds_memory)


def leaving_bytes(models: Iterable[Model]) -> int:
    """The part of `held_bytes` that models are giving back now."""
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
    """Decide how `claim` gets its memory when `free_bytes` are free.

    `free_bytes`: the budget less all that is held and all that older claims have reserved; it may
    be negative. Memory that models are giving back now is not asked for a second time.
    """
    # A model that needs no memory fits even where more is held than the budget.
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
    """Decide which models give back `over_bytes`, the memory held above the budget. When all
    candidates together hold less, take them all."""
    models = list(models)
    idle = _idle(models, now, min_residency_s)
    victims = enough_of(idle, over_bytes)
    if victims or not impatient:
        return ClaimDecision(fits=False, stop=tuple(victims or idle))
    both = idle + _busy(models, now, min_residency_s)
    return _decision(enough_of(both, over_bytes) or both)


def _idle(models: Iterable[Model], now: float, min_residency_s: float) -> list[Model]:
    """The models that may be stopped now, the one with the lowest cost first."""
    idle = [
        m for m in models if m.is_idle and m.need_bytes and now >= m.settled_at(min_residency_s)
    ]
    return sorted(idle, key=lambda m: m.cost_to_evict(now))


def _busy(models: Iterable[Model], now: float, min_residency_s: float) -> list[Model]:
    """The models that may be drained now. One that is draining already stays the first choice;
    otherwise two could be drained in turns, and none would ever be empty."""
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
    """The first candidates that together free at least `bytes_needed`, without those that turn out
    not to be needed; empty when all candidates together free less."""
    chosen: list[Model] = []
    freed = 0
    for m in candidates:
        if freed >= bytes_needed:
            break
        chosen.append(m)
        freed += m.need_bytes
    if freed < bytes_needed:
        return []
    # The last one is needed, but it may be so large that earlier ones are not needed any more.
    for m in chosen[-2::-1]:
        if freed - m.need_bytes >= bytes_needed:
            chosen.remove(m)
            freed -= m.need_bytes
    return chosen


def claims(models: Iterable[Model], now: float) -> list[Model]:
    """The models that should become resident: the oldest claim first, then the one that has been
    in its phase for longest; preloads last."""
    claiming = [
        m
        for m in models
        if (m.waiting or m.wanted)
        and (m.phase is not Phase.FAILED or now >= m.retry_at)
        and (m.phase is Phase.ASLEEP or m.phase in GONE)
    ]
    return sorted(claiming, key=lambda m: (m.claim_since(), m.phase_since))
