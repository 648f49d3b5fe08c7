"""What all tests share: free ports, and waiting until something is so."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

# For what takes a moment on an idle machine. It is long, so that a busy machine fails no test, and
# costs nothing where the tests pass.
LIMIT_S = 120.0
PORTS = range(10_000, 32_000)  # below those that Linux gives to connections
PARTS = 16


def _own_ports() -> Iterator[int]:
    """The ports of this process of pytest-xdist, one after the other from a random one on."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PARTS
    size = len(PORTS) // PARTS
    part = PORTS[worker * size : (worker + 1) * size]
    first = random.randrange(size)
    return itertools.cycle([*part[first:], *part[:first]])


_ports = _own_ports()


def free_port() -> int:
    """A port that nothing listens on now, and that no other process of this run gets.

    Of those that the system gives, two processes that ask at once may get the same: one's client
    then speaks to the other's server.
    """
    for port in _ports:
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
