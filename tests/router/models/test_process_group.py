"""What a model's process is given of the router's surroundings, and what is read of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from router.models import process_group
from router.models.process_group import (
    LOG_BYTES,
    LOG_LINES,
    LONGEST_LINE,
    SPOOL_NAME,
    Output,
    ProcessGroup,
    end_left_behind,
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


async def run(
    program: str, lines: list[bytes], cwd: Path = Path(), longest_line: int = LONGEST_LINE
) -> str:
    """How a program of one line ended; what it printed goes to `lines`."""
    argv = [sys.executable, "-c", program]
    group = await ProcessGroup.spawn(
        argv, cwd=cwd, env={}, on_line=lines.append, longest_line=longest_line
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
    output.pipe_data_received(1, b"x" * LONGEST_LINE)
    output.pipe_data_received(1, b"\n")
    assert lines.pop() == b"x" * LONGEST_LINE + b"\n"
    for number in range(2 * LOG_LINES):
        output.pipe_data_received(1, b"%d\n" % number)
    assert len(output.lines) == LOG_LINES


async def test_after_its_end_nothing_is_passed_on() -> None:
    """A process that holds the pipe open may still print."""
    lines: list[bytes] = []
    output = Output(lines.append)
    output.pipe_data_received(1, b"one\ntw")
    output.silence()
    output.pipe_data_received(1, b"o\nthree\n")
    assert lines == list(output.lines) == [b"one\n"]


async def test_the_kept_lines_have_a_size_too() -> None:
    """Short lines that came first make no room for many long ones. None is lost without need."""
    output = Output(lambda line: None)
    for _ in range(LOG_LINES):
        output.pipe_data_received(1, b"short\n")
    long = b"x" * (LONGEST_LINE // 2) + b"\n"
    for _ in range(100):
        output.pipe_data_received(1, long)
        assert sum(map(len, output.lines)) <= LOG_BYTES
    assert list(output.lines) == [long] * (LOG_BYTES // len(long))
    for _ in range(LOG_LINES):
        output.pipe_data_received(1, b"short\n")
    assert list(output.lines) == [b"short\n"] * LOG_LINES
    full = Output(lambda line: None)
    for _ in range(17):
        full.pipe_data_received(1, b"x" * (LOG_BYTES // 16 - 1) + b"\n")
    assert sum(map(len, full.lines)) == LOG_BYTES


async def test_where_it_runs(tmp_path: Path) -> None:
    """In its folder, and what is typed for the router is not for it."""
    lines: list[bytes] = []
    program = "import os, sys; print(os.getcwd()); print(repr(sys.stdin.read()))"
    (tmp_path / "typed").write_text("typed")
    own = os.dup(0)
    try:
        with (tmp_path / "typed").open() as typed:
            os.dup2(typed.fileno(), 0)
        assert await run(program, lines, cwd=tmp_path) == "exit code 0"
    finally:
        os.dup2(own, 0)
        os.close(own)
    assert lines == [f"{tmp_path}\n".encode(), b"''\n"]


async def test_a_limit_of_its_own_for_lines() -> None:
    """Lines up to that length are passed on."""
    lines: list[bytes] = []
    program = f"print('x' * {2 * LONGEST_LINE}); print('y' * {4 * LONGEST_LINE}); print('z')"
    await run(program, lines, longest_line=2 * LONGEST_LINE)
    assert [line[:1] for line in lines] == [b"x", b"z"]


async def started(program: str) -> tuple[ProcessGroup, list[bytes]]:
    """A program that has printed its first line."""
    lines: list[bytes] = []
    printed = asyncio.Event()

    def note(line: bytes) -> None:
        lines.append(line)
        printed.set()

    argv = [sys.executable, "-c", program]
    group = await ProcessGroup.spawn(argv, cwd=Path(), env={}, on_line=note)
    await asyncio.wait_for(printed.wait(), 60)
    return group, lines


CLEANS_UP = """
import os, signal, time
def end(*_):
    os.write(1, b"cleaned up\\n")  # print may be under way
    os._exit(7)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("grace_s", "how"), [(0, "signal 9"), (0.5, "exit code 7")])
async def test_it_may_clean_up_within_its_time(grace_s: float, how: str) -> None:
    """SIGTERM first where it is given time, else SIGKILL at once."""
    group, lines = await started(CLEANS_UP)
    # A program that has cleaned up is not waited for, so a long time costs nothing.
    await group.end(grace_s and 120)
    assert await group.wait() == how
    assert (b"cleaned up\n" in lines) == (grace_s > 0)


