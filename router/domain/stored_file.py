"""A file that a client has uploaded ahead of the predictions that use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.media_types import suffix_of_name, suffix_of_type
from router.domain.prediction import FileRef, Json


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
