"""All that a model's process has started, also what has left its session and its parents.

A process that makes itself a daemon has another session, another group, and no parent but the
reaper. What it keeps is its environment: each start of a model has a token of its own there, and
the kernel shows it in /proc. What clears its environment too is found as long as its parents live,
below the model's server. Standard library only: the hook in a model's server uses this too.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

START_NAME = "CALLME_START"
PAUSE_S = 0.01


def read(pid: int, name: str) -> bytes:
    """A file of the process; b"" when it has ended, or is somebody else's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_marked(pid: int, mark: str) -> bool:
    """Whether `mark`, a NAME=value, is in its environment."""
    return mark.encode() in read(pid, "environ").split(b"\0")


def parents() -> dict[int, int]:
    """The parent of each process that lives; a zombie does not."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, and often
        if name.isdigit():
            # "pid (any name) state parent …"
            fields = read(int(name), "stat").rpartition(b")")[2].split()
            if len(fields) > 1 and fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
    return found


def find(mark: str, roots: Iterable[int] = ()) -> set[int]:
    """What lives and has the mark, or descends from that or from one of `roots`, those left
    out."""
    parent_of = parents()
    found = {pid for pid in parent_of if is_marked(pid, mark)}
    known = {*found, *roots}
    while more := {pid for pid, parent in parent_of.items() if parent in known} - known:
        known |= more
        found |= more
    return found - set(roots)


def kill_all(
    mark: str, roots: Iterable[int] = (), *, spare: Collection[int] = (), limit_s: float = 5.0
) -> bool:
    """kill -9 all that `find` finds, less `spare`, until there is none; False when there is some
    after so long."""
    until = time.monotonic() + limit_s
    while left := find(mark, roots).difference(spare):
        if time.monotonic() > until:
            return False
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)
    return True
