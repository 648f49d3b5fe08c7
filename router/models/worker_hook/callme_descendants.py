"""Finds all that a model's process has started, even what has left its session and its parents.

A process that makes itself a daemon has another session, another group, and the reaper as its
parent. But it keeps its environment: each start of a model has its own token there, and the kernel
shows the environment in /proc. A process that also clears its environment is found below the
model's server as long as its parents live. This uses the standard library only, because the hook
in a model's server uses it too.
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
    """Return a /proc file of the process; b"" when it has ended or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_marked(pid: int, mark: str) -> bool:
    """Whether `mark`, a NAME=value, is in the environment of the process."""
    return mark.encode() in read(pid, "environ").split(b"\0")


def parents() -> dict[int, int]:
    """Return the parent of each process that lives. A zombie does not live."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, and often
        if name.isdigit():
            # "pid (any name) state parent …"
            fields = read(int(name), "stat").rpartition(b")")[2].split()
            if len(fields) > 1 and fields[0] not in (b"Z", b"X"):
                found[int(name)] = int(fields[1])
    return found


def find(mark: str, roots: Iterable[int] = ()) -> set[int]:
    """Return the living processes that have the mark, and all descendants of these and of `roots`.

    The roots themselves are left out.
    """
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
    """kill -9 all processes that `find` finds, except `spare`, until there are none.

    False when there are still some after `limit_s` seconds.
    """
    until = time.monotonic() + limit_s
    while left := find(mark, roots).difference(spare):
        if time.monotonic() > until:
            return False
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE_S)
    return True
