"""Who must go so that another may come. Pure functions over the models' present state.

Rules, in order:
1. A model that runs something is never stopped; one that became ready less than
   `min_residency_s` ago is not touched at all.
2. Idle models go first, the cheapest to lose first.
3. Only for a claim that has waited `patience_s` may a model with work of its own be drained:
   it is granted nothing new, and goes when its last run ends. That is what keeps a busy
   model from starving another for ever, and `min_residency_s` what keeps two from thrashing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from router.scheduling.model import HOLDS_MEMORY, Model, Phase


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one claim needs now. Nothing in either tuple and not `fits`: wait."""

    fits: bool
    stop: tuple[Model, ...] = ()
    drain: tuple[Model, ...] = ()


def held_bytes(models: Iterable[Model]) -> int:
    """Memory spoken for: loading, resident and not yet freed."""
    return sum(m.need_bytes for m in models if m.phase in HOLDS_MEMORY)


def judge_claim(
    claim: Model,
    others: Iterable[Model],
    free_bytes: int,
    now: float,
    *,
    impatient: bool,
    min_residency_s: float,
) -> Verdict:
    """Decide how `claim` comes to its memory when `free_bytes` are free.

    free_bytes: budget less everything held and everything reserved by older claims; it may
    be negative. Memory of models that are stopping counts as coming.
    """
    if claim.need_bytes <= free_bytes:
        return Verdict(fits=True)
    others = list(others)
    coming = sum(m.need_bytes for m in others if m.phase is Phase.STOPPING)
    short = claim.need_bytes - free_bytes - coming
    if short <= 0:
        return Verdict(fits=False)
    settled = sorted(
        (m for m in others if m.phase is Phase.READY and now - m.phase_since >= min_residency_s),
        key=lambda m: m.cost_to_evict(now),
    )
    idle = take_until([m for m in settled if m.is_idle], short)
    if idle is not None:
        return Verdict(fits=False, stop=tuple(idle))
    if not impatient:
        return Verdict(fits=False)
    # A model already draining stays the first choice, or two could take turns at it for ever.
    by_idleness = sorted(settled, key=lambda m: (not m.is_idle, not m.draining))
    chosen = take_until(by_idleness, short)
    if chosen is None:
        return Verdict(fits=False)
    return Verdict(
        fits=False,
        stop=tuple(m for m in chosen if not m.running),
        drain=tuple(m for m in chosen if m.running),
    )


def take_until(candidates: Iterable[Model], bytes_needed: int) -> list[Model] | None:
    """The first candidates that together free enough, or None when all do not."""
    out: list[Model] = []
    freed = 0
    for m in candidates:
        if freed >= bytes_needed:
            break
        out.append(m)
        freed += m.need_bytes
    return out if freed >= bytes_needed else None
