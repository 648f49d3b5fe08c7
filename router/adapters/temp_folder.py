"""The TMPDIR of one model's processes: nobody else's, and emptied of what predictions leave."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

# The kernel stamps files with the time of its last tick (1 to 10 ms): a change within the same
# tick as one already seen does not show.
TICK_NS = 50_000_000


class TempFolder:
    """A folder, not there until `make`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: set[str] = set()
        self._seen_ns = 0  # the folder's time stamp when there was nothing to remove

    def make(self) -> None:
        """Create it, for this user's eyes only. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True)

    def keep_present(self) -> None:
        """What is in it now stays until the end: a model's set-up has made it."""
        self._kept = {entry.name for entry in os.scandir(self.path)}

    def sweep(self) -> None:
        """Remove what has come since. Nearly always there is nothing, and one look tells."""
        changed_ns = self.path.stat().st_mtime_ns
        if changed_ns == self._seen_ns:
            return
        for entry in os.scandir(self.path):
            if entry.name in self._kept:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                # Left for the next time, or the end of the process, if the disk will not.
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
        if time.time_ns() - changed_ns > TICK_NS:
            self._seen_ns = changed_ns

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
