"""Asks a model's worker to sleep and to wake, through the socket of its hook.

`router/models/worker_hook/callme_sleep/control.py` is the other side. Each command has a time
limit. When something goes wrong before any memory was freed, the process is as it was
(SleepRefusedError). When memory may have been freed, it has to be stopped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from router.models.memory import SLACK_BYTES, NotMeasuredError, wait_below
from router.models.process_interface import Copied, SleepRefusedError, Slept, Woken

# A thread of the package may go on for some moments after an answer.
BUSY_LIMIT_S = 2.0
BUSY_POLL_S = 0.02
CONNECT_LIMIT_S = 5.0
# A command's time limit: this many times its expected time, and at least SHORTEST_LIMIT_S.
PATIENCE = 10.0
SHORTEST_LIMIT_S = 10.0
# Assumed until it was measured: less than any PCIe link with 16 lanes carries.
SLOW_BYTES_PER_S = 1 << 30


class SleepClient:
    """The first level of `router.models.sleep_levels.TwoLevelSleeper`: the worker hook.

    `socket_path`: of the hook's socket. `pids`: the model's processes now. `measure`: the bytes
    that these hold in the memory that models share. `command_lock`: each command and each health
    check holds it, so that only one of them runs at a time.
    """

    def __init__(
        self,
        socket_path: Path,
        pids: Callable[[], Sequence[int]],
        measure: Callable[[Sequence[int]], int],
        command_lock: asyncio.Lock,
    ) -> None:
        self._path = socket_path
        self._pids = pids
        self._measure = measure
        self._command_lock = command_lock
        self.asleep = False  # whether it is, or may be
        self._bytes = 0  # on the device, as far as the hook has said
        self.host_bytes = 0  # of main memory that its copies take, awake or asleep
        self._wake_s: float | None = None

    async def stage(self, limit_bytes: int) -> Copied:
        """See `router.models.process_interface.Sleeper`."""
        async with self._command_lock:
            answer = await self._try("stage", limit_bytes, self._held())
            return self._copied(answer)

    async def sleep(self, limit_bytes: int) -> Slept:
        """See `router.models.process_interface.Sleeper`."""
        async with self._command_lock:
            held = self._held()
            self.asleep = True
            try:
                answer = await self._when_at_rest("sleep", limit_bytes, held)
            except SleepRefusedError:
                self.asleep = False
                raise
            copied = self._copied(answer)
            residue = None
            if held:
                # More may be free than what was counted, but not less.
                limit = max(held - copied.freed_bytes, 0) + SLACK_BYTES
                residue = await wait_below(self._held_at_least_some, limit)
            return Slept(copied, residue_bytes=residue)

    async def wake(self) -> Woken:
        """See `router.models.process_interface.Sleeper`."""
        async with self._command_lock:
            likely_s = self._wake_s or self._bytes / SLOW_BYTES_PER_S
            async with asyncio.timeout(max(PATIENCE * likely_s, SHORTEST_LIMIT_S)):
                answer = await self._ask({"do": "wake"})
            self.asleep = False
            self._wake_s = float(answer["seconds"])
            return Woken(int(answer["copied_bytes"]), self._wake_s)

    def _held(self) -> int:
        return self._measure(self._pids())

    def _held_at_least_some(self) -> int:
        """What it holds asleep. A process that lives always holds something (its CUDA context), so
        0 means that this could not be read. Raises NotMeasuredError."""
        if held := self._held():
            return held
        raise NotMeasuredError("what it holds asleep cannot be measured")

    async def _when_at_rest(self, word: str, limit_bytes: int, held: int) -> Mapping[str, Any]:
        """Try it until no thread of the process is at work, for BUSY_LIMIT_S at most."""
        until = time.monotonic() + BUSY_LIMIT_S
        while True:
            try:
                return await self._try(word, limit_bytes, held)
            except SleepRefusedError as error:
                if not error.again or time.monotonic() > until:
                    raise
            await asyncio.sleep(BUSY_POLL_S)

    async def _try(self, word: str, limit_bytes: int, held: int) -> Mapping[str, Any]:
        """Ask for a copy or a sleep. Raises SleepRefusedError when nothing has been touched, and
        ConnectionError or TimeoutError when that is not known.

        `held`: what the model's processes hold, 0 when it is not known. No more than that is
        copied."""
        most = self._bytes or min(held or limit_bytes, limit_bytes)
        limit_s = max(PATIENCE * most / SLOW_BYTES_PER_S, SHORTEST_LIMIT_S)
        async with asyncio.timeout(limit_s):
            return await self._ask({"do": word, "limit_bytes": limit_bytes})

    def _copied(self, answer: Mapping[str, Any]) -> Copied:
        self._bytes, self.host_bytes = int(answer["device_bytes"]), int(answer["host_bytes"])
        return Copied(
            host_bytes=self.host_bytes,
            freed_bytes=self._bytes,
            copied_bytes=int(answer["copied_bytes"]),
            seconds=float(answer["seconds"]),
        )

    async def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one request and return the answer. Raises SleepRefusedError for a refusal, or when
        the hook cannot be reached; ConnectionError when it goes away before its answer."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                reader, writer = await _connect(self._path)
        except (OSError, TimeoutError) as error:
            raise SleepRefusedError(f"its hook does not answer: {error}") from error
        try:
            writer.write(orjson.dumps(request) + b"\n")
            await writer.drain()
            line = await reader.readline()
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise ConnectionError("its process ended")
        answer: Mapping[str, Any] = orjson.loads(line)
        if refused := answer.get("refused"):
            raise SleepRefusedError(str(answer.get("why", "")), again=refused == "busy")
        return answer


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket whose path may be longer than a socket's address may be."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
