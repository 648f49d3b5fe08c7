"""The TMPDIR of one model's processes: nobody else's, and emptied of what predictions leave."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

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
        """Create it, for this user's eyes only, if it is not there. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def see_to_it(self) -> None:
        """Create it again where somebody has removed it: 1 µs where nobody has."""
        if not os.path.exists(self.path):  # noqa: PTH110 - pathlib's takes three times as long
            self._look(self._keep)

    def keep_present(self) -> None:
        """What is in it now stays until the end: a model's set-up has made it."""
        self._look(self._keep)

    def sweep(self) -> None:
        """Remove what has come since. Nearly always there is nothing, and one look tells.

        Somebody may have removed the folder, a program that cleans up /tmp, say: it is made
        again. What the disk does not let be done is no fault of the prediction that has ended.
        """
        self._look(self._remove_new)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _look(self, work: Callable[[], None]) -> None:
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
                # Left for the next time, or the end of the process, if the disk will not.
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()
        if time.time_ns() - changed_ns > TICK_NS:
            self._seen_ns = changed_ns
