"""Starts a child in a session of its own, keeps its output, and ends it with all it has started.

That includes processes that have left the session (`worker_hook/callme_descendants.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from router.models.worker_hook.callme_descendants import START_NAME, kill_all

log = logging.getLogger(__name__)

# Limits for the kept last lines of a model. The smaller one applies.
LOG_LINES = 200
LOG_BYTES = 1 << 20
NOT_FOR_MODELS = frozenset({"SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN"})
# How long to wait for killed processes to disappear. A zombie counts as gone, because another
# process may have to reap it.
GONE_LIMIT_S = 5.0


LAST_OUTPUT_S = 0.2
# A line is kept in memory until it ends, so its length has a limit.
LONGEST_LINE = 1 << 16


OnLine = Callable[[bytes], None]


def inherited_environment() -> dict[str, str]:
    """Return the part of the router's environment that its models get.

    The router's own settings, which may contain keys, and its other secrets are left out.
    """
    return {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("CALLME_") and k not in NOT_FOR_MODELS
    }


SPOOL_NAME = "CALLME_SPOOL_DIR"


def end_left_behind(spool: Path) -> bool:
    """Kill the processes that models of an earlier router on this spool have left.

    That router and a model's server may have been killed together. False when some of the
    processes cannot be killed.
    """
    return kill_all(f"{SPOOL_NAME}={spool}")


class Output(asyncio.SubprocessProtocol):
    """Reads what a child prints, line by line, and notices its end.

    It is a protocol and not a stream, because coglet prints three lines for each prediction, and
    a stream would wake a task for each line.
    """

    def __init__(self, on_line: OnLine, longest_line: int = LONGEST_LINE) -> None:
        self.lines: deque[bytes] = deque()
        self._lines_bytes = 0
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._on_line: OnLine | None = on_line
        self._longest_line = longest_line
        self._rest = b""
        self._is_too_long = False

    def silence(self) -> None:
        """Pass on no more lines."""
        self._on_line = None

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Pass on the lines that are complete. A line that is too long is left out."""
        first, *more = data.split(b"\n")
        self._rest += first
        for start in more:
            if not self._is_too_long:
                self.keep(self._rest + b"\n")
            self._rest, self._is_too_long = start, False
        if len(self._rest) > self._longest_line:
            self._rest, self._is_too_long = b"", True

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Pass on the last line, which may have no line break."""
        if self._rest and not self._is_too_long:
            self.keep(self._rest)
        self._rest = b""
        self.ended.set_result(None)

    def process_exited(self) -> None:
        """Note that the child has ended."""
        self.exited.set_result(None)

    def keep(self, line: bytes) -> None:
        """Keep the line, as one of the last ones, and pass it on."""
        if self._on_line is None:
            return
        self.lines.append(line)
        self._lines_bytes += len(line)
        while len(self.lines) > LOG_LINES or self._lines_bytes > LOG_BYTES:
            self._lines_bytes -= len(self.lines.popleft())
        self._on_line(line)


class ProcessGroup:
    """The child and all its descendants. `spawn` makes one."""

    def __init__(self, child: asyncio.SubprocessTransport, output: Output, token: str) -> None:
        self._child = child
        self._output = output
        self._token = token
        self._pid = child.get_pid()
        # All descendants seen so far. One may leave the session and clear its environment.
        self._seen: dict[int, psutil.Process] = {}

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        on_line: OnLine,
        longest_line: int = LONGEST_LINE,
    ) -> ProcessGroup:
        """Start `argv` as the leader of a new session.

        `on_line` is called with each line that it prints, except those longer than `longest_line`
        bytes. Raises OSError when it cannot be started.
        """
        token = secrets.token_hex(16)
        child, output = await asyncio.get_running_loop().subprocess_exec(
            lambda: Output(on_line, longest_line),
            *argv,
            cwd=cwd,
            env={**env, START_NAME: token},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        return cls(child, output, token)

    @property
    def lines(self) -> Sequence[bytes]:
        """The last lines that it printed, oldest first."""
        return self._output.lines

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Add lines that it has written elsewhere to those that it printed."""
        for line in lines:
            self._output.keep(line)

    async def wait(self) -> str:
        """Wait until the leader has ended, and return how it ended, in words."""
        await asyncio.wait({self._output.exited})
        # Its last output may still be in the pipe. A process that it started may hold the pipe
        # open, so this wait has a limit.
        await asyncio.wait({self._output.ended}, timeout=LAST_OUTPUT_S)
        code = self._child.get_returncode() or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def end(self, grace_s: float) -> None:
        """Send SIGTERM to the group, and after `grace_s` seconds SIGKILL to it and all descendants.

        Return when all are gone. Raises TimeoutError when the group is not gone GONE_LIMIT_S
        seconds after SIGKILL.
        """
        self.pids()
        if grace_s > 0:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace_s)
        # Always, because processes that the leader started may outlive it.
        self._signal(signal.SIGKILL)
        await self.wait()
        async with asyncio.timeout(GONE_LIMIT_S):
            while self._is_alive():
                await asyncio.sleep(0.01)
        if not await asyncio.to_thread(self._kill_the_rest):
            log.error("cannot end processes that a model has started", extra={"leader": self._pid})
        self._output.silence()
        self._child.close()

    def pids(self) -> list[int]:
        """Return the leader and its descendants, the leader first; empty when it has ended."""
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self._pid)
            below = leader.children(recursive=True)
            self._seen = {pid: p for pid, p in self._seen.items() if p.is_running()}
            self._seen.update((p.pid, p) for p in below)
            return [leader.pid, *(p.pid for p in below)]
        return []

    def child_pids(self) -> list[int]:
        """Return the processes that the leader itself has started."""
        with contextlib.suppress(psutil.Error):
            return [p.pid for p in psutil.Process(self._pid).children()]
        return []

    def _kill_the_rest(self) -> bool:
        for p in self._seen.values():
            with contextlib.suppress(psutil.Error):
                p.kill()  # psutil spares another process that has the same pid by now
        return kill_all(f"{START_NAME}={self._token}")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _is_alive(self) -> bool:
        pgid = self._pid
        try:
            os.killpg(pgid, 0)
        except ProcessLookupError:
            return False
        for p in psutil.process_iter(["status"]):
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(p.pid) == pgid and p.info["status"] != psutil.STATUS_ZOMBIE:
                    return True
        return False
