"""The driver's checkpoints without a GPU: strict about their order, and it counts every byte.

    python driver_stand_in.py BOOKS

serves as `router/models/driver_helper.py` does, with this library in place of libcuda. A process
that is locked is really stopped. The books are a file, so that a test sees and changes them.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from router.models import driver_helper

INVALID_VALUE, OUT_OF_MEMORY, ILLEGAL_STATE, NOT_READY = 1, 2, 401, 600


class Books:
    """What is free on the card, what each process holds there, and what shall go wrong: a code by
    the call's name, -1 to never return."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, **values: Any) -> None:
        """Change them, at once for every reader."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({**self.read(), **values}))
        new.replace(self.path)

    def read(self) -> dict[str, Any]:
        """All of them."""
        empty = {"free": 0, "held": {}, "moved": {}, "state": {}, "wrong": {}, "calls": []}
        return {**empty, **(json.loads(self.path.read_text()) if self.path.exists() else {})}

    def held_by(self, pids: Any) -> dict[int, int]:
        """As NVML tells it."""
        held = self.read()["held"]
        return {pid: held[str(pid)] for pid in pids if held.get(str(pid))}

    def free_bytes(self) -> int:
        """As NVML tells it."""
        return int(self.read()["free"])


class Library:
    """libcuda."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.version = 12080
        self.began = False
        self._lock = threading.Lock()

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name
        """Once is enough."""
        assert flags == 0
        self.began = True
        return 0

    def cuDriverGetVersion(self, found: Any) -> int:  # noqa: N802 - its name
        """`version`."""
        found._obj.value = self.version
        return 0

    def cuCheckpointProcessGetState(self, pid: ctypes.c_int, found: Any) -> int:  # noqa: N802 - its name
        """In the driver's numbers."""
        state = self.books.read()["state"].get(str(pid.value), "running")
        found._obj.value = driver_helper.STATES.index(state)
        return 0

    def cuCheckpointProcessLock(self, pid: ctypes.c_int, arguments: Any) -> int:  # noqa: N802 - its name
        """With a time limit, in a struct of 64 bytes."""
        assert ctypes.sizeof(arguments) == 64
        assert list(arguments) == [driver_helper.LOCK_TIMEOUT_MS] + [0] * 15
        return self.step("Lock", pid.value, "running", "locked")

    def cuCheckpointProcessCheckpoint(self, pid: ctypes.c_int, arguments: None) -> int:  # noqa: N802 - its name
        """What it held becomes free."""
        return self.step("Checkpoint", pid.value, "locked", "checkpointed")

    def cuCheckpointProcessRestore(self, pid: ctypes.c_int, arguments: None) -> int:  # noqa: N802 - its name
        """It needs what it held. Without room the process is lost."""
        assert self.began, "a restore needs cuInit"
        return self.step("Restore", pid.value, "checkpointed", "locked")

    def cuCheckpointProcessUnlock(self, pid: ctypes.c_int, arguments: None) -> int:  # noqa: N802 - its name
        """It goes on."""
        return self.step("Unlock", pid.value, "locked", "running")

    def step(self, name: str, pid: int, before: str, after: str) -> int:
        """One move, if it is in order."""
        with self._lock:
            code, change = self.judge(name, str(pid), before, after)
            if code == 0 and name == "Lock":
                os.kill(pid, signal.SIGSTOP)
            if code == 0 and name == "Unlock":
                os.kill(pid, signal.SIGCONT)
            self.books.write(**change)
        if code < 0:
            time.sleep(1000)
        return code

    def judge(self, name: str, pid: str, before: str, after: str) -> tuple[int, dict[str, Any]]:
        """The code, and how the books change."""
        b = self.books.read()
        calls = [*b["calls"], [name, int(pid)]]
        if code := b["wrong"].get(name, b["wrong"].get(f"{name} {pid}", 0)):
            return code, {"calls": calls}
        if b["state"].get(pid, "running") != before:
            return ILLEGAL_STATE, {"calls": calls}
        held, moved, free = dict(b["held"]), dict(b["moved"]), b["free"]
        if name == "Checkpoint":
            moved[pid] = held.pop(pid)
            free += moved[pid]
        if name == "Restore":
            if moved[pid] > free:
                return OUT_OF_MEMORY, {"calls": calls, "state": {**b["state"], pid: "failed"}}
            held[pid] = moved.pop(pid)
            free -= held[pid]
        state = {**b["state"], pid: after}
        return 0, {"calls": calls, "state": state, "held": held, "moved": moved, "free": free}


def argv(books: Books) -> tuple[str, ...]:
    """Of a helper with this driver."""
    return (sys.executable, __file__, str(books.path))


if __name__ == "__main__":
    stand_in = driver_helper.Driver(Library(Books(Path(sys.argv[1]))))
    driver_helper.serve(stand_in, sys.stdin, driver_helper.write_out)
    os._exit(0)
