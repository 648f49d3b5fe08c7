"""Suspends other processes on the GPU and resumes them, by the CUDA driver's own checkpoints.

A process of its own, because a call may never return (the router kills this one then) and because
it must not be the process that is suspended. Standard library only. One line of JSON comes in, one
goes out; requests run beside each other, so the answers have the request's `id`:

    {"id": 1, "do": "probe" | "lock" | "checkpoint" | "restore" | "unlock", "pid": …}
    {"id": 1} or {"id": 1, "error": "what failed", "code": CUresult, "state": "running" | …}

The driver's rules (cuda.h, "Checkpointing"): running, lock, locked, checkpoint, checkpointed,
restore, locked, unlock, running. A checkpoint copies all that the process has on its GPUs to its
main memory. A restore without enough free memory leaves the process stuck, and only its end helps.
"""

import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

LIBRARY = "libcuda.so.1"
STEPS = ("Lock", "Checkpoint", "Restore", "Unlock")
# The first version of the driver with these calls: 12.8, of the 570 drivers.
NEEDED_VERSION = 12080
# A kernel that runs longer than this is not interrupted: then the process stays as it is.
LOCK_TIMEOUT_MS = 5000
STATES = ("running", "locked", "checkpointed", "failed")


class DriverError(Exception):
    """A call of the driver failed with this CUresult."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: error {code}")
        self.code = code


class Driver:
    """The five calls. `library`: libcuda, or what a test has in its place."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def probe(self) -> None:
        """Raise DriverError or AttributeError when the driver has no checkpoints."""
        if self._library is None:
            raise AttributeError(f"{LIBRARY} cannot be loaded")
        for name in (*STEPS, "GetState"):
            getattr(self._library, f"cuCheckpointProcess{name}")
        self._call("cuInit", 0)  # a restore needs it
        version = ctypes.c_int(0)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        if version.value < NEEDED_VERSION:
            raise AttributeError(f"its version is {version.value}, {NEEDED_VERSION} is needed")

    def step(self, name: str, pid: int) -> None:
        """Do one of STEPS. Raises DriverError."""
        # CUcheckpointLockArgs: 64 bytes, the first four are the time limit in ms, the rest 0. The
        # others take no arguments that are needed here.
        arguments = (ctypes.c_uint * 16)(LOCK_TIMEOUT_MS) if name == "Lock" else None
        self._call(f"cuCheckpointProcess{name}", ctypes.c_int(pid), arguments)

    def state(self, pid: int) -> str:
        """Return where a process is; "unknown" when the driver does not say."""
        found = ctypes.c_int(-1)
        call = self._library.cuCheckpointProcessGetState
        if call(ctypes.c_int(pid), ctypes.byref(found)) or not 0 <= found.value < len(STATES):
            return "unknown"
        return STATES[found.value]

    def _call(self, name: str, *arguments: Any) -> None:
        if code := int(getattr(self._library, name)(*arguments)):
            raise DriverError(name, code)


def answer(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Do what one request asks for."""
    said: dict[str, Any] = {"id": request["id"]}
    try:
        if request["do"] == "probe":
            driver.probe()
        else:
            driver.step(request["do"].capitalize(), request["pid"])
    except DriverError as error:
        said |= {"error": str(error), "code": error.code}
        if "pid" in request:
            said["state"] = driver.state(request["pid"])
    except AttributeError as error:
        said |= {"error": f"the driver has no checkpoints: {error}", "code": 0}
    return said


def serve(driver: Driver, lines: Iterable[str], write: Callable[[str], object]) -> None:
    """Answer each line in a thread of its own, until there are no more."""
    for line in lines:
        request = json.loads(line)
        threading.Thread(
            target=lambda asked=request: write(json.dumps(answer(driver, asked)) + "\n"),
            daemon=True,
        ).start()


def write_out(line: str) -> None:
    """Write a whole line at once: several threads do."""
    os.write(sys.stdout.fileno(), line.encode())


def main() -> None:
    """Serve until the router goes away. Without a driver, say so to each request."""
    try:
        library: Any = ctypes.CDLL(LIBRARY)
    except OSError:
        library = None
    serve(Driver(library), sys.stdin, write_out)
    os._exit(0)  # a call that never returns must not keep this process


if __name__ == "__main__":
    main()
