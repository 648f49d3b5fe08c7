"""Checks the state folder while the router runs. It repairs what it can and reports the
rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from router.storage.spool import make_folder
from router.storage.sqlite_store import SqliteStore

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
# `problems` looks again when the last look is older than this.
FRESH_S = 1.0


class StateFolder:
    """Looks at the folders and the database regularly, from `open` until `close`."""

    def __init__(self, folders: Sequence[Path], database: SqliteStore) -> None:
        self._folders = folders
        self._database = database
        self._problems: tuple[str, ...] = ()
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start to look regularly."""
        self._task = asyncio.create_task(self._look_regularly())

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def problems(self) -> Sequence[str]:
        """What is wrong now: one sentence each, with the name of the file or folder and without its
        path."""
        async with self._looking:
            if time.monotonic() - self._looked_at > FRESH_S:
                await self._look()
        return self._problems

    async def _look_regularly(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.problems()

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._look_at_folders)
        if problem := await self._database.problem():
            found.append(problem)
        for problem in found:
            if problem not in self._problems:
                log.error("problem in the state folder: %s", problem)
        self._problems = tuple(found)
        self._looked_at = time.monotonic()

    def _look_at_folders(self) -> list[str]:
        found = []
        for folder in self._folders:
            name = folder.name
            try:
                if not folder.is_dir():
                    make_folder(folder)
                    log.error("'%s' in the state folder was removed; it is made again", name)
                if not os.access(folder, os.W_OK | os.X_OK):
                    found.append(f"'{name}' in the state folder cannot be written")
            except OSError as error:
                reason = (error.strerror or "disk error").lower()
                found.append(f"'{name}' in the state folder cannot be made: {reason}")
        return found
