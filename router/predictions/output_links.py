"""The two forms in which a prediction is shown: its output files in `output_files`, or in its
output as data: URIs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from weakref import WeakValueDictionary

from msgspec.structs import replace

from router.errors import NotEnded, NotFound, RouterError
from router.prediction import FileRef, Json, JsonPath, OutputFile, Prediction
from router.predictions.in_flight import InFlight
from router.predictions.output_files import Outputs, StoredOutputs, data_uris, may_hold_files
from router.predictions.output_reader import with_values
from router.storage.store import Store

# How long a deletion waits for the result of a prediction that has just ended to be on disk.
WRITTEN_WITHIN_S = 5.0
LOOK_EVERY_S = 0.02


class Links:
    """Makes both forms. `in_flight` returns the prediction of an id until it has ended."""

    def __init__(
        self, store: Store, outputs: Outputs, in_flight: Callable[[str], InFlight | None]
    ) -> None:
        self._store = store
        self._outputs = outputs
        self._in_flight = in_flight
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def with_output_files(self, p: Prediction) -> Prediction:
        """The prediction with the files of its output in `output_files`.

        A prediction that is not durable is returned unchanged: it is deleted with its response, so
        no URL of it could work.
        """
        if p.output_files or not p.durable:
            return p
        in_flight = self._in_flight(p.id)
        # The files of an earlier attempt must be deleted at the end, even if the output has none.
        if not may_hold_files(p.output) and (in_flight is None or in_flight.stored_outputs is None):
            return p
        if in_flight is None:
            return await self._with_files_from_store(p)
        output, files = await self._outputs.store(
            in_flight.ensure_stored_outputs(), p.id, p.output, last=p.status.is_terminal
        )
        return replace(p, output=output, output_files=files)

    async def chunk_and_files(
        self, in_flight: InFlight, index: int, value: Json
    ) -> tuple[Json, tuple[OutputFile, ...], JsonPath]:
        """One element of the output with null in place of each file; the files; and the place of
        the element in the output.
        `in_flight` may have ended by now."""
        p = in_flight.prediction
        is_whole = p.status.is_terminal and not isinstance(p.output, list)
        at: JsonPath = () if is_whole else (index,)
        if not p.durable:
            return value, (), at
        return *await self._outputs.store(in_flight.ensure_stored_outputs(), p.id, value, at=at), at

    async def with_data_uris(self, p: Prediction) -> Prediction:
        """The prediction with its output files in the output, as data: URIs. Raises
        ResultStoreFailed when one is in the result store and cannot be read now."""
        if not p.output_files:
            return p
        output = await self._outputs.reader.with_data_uris(p.output, p.output_files)
        return replace(p, output=output, output_files=())

    async def delete(self, p: Prediction) -> None:
        """Delete a prediction that has ended, and the files of its output. Raises NotEnded."""
        await self._until_written(p.id)
        async with self._lock(p.id):
            stored = await self._store.get(p.id)
            await self._store.delete(p.id)
        if stored is not None:
            self.remove([file.ref() for file in stored.output_files])

    def note_written(self, p: Prediction) -> None:
        """The prediction's end is on disk, and it is no longer in flight."""
        self._outputs.note_written(p)

    def remove(self, files: Collection[FileRef]) -> None:
        """Delete files of deleted predictions; there may be files of inputs among them."""
        self._outputs.remove(files)

    async def _until_written(self, prediction_id: str) -> None:
        """Wait for the result of a prediction that has just ended to be on disk. Raises NotEnded
        when it has not ended, and when its result cannot be written now."""
        looks = round(WRITTEN_WITHIN_S / LOOK_EVERY_S)
        for _ in range(looks):
            in_flight = self._in_flight(prediction_id)
            if in_flight is None:
                return
            if not in_flight.prediction.status.is_terminal:
                raise NotEnded(
                    f"Cannot delete '{prediction_id}': it has not ended; cancel it first"
                )
            await asyncio.sleep(LOOK_EVERY_S)
        raise NotEnded(
            f"Cannot delete '{prediction_id}': its result is being written; try again",
            retry_after_s=WRITTEN_WITHIN_S,
        )

    async def file(self, prediction_id: str, name: str) -> OutputFile:
        """A prediction's output file by its name. Raises NotFound when it is not kept."""
        in_flight = self._in_flight(prediction_id)
        if in_flight is not None and in_flight.stored_outputs is not None:
            files = [file for _, file in in_flight.stored_outputs.files.values()]
        else:
            stored = await self._store.get(prediction_id)
            files = list(stored.output_files) if stored else []
        for file in files:
            if file.name == name:
                return file
        raise _not_kept(name)

    @contextlib.asynccontextmanager
    async def file_of_url(self, url: str) -> AsyncIterator[FileRef | None]:
        """A copy of the file of a URL of this router, for the time of the block; None for any other
        URL. Raises NotFound when the file is no longer kept, InsufficientStorage, and
        ResultStoreFailed."""
        named = self._outputs.named_by(url)
        if named is None:
            yield None
            return
        file = await self.file(*named)
        async with contextlib.AsyncExitStack() as stack:
            try:
                copy = await stack.enter_async_context(self._outputs.reader.local(file))
            except FileNotFoundError:
                raise _not_kept(file.name) from None
            yield copy

    async def _with_files_from_store(self, p: Prediction) -> Prediction:
        """As `with_output_files`, for an ended prediction. If its row is from a version without
        output files, or was written when the disk was full, its files are stored now."""
        async with self._lock(p.id):
            stored = await self._store.get(p.id)
            if stored is None or not stored.status.is_terminal:
                return p
            if not stored.output_files:
                stored = await self._moved(stored)
        # `p` may be a copy from before the end, with fewer files.
        known = {f.place: f for f in stored.output_files}
        files = tuple(known[place] for place, _ in data_uris(p.output) if place in known)
        output = with_values(p.output, [(f.place, None) for f in files])
        return replace(p, output=output, output_files=files)

    def _lock(self, prediction_id: str) -> asyncio.Lock:
        """The lock to hold while the row of an ended prediction is changed."""
        return self._locks.setdefault(prediction_id, asyncio.Lock())

    async def _moved(self, stored: Prediction) -> Prediction:
        output, files = await self._outputs.store(
            StoredOutputs(), stored.id, stored.output, last=True
        )
        if not files:
            return stored
        moved = replace(stored, output=output, output_files=files)
        try:
            await self._store.put(moved)
        except RouterError:
            self.remove([file.ref() for file in files])
            return stored
        self.note_written(moved)
        return moved


def _not_kept(name: str) -> NotFound:
    return NotFound(f"Cannot find file '{name[:80]}': its prediction is not kept any more")
