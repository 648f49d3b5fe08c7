"""The store in memory: what the contract of `router.ports` says, in as few words as it takes."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.prediction import Delivery, FileRef, Prediction


class MemoryStore:
    """Fulfils `router.ports.Store` and `Outbox`."""

    def __init__(self) -> None:
        self.rows: dict[str, Prediction] = {}
        self.outbox: dict[str, Delivery] = {}

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Insert or replace, and announce."""
        self.rows[prediction.id] = prediction
        if announce_at is not None:
            self.outbox[prediction.id] = Delivery(prediction.id, 0, announce_at)

    async def claim(self, prediction: Prediction) -> bool:
        """Insert if the id is free."""
        return self.rows.setdefault(prediction.id, prediction) is prediction

    async def get(self, prediction_id: str) -> Prediction | None:
        """The prediction, or None."""
        return self.rows.get(prediction_id)

    async def delete(self, prediction_id: str) -> None:
        """Forget it."""
        self.rows.pop(prediction_id, None)

    async def unfinished(self) -> Sequence[Prediction]:
        """Those without an end, oldest first."""
        waiting = [p for p in self.rows.values() if p.completed_at is None]
        return sorted(waiting, key=lambda p: p.created_at)

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """Forget what ended before; their files."""
        old = [
            p
            for p in self.rows.values()
            if p.completed_at is not None and p.completed_at < completed_before
        ]
        for p in old:
            del self.rows[p.id]
            self.outbox.pop(p.id, None)
        return [f for p in old for f in p.files]

    async def deliveries(self) -> Sequence[Delivery]:
        """The outbox."""
        return list(self.outbox.values())

    async def postpone(self, delivery: Delivery) -> None:
        """Noted."""
        self.outbox[delivery.prediction_id] = delivery

    async def delivered(self, prediction_id: str) -> None:
        """Out of the outbox."""
        self.outbox.pop(prediction_id, None)

    async def close(self) -> None:
        """Nothing to close."""
