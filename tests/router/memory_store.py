"""The store in memory: the contract of `router.storage.store` in the fewest lines."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from router.prediction import Delivery, FileRef, Prediction
from router.secret_inputs import SecretValues
from router.storage.store import Cursor, StoredFile


class MemoryStore:
    """Fulfils `router.storage.store.Store`, `Outbox` and `UploadIndex`."""

    def __init__(self) -> None:
        self.rows: dict[str, Prediction] = {}
        self.outbox: dict[str, Delivery] = {}
        self.files: dict[str, StoredFile] = {}

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Insert or replace, and announce."""
        self.rows[prediction.id] = _kept(prediction)
        if announce_at is not None:
            self.outbox[prediction.id] = Delivery(prediction.id, 0, announce_at)

    async def claim(self, prediction: Prediction) -> bool:
        """Insert if the id is free."""
        kept = _kept(prediction)
        return self.rows.setdefault(prediction.id, kept) is kept

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

    async def page(
        self,
        owner: str | None,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """A page, newest first."""
        rows = [p for p in self.rows.values() if owner in (None, p.owner)]
        found = sorted(rows, key=_place, reverse=not after)
        if before:
            found = [p for p in found if _place(p) < before]
        if after:
            found = [p for p in found if _place(p) > after]
        return sorted(found[:limit], key=_place, reverse=True)

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
        return [f for p in old for f in (*p.files, *(o.ref() for o in p.output_files))]

    async def ended_ids(self) -> Collection[str]:
        """Of those with an end."""
        return {p.id for p in self.rows.values() if p.completed_at is not None}

    async def deliveries(self) -> Sequence[Delivery]:
        """The outbox."""
        return list(self.outbox.values())

    async def postpone(self, delivery: Delivery) -> None:
        """Noted."""
        self.outbox[delivery.prediction_id] = delivery

    async def delivered(self, prediction_id: str) -> None:
        """Out of the outbox."""
        self.outbox.pop(prediction_id, None)

    async def put_file(self, file: StoredFile) -> None:
        """Insert."""
        self.files[file.id] = file

    async def get_file(self, file_id: str) -> StoredFile | None:
        """The file, or None."""
        return self.files.get(file_id)

    async def list_files(self) -> Sequence[StoredFile]:
        """Newest first."""
        return sorted(self.files.values(), key=lambda f: f.created_at, reverse=True)

    async def delete_file(self, file_id: str) -> None:
        """Forget it."""
        self.files.pop(file_id, None)

    async def close(self) -> None:
        """Nothing to close."""


def _kept(p: Prediction) -> Prediction:
    """Of secrets their names only."""
    return replace(p, secrets=SecretValues.fromkeys(p.secrets))


def _place(p: Prediction) -> Cursor:
    return (p.created_at, p.id)
