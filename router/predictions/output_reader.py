"""Reads output files, from the disk or from the result store, and puts them back into outputs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.errors import InvalidInput
from router.media_types import suffix_of_name
from router.prediction import FileRef, Json, JsonPath, OutputFile
from router.storage.store import Files

if TYPE_CHECKING:  # it imports the client, which only a router with a result store needs
    from router.storage.result_store import ResultStore

log = logging.getLogger(__name__)

# Files are encoded in pieces, so that no step holds Python's GIL for long. A multiple of three
# bytes, which base64 writes as four characters.
PIECE_BYTES = 3 << 18
# Up to this size together, files are read without a thread: that takes less time than to start one.
SMALL_BYTES = 1 << 16


class OutputReader:
    """Reads output files. `files`: where they are on the disk. `results`: the result store, which
    has the files that are no longer on the disk."""

    def __init__(self, files: Files, results: ResultStore | None = None) -> None:
        self._files = files
        self.results = results

    async def with_data_uris(self, output: Json, files: Iterable[OutputFile]) -> Json:
        """The output with the data: URI of each file in its place; null for a file that is not kept
        any more. Raises ResultStoreFailed."""
        files = list(files)
        if sum(f.size_bytes for f in files) <= SMALL_BYTES:
            found = read_all(files)
        else:
            found = await asyncio.to_thread(read_all, files)
        values = []
        for file, value in zip(files, found, strict=True):
            uri = value or await self._fetched(file)
            if uri is None:
                log.error("Cannot read an output file: it is gone", extra={"file": file.name})
            values.append((file.place, uri))
        return with_values(output, values)

    @contextlib.asynccontextmanager
    async def local(self, file: OutputFile) -> AsyncIterator[FileRef]:
        """A copy of the file on the disk, which stays there for as long as the caller needs it.
        Raises FileNotFoundError when the file is not kept any more, InsufficientStorage, and
        ResultStoreFailed."""
        try:
            path = self._files.link(file.ref())
        except InvalidInput:
            path = await self._download(file)
        copy = FileRef("", path, file.name)
        try:
            yield copy
        finally:
            self._files.remove([copy])

    async def _fetched(self, file: OutputFile) -> str | None:
        if self.results is None:
            return None
        parts = [f"data:{file.media_type};base64,"]
        rest = b""
        try:
            async for piece in self.results.read(Path(file.path).name, 0, file.size_bytes):
                rest += piece
                whole = len(rest) - len(rest) % 3
                parts.append(base64.b64encode(rest[:whole]).decode())
                rest = rest[whole:]
        except FileNotFoundError:
            return None
        return "".join((*parts, base64.b64encode(rest).decode()))

    async def _download(self, file: OutputFile) -> str:
        if self.results is None:
            raise FileNotFoundError(file.name)
        copy = self._files.create(f"copy{suffix_of_name(file.name)}")
        try:
            async for piece in self.results.read(Path(file.path).name, 0, file.size_bytes):
                copy.write(piece)
        except BaseException:
            self._files.remove([FileRef("", str(copy.path), "")])
            raise
        finally:
            copy.close()
        return str(copy.path)


def read_all(files: Iterable[OutputFile]) -> list[str | None]:
    """The data: URI of each file on the disk; None for one that is not there."""
    return [_read(file) for file in files]


def _read(file: OutputFile) -> str | None:
    parts = [f"data:{file.media_type};base64,"]
    try:
        with Path(file.path).open("rb") as content:
            while piece := content.read(PIECE_BYTES):
                parts.append(base64.b64encode(piece).decode())
    except FileNotFoundError:
        return None
    except OSError as error:
        log.error("Cannot read an output file: %s", error.strerror)
        return None
    return "".join(parts)


def with_values(output: Json, values: Iterable[tuple[JsonPath, Json]]) -> Json:
    """A copy of the output with these values at these places."""
    root: dict[str, Any] = {"": output}
    copies: dict[JsonPath, Any] = {}
    for place, value in values:
        holder, key = root, ""
        for depth, step in enumerate(place):
            above = place[:depth]
            if above not in copies:
                copies[above] = holder[key] = holder[key].copy()
            holder, key = copies[above], step  # type: ignore[assignment]
        holder[key] = value
    return root[""]
