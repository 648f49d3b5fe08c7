"""Has the GPU's driver suspend and resume processes, through one helper (`driver_helper.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from router.models.memory import SLACK_BYTES, wait_below, wait_until_free
from router.models.process_group import inherited_environment
from router.models.process_interface import SleepRefusedError

HELPER = Path(__file__).with_name("driver_helper.py")
# -I: neither the environment nor the folder changes what it imports. -S: it needs no packages.
ARGV = (sys.executable, "-I", "-S", str(HELPER))
# A call's time limit: this many times its expected time, and at least SHORTEST_LIMIT_S.
PATIENCE = 10.0
SHORTEST_LIMIT_S = 10.0
SLOW_BYTES_PER_S = 1 << 30
# CUresult: this user may not, or this driver or GPU cannot. Then no process can be suspended.
NOT_PERMITTED, NOT_SUPPORTED = 800, 801


class DriverCallError(Exception):
    """The driver would not do it. `state`: where the process is now."""

    def __init__(self, message: str, code: int, state: str) -> None:
        super().__init__(message)
        self.code = code
        self.state = state


class DriverClient:
    """`held_by`: returns the bytes that each of some processes holds on the card, without those
    that hold none. `free_bytes`: returns what is free there. `argv`: the helper's.

    The helper is started when it is first needed. After a call that did not return, or that the
    driver does not allow, nothing more is suspended: `unfit` says why.
    """

    def __init__(
        self,
        held_by: Callable[[Sequence[int]], Mapping[int, int]],
        free_bytes: Callable[[], int],
        argv: Sequence[str] = ARGV,
    ) -> None:
        self.held_by = held_by
        self._free_bytes = free_bytes
        self._argv = argv
        self._helper: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._ids = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._probed = False
        self.unfit = ""

    async def why_unfit(self) -> str:
        """Return why nothing can be suspended here; "" when nothing is known against it."""
        if not self._probed:
            try:
                await self._call("probe", None, SHORTEST_LIMIT_S)
            except (DriverCallError, OSError, TimeoutError) as error:
                self.unfit = self.unfit or str(error)
            self._probed = True
        return self.unfit

    async def suspend(self, held: Mapping[int, int]) -> None:
        """Move to main memory what these processes hold on the card: their bytes by pid. Return
        when it is measured to be free.

        Raises SleepRefusedError when the processes go on as before; after any other exception they
        have to be ended.
        """
        if why := await self.why_unfit():
            raise SleepRefusedError(why)
        pids, limit_s = list(held), _limit_s(held)
        locked: list[int] = []
        try:
            for pid in pids:
                await self._call("lock", pid, limit_s)
                locked.append(pid)
            for pid in pids:
                await self._call("checkpoint", pid, limit_s)
        except DriverCallError as error:
            if error.code in (NOT_PERMITTED, NOT_SUPPORTED):
                self.unfit = str(error)
            if len(locked) == len(pids) and (pid != pids[0] or error.state != "locked"):
                raise  # a part has been moved, or may have been
            for each in locked:
                await self._call("unlock", each, limit_s)
            raise SleepRefusedError(str(error)) from error
        await wait_below(lambda: sum(self.held_by(pids).values()), SLACK_BYTES)

    async def resume(self, held: Mapping[int, int]) -> None:
        """Undo `suspend`. Raises TimeoutError, before anything is tried, when the card has no room
        for it: the driver would leave the processes stuck. After any exception they have to be
        ended."""
        await wait_until_free(self._free_bytes, sum(held.values()) + SLACK_BYTES)
        for step in ("restore", "unlock"):
            for pid in held:
                await self._call(step, pid, _limit_s(held))

    async def close(self) -> None:
        """End the helper."""
        if self._helper is not None:
            with contextlib.suppress(ProcessLookupError):
                self._helper.kill()
            await self._helper.wait()
        if self._reader is not None:
            await self._reader

    # ---- the helper ----------------------------------------------------------------------

    async def _call(self, step: str, pid: int | None, limit_s: float) -> None:
        """Ask the helper. Raises DriverCallError; OSError when it ends; TimeoutError."""
        async with self._starting:
            # Its reader is done as soon as the helper has ended, its exit code comes later.
            if self._reader is None or self._reader.done():
                await self._start()
        assert self._helper is not None  # noqa: S101
        assert self._helper.stdin is not None  # noqa: S101
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            line = {"id": number, "do": step, **({} if pid is None else {"pid": pid})}
            self._helper.stdin.write(orjson.dumps(line) + b"\n")
            async with asyncio.timeout(limit_s):
                await self._helper.stdin.drain()
                said = await answer
        except TimeoutError as error:
            self.unfit = f"the driver did not return from '{step}'"
            raise TimeoutError(self.unfit) from error
        finally:
            del self._asked[number]
        if why := said.get("error"):
            raise DriverCallError(str(why), int(said["code"]), str(said.get("state", "")))

    async def _start(self) -> None:
        self._helper = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=inherited_environment(),
        )
        assert self._helper.stdout is not None  # noqa: S101
        self._reader = asyncio.create_task(self._read(self._helper.stdout))

    async def _read(self, lines: asyncio.StreamReader) -> None:
        while line := await lines.readline():
            said = orjson.loads(line)
            if (answer := self._asked.get(said["id"])) is not None and not answer.done():
                answer.set_result(said)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the driver's helper ended"))


def _limit_s(held: Mapping[int, int]) -> float:
    return max(PATIENCE * sum(held.values()) / SLOW_BYTES_PER_S, SHORTEST_LIMIT_S)
