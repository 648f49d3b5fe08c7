"""Protocols for what is stored on disk: predictions, uploads, webhooks to send, and files.

Methods raise InsufficientStorage when the disk fails or does not take the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from router.media_types import suffix_of_name, suffix_of_type
from router.prediction import Delivery, FileRef, Json, Prediction

# A prediction's place in the order of creation: its time in seconds since the epoch and, among
# predictions of the same time, its id.
Cursor = tuple[float, str]


class Store(Protocol):
    """Predictions on disk. There is one writer, and every call is one transaction."""

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Insert or replace. With `announce_at`, seconds since the epoch, also put a webhook that
        is due then into the outbox."""

    async def claim(self, prediction: Prediction) -> bool:
        """Insert the prediction if its id is free. False when the id is taken; then nothing
        changes."""

    async def get(self, prediction_id: str) -> Prediction | None:
        """The prediction; None when there is none of that id."""

    async def delete(self, prediction_id: str) -> None:
        """Delete the prediction, if there is one of that id."""

    async def unfinished(self) -> Sequence[Prediction]:
        """Every prediction that has not ended, oldest first."""

    async def page(
        self,
        owner: str | None,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """At most `limit` predictions of that owner (None: of all owners), newest first. They are
        the newest, or those just older than `before`, or those just newer than `after`. There are
        fewer when they are large."""

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """Delete the predictions that ended before that time, in seconds since the epoch. Returns
        their input and output files, which no prediction uses any more."""

    async def ended_ids(self) -> Collection[str]:
        """The ids of all predictions that have ended."""


class UploadIndex(Protocol):
    """Data about uploaded files. Their contents are in the spool."""

    async def put_file(self, file: StoredFile) -> None:
        """Insert the file's data."""

    async def get_file(self, file_id: str) -> StoredFile | None:
        """The file's data; None when there is none of that id."""

    async def list_files(self) -> Sequence[StoredFile]:
        """All files, newest first."""

    async def delete_file(self, file_id: str) -> None:
        """Delete the file's data, if there is a file of that id."""


class Outbox(Protocol):
    """Webhooks that must be delivered. `Store.put` adds one in the transaction of the result."""

    async def deliveries(self) -> Sequence[Delivery]:
        """All webhooks that have not been delivered."""

    async def postpone(self, delivery: Delivery) -> None:
        """Store the number of failed attempts, and when the next is due."""

    async def delivered(self, prediction_id: str) -> None:
        """Remove a webhook that was delivered or is given up."""


class OpenFile(Protocol):
    """A file being written to the spool."""

    path: Path
    size_bytes: int

    def write(self, chunk: bytes | memoryview) -> None:
        """Append data. Raises InsufficientStorage."""

    def close(self) -> None:
        """Close the file after the last write."""


class Files(Protocol):
    """The spool: private files of predictions."""

    def create(self, client_name: str, owner: str = "") -> OpenFile:
        """A new file. Of the client's name only a harmless suffix is kept. With `owner`, a
        prediction's id, the new name begins with it."""

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete files. A file that does not exist is no error."""

    def link(self, file: FileRef) -> str:
        """Make a second path to the same content and return it. Each path is deleted separately.
        Raises InvalidInput when the file is gone, and InsufficientStorage."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded file. `path`: where the router stored it. `name`: the client's name for it. Times
    are seconds since the epoch. `owner`: the holder of the key that it was uploaded with."""

    id: str
    path: str
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    created_at: float
    expires_at: float
    metadata: Mapping[str, Json] = field(default_factory=dict)
    owner: str = ""

    def ref(self) -> FileRef:
        """The reference that the spool uses. A name without a suffix gets that of its media type,
        since some decoders need it."""
        ending = "" if suffix_of_name(self.name) else suffix_of_type(self.content_type)
        return FileRef("", self.path, f"{self.name}{ending}")
