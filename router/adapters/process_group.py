"""A child in a session of its own: started, its output kept, and ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

LOG_LINES = 200
NOT_FOR_MODELS = frozenset({"SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN"})
# A killed process that is not ours to reap may stay a zombie; this long is waited for others.
GONE_LIMIT_S = 5.0


OnLine = Callable[[bytes], None]


def inherited_environment() -> dict[str, str]:
    """The router's environment as its models get it: less its own settings, which may hold keys,
    and the secrets of what else it does."""
    return {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("CALLME_") and k not in NOT_FOR_MODELS
    }


class ProcessGroup:
    """The child and everything below it. Made by `spawn`."""

    def __init__(self, child: asyncio.subprocess.Process, on_line: OnLine) -> None:
        self._child = child
        self._on_line = on_line
        self.lines: deque[bytes] = deque(maxlen=LOG_LINES)
        self._reader = asyncio.create_task(self._read_output())

    @classmethod
    async def spawn(
        cls, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], on_line: OnLine
    ) -> ProcessGroup:
        """Start `argv` as the leader of a new session, and call `on_line` with each line that
        it prints. Raises OSError."""
        child = await asyncio.create_subprocess_exec(
            *argv,
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(child, on_line)

    async def wait(self) -> str:
        """How the leader ended, in words, once it has."""
        code = await self._child.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def end(self, grace_s: float) -> None:
        """SIGTERM the group, after `grace_s` seconds SIGKILL it; return when it is gone."""
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), grace_s)
        # Always: what the leader started may outlive it.
        self._signal(signal.SIGKILL)
        await self._child.wait()
        async with asyncio.timeout(GONE_LIMIT_S):
            while self._is_alive():
                await asyncio.sleep(0.01)
        self._reader.cancel()

    def pids(self) -> list[int]:
        """The leader and its descendants, the leader first; empty when it has ended."""
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self._child.pid)
            return [leader.pid, *(p.pid for p in leader.children(recursive=True))]
        return []

    def child_pids(self) -> list[int]:
        """The processes that the leader itself has started."""
        with contextlib.suppress(psutil.Error):
            return [p.pid for p in psutil.Process(self._child.pid).children()]
        return []

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _is_alive(self) -> bool:
        pgid = self._child.pid
        try:
            os.killpg(pgid, 0)
        except ProcessLookupError:
            return False
        for p in psutil.process_iter(["status"]):
            with contextlib.suppress(ProcessLookupError, psutil.Error):
                if os.getpgid(p.pid) == pgid and p.info["status"] != psutil.STATUS_ZOMBIE:
                    return True
        return False

    async def _read_output(self) -> None:
        assert self._child.stdout is not None, "spawned with a pipe"  # noqa: S101
        while True:
            try:
                line = await self._child.stdout.readline()
            except ValueError:  # a line longer than the buffer; it has been dropped
                continue
            if not line:
                return
            self.lines.append(line)
            self._on_line(line)
