"""A real coglet worker, put to sleep and woken from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest

from router.models import coglet_process, sleep_client
from router.models.catalog import Package
from router.models.coglet_process import CogProcess
from router.models.driver_client import DriverClient
from router.models.memory import HostMemory
from router.models.process_interface import SleepRefusedError
from router.models.process_options import CONTROL_SOCKET, ProcessOptions
from router.models.sleep_levels import TwoLevelSleeper
from router.prediction import Job, Status
from tests.waiting import until

pytestmark = pytest.mark.slow

DREAMER = Path(__file__).resolve().parents[2] / "packages" / "dreamer"
ROOM = 1 << 30


@contextlib.asynccontextmanager
async def started(
    folder: Path, runner: str = "Runner", driver: DriverClient | None = None
) -> AsyncIterator[tuple[CogProcess, TwoLevelSleeper]]:
    """A process of the package, in folders with long names."""
    folder /= "x" * 100
    for name in ("spool", "tmp", "cache"):
        (folder / name).mkdir(parents=True)
    options = ProcessOptions(
        spool_dir=folder / "spool",
        tmp_dir=folder / "tmp",
        cache_dir=folder / "cache",
        setup_timeout_s=200,
        measure=HostMemory(0).measure,
        sleep_device="cpu",
        driver=driver,
    )
    package = Package("dreamer", DREAMER, f"run.py:{runner}", Path(sys.executable))
    process = CogProcess(package, options)
    await process.start()
    assert process.sleeper is not None
    try:
        yield process, process.sleeper
    finally:
        await process.stop(grace_s=0)


async def answer(process: CogProcess, **asked: object) -> object:
    """The output of one prediction."""
    outcome = await process.predict(Job("x", asked), lambda progress: None)
    assert outcome.status is Status.SUCCEEDED, outcome
    return outcome.output


def worker_of(process: CogProcess) -> int:
    """The pid of coglet's worker."""
    assert process._group is not None
    return process._group.child_pids()[0]


@pytest.mark.parametrize("runner", ["Runner", "AsyncRunner"])
async def test_fifty_sleeps(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-identical, whatever was changed between them; its own health check never reads memory
    that sleeps."""
    monkeypatch.setattr(coglet_process, "HEALTH_EVERY_S", 0.01)
    async with started(tmp_path, runner) as (process, sleeper):
        staged = await sleeper.stage(ROOM)
        assert staged.copied_bytes >= staged.freed_bytes > 4 << 20
        first = before = await answer(process)
        for number in range(50):
            change = {10: "merge", 20: "learn"}.get(number, "")
            if change:
                before = await answer(process, do=change)
            slept = await sleeper.sleep(ROOM)
            assert slept.copied.copied_bytes < staged.copied_bytes / 4 or change
            woken = await sleeper.wake()
            assert woken.copied_bytes == slept.copied.freed_bytes
            assert await answer(process) == before, number
        assert before != first


async def refusal(sleeper: TwoLevelSleeper, room: int = ROOM) -> SleepRefusedError:
    """Why it does not sleep."""
    with pytest.raises(SleepRefusedError) as refused:
        await sleeper.sleep(room)
    return refused.value


@pytest.mark.parametrize("runner", ["Runner", "AsyncRunner"])
async def test_refused(runner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At work, without room or without its socket, the process stays as it is and answers."""
    async with started(tmp_path, runner) as (process, sleeper):
        monkeypatch.setattr(sleep_client, "BUSY_LIMIT_S", 0.0)
        # A thread of the package that goes on after the answer.
        before = await answer(process, do="linger")
        lingers = await refusal(sleeper)
        assert lingers.again
        assert "run.py:linger" in str(lingers)
        running = asyncio.create_task(answer(process, delay_s=4))
        await until(lambda: process._running)
        await asyncio.sleep(0.5)  # until it is in the worker
        runs = await refusal(sleeper)
        assert runs.again
        assert await running == before
        monkeypatch.setattr(sleep_client, "BUSY_LIMIT_S", 60.0)
        no_room = await refusal(sleeper, 1 << 20)
        assert not no_room.again
        assert "main memory" in str(no_room)
        await sleeper.sleep(ROOM)
        await sleeper.wake()
        (control,) = tmp_path.rglob(CONTROL_SOCKET)
        control.unlink()
        no_hook = await refusal(sleeper)
        assert not no_hook.again
        assert "hook does not answer" in str(no_hook)
        assert await answer(process) == before


async def test_killed_while_it_falls_asleep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook that hangs has a time limit. When its process ends, the command ends with an error,
    and the process counts as broken."""
    async with started(tmp_path) as (process, sleeper):
        worker = worker_of(process)
        os.kill(worker, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(sleep_client, "SHORTEST_LIMIT_S", 0.2)
            patch.setattr(sleep_client, "PATIENCE", 0.0)
            with pytest.raises(TimeoutError):
                await sleeper.sleep(ROOM)
        await ends_with(process, sleeper.sleep(ROOM), worker)


async def test_killed_while_it_wakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was not seen free is not given to others: then it is no sleep. Killed in the
    wake that follows, the process counts as broken."""
    async with started(tmp_path) as (process, sleeper):
        with monkeypatch.context() as patch:
            patch.setattr("router.models.memory.FREED_LIMIT_S", 0.1)
            patch.setattr(sleep_client, "SLACK_BYTES", 0)
            patch.setattr(sleeper.hook, "_measure", lambda pids: 1 << 40)
            with pytest.raises(TimeoutError, match="still held"):
                await sleeper.sleep(ROOM)
        worker = worker_of(process)
        os.kill(worker, signal.SIGSTOP)
        await ends_with(process, sleeper.wake(), worker)


async def ends_with(
    process: CogProcess, command: Coroutine[None, None, object], worker: int
) -> None:
    """Kill the worker while it works on the command."""
    doing = asyncio.create_task(command)
    await asyncio.sleep(0.2)
    assert not doing.done()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        await doing
    assert "died" in await process.broken()
