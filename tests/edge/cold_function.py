"""A function that is started by its first call, as the hosted platform starts an idle one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deno_server import EdgeFunction, edge_process

Secrets = Callable[[], Mapping[str, str]]


class ColdFunction:
    """Call it for an address. `boots`: each process so far, oldest first.

    A process has the secrets of the moment it was started. When they are others, the next call
    starts another process; calls that the older one still answers are not cut off.
    """

    def __init__(self, folder: Path, secrets: Secrets, stack: ExitStack) -> None:
        self.boots: list[EdgeFunction] = []
        self._folder, self._secrets, self._stack = folder, secrets, stack
        self._booted_with: Mapping[str, str] = {}
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The address of a process with the present secrets."""
        with self._lock:
            now = dict(self._secrets())
            if not self.boots or now != self._booted_with:
                process = edge_process(now, folder=self._folder)
                self.boots.append(self._stack.enter_context(process))
                self._booted_with = now
            return self.boots[-1].url


@contextmanager
def cold_function(folder: Path, secrets: Secrets) -> Iterator[ColdFunction]:
    """The function in `folder`, which does not run yet."""
    with ExitStack() as stack:
        yield ColdFunction(folder, secrets, stack)
