"""What a model's process is given of the router's surroundings, and what is read of it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import psutil
import pytest

from router.models.process_group import (
    LOG_LINES,
    LONGEST_LINE,
    Output,
    ProcessGroup,
    inherited_environment,
)

pytestmark = pytest.mark.slow


def test_no_secret_of_the_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings, which may hold keys, and the tokens of what else it does stay with it."""
    for name in ("CALLME_KEYS", "SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HF_HOME", "/models")
    given = inherited_environment()
    assert "secret" not in given.values()
    assert given["HF_HOME"] == "/models"


async def run(program: str, lines: list[bytes]) -> str:
    """How a program of one line ended; what it printed goes to `lines`."""
    group = await ProcessGroup.spawn(
        [sys.executable, "-c", program], cwd=Path(), env={}, on_line=lines.append
    )
    try:
        return await asyncio.wait_for(group.wait(), 60)
    finally:
        await group.end(0)


async def test_what_it_says_last_is_read_before_its_end_is_told() -> None:
    """Both streams; a last line without an end too."""
    lines: list[bytes] = []
    program = "import sys; print('one'); sys.stdout.flush(); sys.stderr.write('two'); sys.exit(3)"
    assert await run(program, lines) == "exit code 3"
    assert lines == [b"one\n", b"two"]


async def test_the_end_is_told_though_a_child_holds_the_pipe() -> None:
    """A server that dies leaves its worker behind, which may print no more and never end."""
    lines: list[bytes] = []
    program = (
        "import os, subprocess, sys, time; print('bye', flush=True);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "os.kill(os.getpid(), 9)"
    )
    assert await run(program, lines) == "signal 9"
    assert lines == [b"bye\n"]


async def test_lines_however_they_are_cut() -> None:
    """The same bytes give the same lines, in one piece or in many."""
    text = b"a\n\nbc\nlast"
    for size in range(1, len(text) + 1):
        lines: list[bytes] = []
        output = Output(lines.append)
        for start in range(0, len(text), size):
            output.pipe_data_received(1, text[start : start + size])
        output.pipe_connection_lost(1, None)
        assert lines == [b"a\n", b"\n", b"bc\n", b"last"]


async def test_a_line_without_end_is_left_out() -> None:
    """It does not fill the memory, and the next one is whole."""
    lines: list[bytes] = []
    output = Output(lines.append)
    for _ in range(100):
        output.pipe_data_received(1, b"x" * (LONGEST_LINE // 3))
    output.pipe_data_received(1, b"the rest of it\nnext\n")
    assert lines == [b"next\n"]
    for number in range(2 * LOG_LINES):
        output.pipe_data_received(1, b"%d\n" % number)
    assert len(output.lines) == LOG_LINES


DAEMON = """
import os, subprocess, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(120)
    os._exit(0)
os.wait()
time.sleep(120)
"""


@pytest.mark.parametrize("grace_s", [0, 1])
async def test_a_daemon_ends_with_the_group(grace_s: float) -> None:
    """It has a session of its own, and no parent but the reaper."""
    lines: list[bytes] = []
    printed = asyncio.Event()

    def note(line: bytes) -> None:
        lines.append(line)
        printed.set()

    argv = [sys.executable, "-c", DAEMON]
    group = await ProcessGroup.spawn(argv, cwd=Path(), env={}, on_line=note)
    try:
        await asyncio.wait_for(printed.wait(), 60)
        daemon = psutil.Process(int(lines[0]))
        assert daemon.is_running()
    finally:
        await group.end(grace_s)
    try:
        assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            daemon.kill()
