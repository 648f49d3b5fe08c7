"""The queue of one model: priority with ageing, then fairness between owners, then order of
arrival.

A request's rank is its priority (0 first) less one for every `ageing_s` that it has waited, but not
below 0. So every request reaches rank 0 in bounded time, and none starves.

Within a rank, the owner with the lowest turn is next. Each grant raises its owner's turn by one.
This is start-time fair queueing (Goyal, Vin and Cheng 1996) with cost 1 for every request. So one
client with sixty requests delays another client's single request by one turn, not by sixty. An
owner without waiters who joins again starts at the queue's turn, one above the highest granted. So
clients who come and go cannot overtake a waiting client without a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace


class Waiter(Struct, frozen=True):
    """One waiting prediction. `since`: when it joined, in seconds of the scheduler's clock.
    `returned`: it was granted before and was handed back. `waits_out_outages`: see `Submitted` in
    `router.scheduling.messages`."""

    id: str
    owner: str
    priority: int
    since: float
    returned: bool = False
    waits_out_outages: bool = False


class WaitingLine:
    """The waiters of one model. The scheduler bounds their number, so O(n) is cheap."""

    def __init__(self, ageing_s: float) -> None:
        self._ageing_s = ageing_s
        self._waiters: list[Waiter] = []
        self._turns: dict[str, int] = {}  # each owner's next turn
        self._turn = 0  # one above the highest turn granted: the queue's virtual time

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def oldest_since(self) -> float | None:
        """When the waiter that has waited longest joined; None when the queue is empty."""
        return min((w.since for w in self._waiters), default=None)

    def has_room(self, owner: str, limit: int) -> bool:
        """Whether this owner may join a queue of `limit` places.

        When all places are taken, an owner with less than an equal share of them may still join.
        Otherwise one owner could lock out the others. With n owners the length stays below
        limit x (1 + 1/2 + … + 1/n).
        """
        if len(self._waiters) < limit:
            return True
        held = Counter(w.owner for w in self._waiters)
        return held[owner] < limit // len(held.keys() | {owner})

    def join(self, waiter: Waiter) -> None:
        """Add a waiter behind all others of its owner and priority."""
        self._admit(waiter.owner)
        self._waiters.append(waiter)

    def rejoin(self, waiter: Waiter) -> None:
        """Put a waiter whose run did not begin back at the head. Its turn is not counted twice."""
        self._admit(waiter.owner)
        self._waiters.insert(0, replace(waiter, returned=True))

    def leave(self, prediction_id: str) -> bool:
        """Remove a waiter; False when it was not in the queue."""
        for i, w in enumerate(self._waiters):
            if w.id == prediction_id:
                del self._waiters[i]
                return True
        return False

    def take(self, now: float) -> Waiter:
        """Remove and return the next waiter. The queue must not be empty."""
        if len(self._waiters) == 1:
            chosen = self._waiters.pop()
        else:
            chosen = min(self._waiters, key=lambda w: self._sort_key(w, self._turns, now))
            self._waiters.remove(chosen)
        if not chosen.returned:
            self._turns[chosen.owner] += 1
            self._turn = max(self._turn, self._turns[chosen.owner])
        return chosen

    def order(self, now: float) -> list[Waiter]:
        """All waiters in the order in which they would be taken if no other joined."""
        left = list(self._waiters)
        turns = dict(self._turns)
        out: list[Waiter] = []
        while left:
            best = min(left, key=lambda w: self._sort_key(w, turns, now))
            left.remove(best)
            if not best.returned:
                turns[best.owner] += 1
            out.append(best)
        return out

    def clear(self, *, in_outage: bool = False) -> list[Waiter]:
        """Remove and return all waiters; `in_outage`: only those that do not wait it out."""
        out = [w for w in self._waiters if not (in_outage and w.waits_out_outages)]
        self._waiters = [w for w in self._waiters if in_outage and w.waits_out_outages]
        return out

    def _admit(self, owner: str) -> None:
        present = {w.owner for w in self._waiters}
        if owner not in present:
            # Owners without waiters are forgotten: their turn would be the queue's anyway, as no
            # owner's turn is above it.
            self._turns = {o: t for o, t in self._turns.items() if o in present}
            self._turns[owner] = self._turn

    def _sort_key(
        self, w: Waiter, turns: dict[str, int], now: float
    ) -> tuple[bool, int, int, float]:
        rank = max(0, w.priority - int((now - w.since) / self._ageing_s))
        return not w.returned, rank, turns[w.owner], w.since
