"""Moves the files of ended results from the disk to the result store, and deletes them there.

A result is announced when its files are on the disk, and they are moved afterwards. Neither a
file's row nor its URL changes: a reader looks on the disk first, then in the store, where the file
has the same name. So a file leaves the disk only when the store has it, and while the store does
not answer all files stay on the disk. One task moves and deletes in turn, so that no file is
deleted in the store before its upload has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.errors import ResultStoreFailed, RouterError
from router.media_types import is_shown, sent_type
from router.prediction import FileRef, OutputFile
from router.storage.spool import OWNER_END, Spool
from router.storage.store import Store

if TYPE_CHECKING:  # it imports the client, which only a router with a result store needs
    from router.storage.result_store import ResultStore

log = logging.getLogger(__name__)

# Each takes up to two pieces of memory (`router.storage.result_store`).
UPLOADS_AT_ONCE = 2
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class ResultMover:
    """Moves from the folder `files` to `results`, from `open` until `close`. `store` has the
    predictions."""

    def __init__(self, files: Spool, results: ResultStore, store: Store) -> None:
        self._files = files
        self.results = results
        self._store = store
        self._work = asyncio.Event()
        # Ids of predictions, and names of files, in the order of arrival.
        self._to_move: dict[str, None] = {}
        self._to_remove: dict[str, None] = {}
        self._is_clean = False
        self._problem = ""
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start. What an earlier run had not moved is moved, and what no result owns is deleted."""
        self._work.set()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop. The next run continues: all that is not moved is on the disk."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def move(self, prediction_id: str) -> None:
        """Move the files of a prediction whose end is on disk."""
        self._to_move[prediction_id] = None
        self._work.set()

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete files of deleted predictions in the store. Others than output files are left
        out."""
        paths = [Path(file.path) for file in files]
        names = [path.name for path in paths if path.parent == self._files.folder]
        if names:
            self._to_remove.update(dict.fromkeys(names))
            self._work.set()

    def view(self) -> dict[str, Any]:
        """For /status: the predictions whose files wait, and what is wrong with the store."""
        return {"waiting": len(self._to_move)} | (
            {"problem": self._problem} if self._problem else {}
        )

    # ---- internal ------------------------------------------------------------------------

    async def _run(self) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._do_all()
            except (RouterError, OSError) as error:
                self._note(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                self._work.set()
            else:
                self._problem, wait_s = "", FIRST_WAIT_S

    async def _do_all(self) -> None:
        """Raises ResultStoreFailed, InsufficientStorage when the database cannot be read, and
        OSError when the disk cannot."""
        if not self._is_clean:
            await self._clean()
            self._is_clean = True
        while self._to_remove or self._to_move:
            if names := list(self._to_remove):
                await self.results.remove(names)
                for name in names:
                    del self._to_remove[name]
            for prediction_id in list(self._to_move):
                try:
                    await self._move(prediction_id)
                except (RouterError, OSError):
                    # Moved to the end of the line: if the store refuses only this one, the others
                    # go on.
                    self._to_move[prediction_id] = self._to_move.pop(prediction_id)
                    raise
                del self._to_move[prediction_id]

    async def _clean(self) -> None:
        """Find what an earlier run had not done: it was killed, or the store did not answer."""
        stored = await self.results.names()
        ended = await self._store.ended_ids()  # read after the names: each stored file has a row
        left = [name for name in stored if name.partition(OWNER_END)[0] not in ended]
        self._to_remove.update(dict.fromkeys(left))
        here = await asyncio.to_thread(self._files.owners)
        self._to_move.update(dict.fromkeys(here.intersection(ended)))

    async def _move(self, prediction_id: str) -> None:
        p = await self._store.get(prediction_id)
        files = p.output_files if p is not None else ()
        for start in range(0, len(files), UPLOADS_AT_ONCE):
            some = files[start : start + UPLOADS_AT_ONCE]
            done = await asyncio.gather(*map(self._move_file, some), return_exceptions=True)
            for error in done:
                if isinstance(error, BaseException):
                    raise error

    async def _move_file(self, file: OutputFile) -> None:
        path = Path(file.path)
        kind = sent_type(file.media_type)
        # A picture in SVG may contain a script. The router sends it in a sandbox, the store cannot.
        inline = is_shown(kind) and "svg" not in kind
        shown = "inline" if inline else "attachment"
        with contextlib.suppress(FileNotFoundError):  # moved before, or deleted
            await self.results.put(path.name, path, kind, f'{shown}; filename="{file.name}"')
            await asyncio.to_thread(path.unlink)

    def _note(self, error: RouterError | OSError) -> None:
        problem = error.reason if isinstance(error, ResultStoreFailed) else str(error)
        if problem != self._problem:
            log.error("results stay on this disk until it works: %s", problem)
        self._problem = problem
