"""The TMPDIR of one model's processes. Only they use it, and it is emptied after predictions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

log = logging.getLogger(__name__)

# The kernel stamps files with the time of its last tick (1 to 10 ms). So a second change within
# the same tick does not show.
TICK_NS = 50_000_000
# Between quick predictions the folder is looked at this often: a sandboxed system takes 0.1 ms.
LOOK_EVERY_S = 0.05

# coglet 0.23.1 makes a folder here for each prediction, whatever TMPDIR is, and never deletes it.
COGLET_FOLDERS = Path("/tmp/coglet/predictions")  # noqa: S108
REST_S = 1.0
# A limit, because a router that is killed cannot delete folders that are still to be deleted.
MAX_LEFT_BEHIND = 2000


class TempFolder:
    """A folder that does not exist until `make` is called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: set[str] = set()
        self._seen_ns = 0  # the folder's time stamp when there was nothing to remove
        self._looked_at = 0.0

    def make(self) -> None:
        """Create the folder, for this user only, if it does not exist.

        Raises OSError when that fails.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def ensure_exists(self) -> None:
        """Create the folder again if another program has removed it since the last look."""
        if self._is_due and not self.path.exists():
            self._look(self._keep)

    def keep_present(self) -> None:
        """Keep what is in it now until the end, because a model's set-up has made it."""
        self._look(self._keep)

    def sweep(self) -> None:
        """Remove what has been added since. Nearly always there is nothing, and one stat shows it.

        A program that cleans up /tmp may have removed the folder; then it is made again. An error
        of the disk is logged and not raised: the prediction that has ended is not to blame.
        """
        self._look(self._remove_new)

    def sweep_if_due(self) -> None:
        """As `sweep`, unless the folder has been looked at within LOOK_EVERY_S. Called after each
        prediction. When no more come, `sweep` removes the rest."""
        if self._is_due:
            self.sweep()

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._looked_at > LOOK_EVERY_S

    def read(self, name: str) -> bytes:
        """Return the first MiB of a file in it; b"" when there is none."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(1 << 20)
        except OSError:
            return b""

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _look(self, work: Callable[[], None]) -> None:
        self._looked_at = time.monotonic()
        try:
            work()
        except FileNotFoundError:
            log.warning("a model's temporary folder was removed", extra={"folder": self.path.name})
            with contextlib.suppress(OSError):
                self.make()
        except OSError as error:
            reason = error.strerror
            log.error(
                "a model's temporary folder cannot be read",
                extra={"folder": self.path.name, "reason": reason},
            )

    def _keep(self) -> None:
        self._kept = {entry.name for entry in os.scandir(self.path)}

    def _remove_new(self) -> None:
        changed_ns = self.path.stat().st_mtime_ns
        if changed_ns == self._seen_ns:
            return
        for entry in os.scandir(self.path):
            if entry.name in self._kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                # If this fails, the next sweep or the end of the process tries again.
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
        if time.time_ns() - changed_ns > TICK_NS:
            self._seen_ns = changed_ns


class LeftBehind:
    """Deletes the folders that coglet makes for each prediction and never deletes itself.

    They are deleted when the model has been idle for REST_S, or when there are many. Measured: a
    journaling disk takes 0.2 ms for each, and meanwhile coglet waits to make the next one.
    """

    def __init__(self, at_rest: Callable[[], None]) -> None:
        """at_rest: called then, too."""
        self._at_rest = at_rest
        self._ids: list[str] = []
        self._added_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def add(self, prediction_id: str) -> None:
        """Note that this prediction has ended."""
        self._ids.append(prediction_id)
        self._added_at = time.monotonic()
        if self._task is None:
            self._task = asyncio.create_task(self._remove())

    async def close(self) -> None:
        """Delete all of them now."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await asyncio.to_thread(_remove_folders, self._ids)

    async def _remove(self) -> None:
        while self._ids:
            await asyncio.sleep(REST_S)
            is_at_rest = time.monotonic() - self._added_at >= REST_S
            if is_at_rest:
                self._at_rest()
            if is_at_rest or len(self._ids) >= MAX_LEFT_BEHIND:
                ids = self._ids.copy()
                await asyncio.to_thread(_remove_folders, ids)
                del self._ids[: len(ids)]
        self._task = None


def _remove_folders(prediction_ids: Iterable[str]) -> None:
    """Delete what coglet has made for these predictions.

    In most cases that is three empty folders each. `rmdir` removes them in a fraction of the time
    that a walk takes.
    """
    for prediction_id in prediction_ids:
        folder = COGLET_FOLDERS / prediction_id
        try:
            (folder / "inputs").rmdir()
            (folder / "outputs").rmdir()
            folder.rmdir()
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
