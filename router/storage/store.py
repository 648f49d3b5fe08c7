"""What is kept on disk, as protocols: predictions, uploads, webhooks to be sent, files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from router.media_types import suffix_of_name, suffix_of_type
from router.prediction import Delivery, FileRef, Json, Prediction

# A prediction's place in the order of creation: its time and, for those of one time, its id.
Cursor = tuple[float, str]


class Store(Protocol):
    """Predictions on disk. One writer; every call is one transaction."""

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Insert or replace; with `announce_at`, also put a webhook due then into the outbox."""

    async def claim(self, prediction: Prediction) -> bool:
        """Insert it if its id is free; False, and no change, when it is taken."""

    async def get(self, prediction_id: str) -> Prediction | None:
        """The prediction, or None."""

    async def delete(self, prediction_id: str) -> None:
        """Forget it."""

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
        """At most `limit` predictions of that owner (None: of all), newest first: the newest,
        those just older than `before`, or those just newer than `after`. Fewer when they are
        large."""

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """Delete what ended before then; return the files, of inputs and of outputs, that are
        nobody's now."""

    async def ended_ids(self) -> Collection[str]:
        """The id of every prediction that has ended."""


class UploadIndex(Protocol):
    """What is known of uploaded files; their contents are in the spool."""

    async def put_file(self, file: StoredFile) -> None:
        """Insert."""

    async def get_file(self, file_id: str) -> StoredFile | None:
        """The file, or None."""

    async def list_files(self) -> Sequence[StoredFile]:
        """All of them, newest first."""

    async def delete_file(self, file_id: str) -> None:
        """Forget it."""


class Outbox(Protocol):
    """Webhooks that must arrive. `Store.put` fills it in the transaction of the result."""

    async def deliveries(self) -> Sequence[Delivery]:
        """All that have not arrived."""

    async def postpone(self, delivery: Delivery) -> None:
        """It did not arrive: the attempts so far and when the next is due."""

    async def delivered(self, prediction_id: str) -> None:
        """It has arrived, or is given up."""


class OpenFile(Protocol):
    """A file being written to the spool."""

    path: Path
    size_bytes: int

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. Raises InsufficientStorage."""

    def close(self) -> None:
        """No more will be written."""


class Files(Protocol):
    """The spool: private files of predictions."""

    def create(self, client_name: str, owner: str = "") -> OpenFile:
        """A new file; of the client's name only a harmless suffix is kept. With `owner`, a
        prediction's id, its name says whose it is."""

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete them; one that is gone already is no error."""

    def link(self, file: FileRef) -> str:
        """Another name for the content, deleted on its own; its path. Raises InvalidInput when
        it is gone, InsufficientStorage."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`path` is where the router put it, `name` what the client called it. Times are seconds
    since the epoch. `owner`: the holder of the key it was uploaded with."""

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
        """The file as the spool knows files. A name without an ending gets its type's: some
        decoders go by it."""
        ending = "" if suffix_of_name(self.name) else suffix_of_type(self.content_type)
        return FileRef("", self.path, f"{self.name}{ending}")