async def test_one_that_does_not_listen_is_killed_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It ignores SIGTERM, which is sent only where there is time."""
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('up', flush=True); time.sleep(600)"
    )
    group, _ = await started(program)
    sent: list[int] = []
    send = group._signal

    def note(number: int) -> None:
        sent.append(number)
        send(number)

    monkeypatch.setattr(group, "_signal", note)
    await group.end(0.2)
    assert await group.wait() == "signal 9"
    await group.end(0)
    assert sent == [signal.SIGTERM, signal.SIGKILL, signal.SIGKILL]


def is_at_work(pid: int) -> bool:
    """Whether a process is there. One that nobody has reaped yet is not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


RUNAWAY = """
import subprocess, sys, time
inner = "import time; time.sleep(600)"
outer = "import subprocess, sys, time; " \
    "p = subprocess.Popen([sys.executable, '-c', %r], env={}, start_new_session=True); " \
    "print(p.pid, flush=True); time.sleep(600)" % inner
subprocess.Popen([sys.executable, "-c", outer])
time.sleep(600)
"""


async def test_what_was_seen_below_it_ends_too() -> None:
    """A grandchild that has left the session and has no trace of us in its environment."""
    group, lines = await started(RUNAWAY)
    runaway = psutil.Process(int(lines[0]))
    try:
        leader, child, grandchild = group.pids()
        assert group.child_pids() == [child]
        assert grandchild == runaway.pid
        await group.end(0)
        assert not any(map(is_at_work, (leader, child, grandchild)))
    finally:
        await group.end(0)
        with contextlib.suppress(psutil.NoSuchProcess):
            runaway.kill()


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
    group, lines = await started(DAEMON)
    try:
        daemon = psutil.Process(int(lines[0]))
        assert daemon.is_running()
    finally:
        await group.end(grace_s)
    try:
        assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            daemon.kill()


def test_what_an_earlier_router_has_left_is_ended(tmp_path: Path) -> None:
    """All that was started on this spool, in whatever session, and nothing of another spool."""
    argv = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    left, other = (
        subprocess.Popen(argv, env={SPOOL_NAME: str(tmp_path / name)}, start_new_session=True)
        for name in ("spool", "other")
    )
    try:
        assert end_left_behind(tmp_path / "spool")
        assert left.wait(60) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait(60)


FAMILY = """
import subprocess, sys, time
p = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(p.pid, flush=True)
time.sleep(600)
"""


def ended() -> psutil.Process:
    """A process that has ended."""
    process = psutil.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process


async def test_a_group_lives_as_long_as_one_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leader may have ended, and a process of another group is none of it. Asking ends none.
    One that ends while the processes are listed is none either."""
    group, lines = await started(FAMILY)
    child = psutil.Process(int(lines[0]))
    try:
        assert group.pids() == [group._pid, child.pid]
        group.add_lines([b"written elsewhere\n"])
        assert lines[1:] == list(group.lines)[1:] == [b"written elsewhere\n"]
        assert group._is_alive()
        psutil.Process(group._pid).kill()
        assert await group.wait() == "signal 9"
        assert group.pids() == group.child_pids() == []
        assert group._is_alive()
        assert is_at_work(child.pid)
        with monkeypatch.context() as patch:
            for pids, status, alive in (
                ((ended().pid, child.pid), psutil.STATUS_RUNNING, True),
                ((ended().pid, os.getpid()), psutil.STATUS_RUNNING, False),
                ((child.pid,), psutil.STATUS_ZOMBIE, False),
            ):
                listed = [SimpleNamespace(pid=pid, info={"status": status}) for pid in pids]
                patch.setattr(psutil, "process_iter", lambda _, listed=listed: iter(listed))
                assert group._is_alive() is alive
    finally:
        await group.end(0)
    assert not is_at_work(child.pid)
    assert not group._is_alive()


async def test_an_end_that_takes_too_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A group that does not go raises, a descendant that does not go is logged, and one that has
    gone by itself is neither."""
    group, _ = await started(FAMILY)
    with monkeypatch.context() as patch:
        patch.setattr(group, "_is_alive", lambda: True)
        patch.setattr(process_group, "GONE_LIMIT_S", 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(group.end(0), 60)
    group._seen[0] = ended()
    with monkeypatch.context() as patch:
        patch.setattr(process_group, "kill_all", lambda mark: False)
        await group.end(0)
    (record,) = caplog.records
    assert (record.levelname, vars(record)["leader"]) == ("ERROR", group._pid)
    caplog.clear()
    await group.end(0)
    assert not caplog.records
