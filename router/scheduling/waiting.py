"""The line before one model: priority with ageing, then fairness between owners, then order.

Theory. A request's rank is its priority (0 first) less one for every `ageing_s` it has
waited, not below 0: so every request reaches rank 0 in bounded time and nothing starves.
Within a rank the owner who has been granted least goes first (start-time fair queueing,
Goyal et al. 1996, with every request of cost 1): one client with sixty requests delays
another's single request by one turn, not by sixty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiter:
    """One waiting prediction. `since` is in the scheduler's clock, seconds."""

    id: str
    owner: str
    priority: int
    since: float


class WaitingLine:
    """The waiters of one model. Its length is bounded by the scheduler, so O(n) is cheap."""

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._waiters: list[Waiter] = []
        self._granted: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def oldest_since(self) -> float | None:
        """When the longest waiter joined; None when nobody waits."""
        return min((w.since for w in self._waiters), default=None)

    def join(self, waiter: Waiter) -> None:
        """Add a waiter. An owner new to the line starts level with the least served in it."""
        present = {w.owner for w in self._waiters}
        if waiter.owner not in present:
            floor = min((self._granted.get(o, 0) for o in present), default=0)
            # Counts matter only among those in the line, so nobody else's is kept.
            self._granted = {o: self._granted.get(o, 0) for o in present}
            self._granted[waiter.owner] = floor
        self._waiters.append(waiter)

    def leave(self, prediction_id: str) -> bool:
        """Take a waiter out of the line; False when it was not in it."""
        for i, w in enumerate(self._waiters):
            if w.id == prediction_id:
                del self._waiters[i]
                return True
        return False

    def take(self, now: float) -> Waiter:
        """Remove and return who is next. The line must not be empty."""
        chosen = self.order(now)[0] if len(self._waiters) > 1 else self._waiters[0]
        self.leave(chosen.id)
        self._granted[chosen.owner] = self._granted.get(chosen.owner, 0) + 1
        return chosen

    def order(self, now: float) -> list[Waiter]:
        """Everyone in the order in which they would be taken if nobody else came."""
        left = list(self._waiters)
        granted = dict(self._granted)
        out: list[Waiter] = []
        while left:
            best = min(
                left,
                key=lambda w: (self._rank(w, now), granted.get(w.owner, 0), w.since),
            )
            left.remove(best)
            granted[best.owner] = granted.get(best.owner, 0) + 1
            out.append(best)
        return out

    def clear(self) -> list[Waiter]:
        """Remove and return everyone."""
        out, self._waiters = self._waiters, []
        self._granted.clear()
        return out

    def _rank(self, w: Waiter, now: float) -> int:
        return max(0, w.priority - int((now - w.since) / self._ageing_s))
