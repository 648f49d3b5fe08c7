"""What all tests share: free ports, and waiting until something is so."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

# For what takes a moment on an idle machine. It is long, so that a busy machine fails no test, and
# costs nothing where the tests pass.
LIMIT_S = 120.0


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


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
