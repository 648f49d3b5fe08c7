"""What all tests share: free ports, and waiting until something is so."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import itertools
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

# For what takes a moment on an idle machine. It is long, so that a busy machine fails no test, and
# costs nothing where the tests pass.
LIMIT_S = 120.0
# Above those of Ray's workers, and below those that Linux gives to connections.
PORTS = range(20_000, 32_000)
PARTS = 40
_held: list[IO[str]] = []  # while its file is open, a part is this process's own


@functools.cache
def _own_ports() -> Iterator[int]:
    """The ports of this process, one after the other from a random one on. Another process of
    pytest, also of another run at the same time, has others."""
    size = len(PORTS) // PARTS
    for number in itertools.cycle(range(PARTS)):
        with contextlib.suppress(OSError):  # another user's
            file = (Path(tempfile.gettempdir()) / f"callme-test-ports-{number}").open("w")
            if _is_locked(file):
                _held.append(file)
                part = PORTS[number * size : (number + 1) * size]
                first = random.randrange(size)
                return itertools.cycle([*part[first:], *part[:first]])
        time.sleep(0.001)
    raise AssertionError("unreachable: a cycle does not end")


def _is_locked(file: IO[str]) -> bool:
    """Whether it is this process's now. If it is another's, it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    return True


def free_port() -> int:
    """A port that nothing listens on now, and that no other process of pytest gets.

    Of those that the system gives, two processes that ask at once may get the same: one's client
    then speaks to the other's server.
    """
    for port in _own_ports():
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports come round again")


def wait_until(condition: Callable[[], object], timeout_s: float = LIMIT_S) -> Any:
    """Poll until the condition is true and return its value; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {condition}")
        time.sleep(0.02)


async def until(condition: Callable[[], object], timeout_s: float = LIMIT_S) -> None:
    """Let tasks run until the condition is true; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        await asyncio.sleep(0.001)
