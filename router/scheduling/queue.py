"""The line before one model: priority with ageing, then fairness between owners, then order.

Theory. A request's rank is its priority (0 first) less one for every `ageing_s` it has
waited, not below 0: so every request reaches rank 0 in bounded time and nothing starves.
Within a rank the owner with the lowest turn goes first, and an owner's turn goes up by one
with each grant: start-time fair queueing (Goyal, Vin and Cheng 1996) with every request of
cost 1. An owner who comes anew starts at the line's turn, one above the highest granted. So one
client with sixty requests delays another's single request by one turn, not by sixty, and
clients who come and go cannot overtake a waiting one for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace


class Waiter(Struct, frozen=True):
    """One waiting prediction. `since` is in the scheduler's clock, seconds; `returned`: it had
    been granted and was handed back."""

    id: str
    owner: str
    priority: int
    since: float
    returned: bool = False


class WaitingLine:
    """The waiters of one model. Its length is bounded by the scheduler, so O(n) is cheap."""

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._waiters: list[Waiter] = []
        self._turns: dict[str, int] = {}  # each owner's next turn
        self._turn = 0  # one above the highest turn granted: the line's virtual time

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def oldest_since(self) -> float | None:
        """When the longest waiter joined; None when nobody waits."""
        return min((w.since for w in self._waiters), default=None)

    def has_room(self, owner: str, limit: int) -> bool:
        """Whether this owner may join a line of `limit` places.

        When the places are taken, an owner with less than an equal share of them may still
        join, or one owner could lock the others out. With n owners the line thus stays below
        limit x (1 + 1/2 + … + 1/n).
        """
        if len(self._waiters) < limit:
            return True
        held = Counter(w.owner for w in self._waiters)
        return held[owner] < limit // len(held.keys() | {owner})

    def join(self, waiter: Waiter) -> None:
        """Add a waiter at the end of its owner's."""
        self._admit(waiter.owner)
        self._waiters.append(waiter)

    def rejoin(self, waiter: Waiter) -> None:
        """Put back one who was taken in vain: at the head, and its turn is not counted twice."""
        self._admit(waiter.owner)
        self._waiters.insert(0, replace(waiter, returned=True))

    def leave(self, prediction_id: str) -> bool:
        """Take a waiter out of the line; False when it was not in it."""
        for i, w in enumerate(self._waiters):
            if w.id == prediction_id:
                del self._waiters[i]
                return True
        return False

    def take(self, now: float) -> Waiter:
        """Remove and return who is next. The line must not be empty."""
        if len(self._waiters) == 1:
            chosen = self._waiters.pop()
        else:
            chosen = min(self._waiters, key=lambda w: self._place(w, self._turns, now))
            self._waiters.remove(chosen)
        if not chosen.returned:
            self._turns[chosen.owner] += 1
            self._turn = max(self._turn, self._turns[chosen.owner])
        return chosen

    def order(self, now: float) -> list[Waiter]:
        """Everyone in the order in which they would be taken if nobody else came."""
        left = list(self._waiters)
        turns = dict(self._turns)
        out: list[Waiter] = []
        while left:
            best = min(left, key=lambda w: self._place(w, turns, now))
            left.remove(best)
            if not best.returned:
                turns[best.owner] += 1
            out.append(best)
        return out

    def clear(self) -> list[Waiter]:
        """Remove and return everyone."""
        out, self._waiters = self._waiters, []
        return out

    def _admit(self, owner: str) -> None:
        present = {w.owner for w in self._waiters}
        if owner not in present:
            # No turn is above the line's, so those of who left need not be remembered.
            self._turns = {o: t for o, t in self._turns.items() if o in present}
            self._turns[owner] = self._turn

    def _place(self, w: Waiter, turns: dict[str, int], now: float) -> tuple[bool, int, int, float]:
        rank = max(0, w.priority - int((now - w.since) / self._ageing_s))
        return not w.returned, rank, turns[w.owner], w.since
