"""One coglet server and its worker, as the router starts, watches and ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from router.models import coglet_process
from router.models.catalog import Package
from router.models.coglet_process import CogProcess
from router.models.process_options import ProcessOptions
from router.prediction import Job, Outcome, Progress, Status
from tests.router.models.coglet_stand_in import python_of

pytestmark = pytest.mark.slow


def options_in(folder: Path) -> ProcessOptions:
    """What a process is started with, below `folder`."""
    for name in ("spool", "tmp", "cache"):
        (folder / name).mkdir()
    return ProcessOptions(
        spool_dir=folder / "spool",
        tmp_dir=folder / "tmp",
        cache_dir=folder / "cache",
        setup_timeout_s=60,
        measure=lambda pids: 0,
    )


@contextlib.asynccontextmanager
async def started(folder: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[CogProcess]:
    """A process of the stand-in."""
    package = Package("stand-in", folder, "run.py:Runner", python_of(folder), env=env or {})
    process = CogProcess(package, options_in(folder))
    await process.start()
    try:
        yield process
    finally:
        await process.stop(grace_s=0)


async def run(
    process: CogProcess, reports: list[Progress] | None = None, **asked: object
) -> Outcome:
    """The outcome of one prediction with these inputs."""
    into: list[Progress] = [] if reports is None else reports
    return await process.predict(Job("x", asked), into.append)


async def test_while_a_prediction_runs_its_own_time_limit_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C code that holds the GIL makes coglet UNHEALTHY for as long as it does; it may end well."""
    monkeypatch.setattr(coglet_process, "HEALTH_EVERY_S", 0.01)
    monkeypatch.setattr(coglet_process, "UNHEALTHY_READINGS", 3)
    async with started(tmp_path) as process:
        outcome = await run(process, holds_gil_s=1)
        assert outcome.status is Status.SUCCEEDED, outcome
        again = await run(process)
        assert again.status is Status.SUCCEEDED, again
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.broken(), 0.05)


NO = "Healthcheck failed: RuntimeError: channel closed"
TOO_LATE = "Healthcheck failed: user-defined healthcheck timed out after 5.0 seconds"


async def test_the_runners_own_health_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says is passed on at each change, whatever its words, and ends no process. That it
    was not heard in time while a prediction ran says nothing."""
    monkeypatch.setattr(coglet_process, "HEALTH_EVERY_S", 0.01)
    monkeypatch.setattr(coglet_process, "UNHEALTHY_EVERY_S", 0.01)
    monkeypatch.setattr(coglet_process, "UNHEALTHY_READINGS", 3)
    said: asyncio.Queue[str] = asyncio.Queue()
    async with started(tmp_path) as process, asyncio.timeout(30):
        process.watch_health(said.put_nowait)
        await run(process, holds_gil_s=0.5, health_while_held=TOO_LATE)
        await run(process, health=NO)
        assert await said.get() == NO
        late: list[str] = []
        process.watch_health(late.append)
        assert late == [NO]
        process.watch_health(said.put_nowait)
        assert await said.get() == NO
        await run(process)
        assert await said.get() == ""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.broken(), 0.1)


async def test_an_answer_with_a_log_of_many_megabytes(tmp_path: Path) -> None:
    """coglet gives back all that was printed; we have read what we keep while it ran."""
    async with started(tmp_path) as process:
        outcome = await run(process, logs=40 << 20, output=1000)
        assert (outcome.status, outcome.output) == (Status.SUCCEEDED, "o" * 1000)
        assert len(outcome.logs) < 2 << 20


async def test_an_output_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the prediction's failure, in words, and the model goes on."""
    monkeypatch.setattr("router.models.coglet_responses.MAX_BODY_BYTES", 1 << 20)
    async with started(tmp_path) as process:
        outcome = await run(process, output=2 << 20)
        assert outcome.failure is not None
        assert outcome.failure.code == "prediction_failed"
        assert "larger than" in outcome.failure.message
        assert (await run(process, output=10)).output == "o" * 10


async def test_a_health_answer_with_a_long_log(tmp_path: Path) -> None:
    """The set-up's log comes with each health check; a long one does not hold up the start."""
    async with started(tmp_path, {"STAND_IN_SET_UP_BYTES": str(40 << 20)}) as process:
        assert (await run(process)).status is Status.SUCCEEDED
        assert process._client is not None
        health: dict[str, Any] = {}
        while not health:  # {} when a busy machine needs longer than a health check may take
            health = await process._client.health()
        assert health["status"] == "READY"
        assert len(health["setup"]["logs"]) < 1 << 20
