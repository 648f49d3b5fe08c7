"""Predictions that take too long, or are canceled: on every store."""

from __future__ import annotations

import pytest

from router.keys.key import TRUSTED
from router.prediction import (
    Failure,
    LogText,
    Outcome,
    OutputChunk,
    Status,
)
from tests.router.fakes import TIME_LIMIT_S, World
from tests.router.predictions.lives import with_file
from tests.waiting import until


async def test_a_deadline_that_passes_while_it_waits(world: World) -> None:
    """Aborted, and never run."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    in_flight = await world.router.predictions.create(with_file("b", deadline_at=1005.0))
    world.clock.advance(4.9)
    assert not in_flight.done.done()
    world.clock.advance(0.1)
    end = await world.stored("b", Status.ABORTED)
    assert end.failure is not None
    assert end.failure.code == "deadline_exceeded"
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    assert [j.id for j in world.router.model.jobs] == ["a"]


async def test_a_deadline_that_passes_while_it_runs(world: World) -> None:
    """Canceled; a result that comes in spite of it is kept."""
    await world.router.predictions.create(with_file("a", deadline_at=1005.0))
    await world.running("a")
    world.clock.advance(5)
    end = await world.stored("a", Status.CANCELED)
    assert world.router.model.canceled == ["a"]
    assert end.failure is not None
    assert end.failure.code == "deadline_exceeded"


async def test_a_deadline_that_is_kept(world: World) -> None:
    """No timer outlives its prediction."""
    await world.router.predictions.create(with_file("a", deadline_at=1005.0))
    await world.running("a")
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    assert world.clock.pending() == []


async def test_a_deadline_that_passes_while_the_router_is_down(world: World) -> None:
    """What waited is aborted, what ran is canceled, and neither runs again."""
    for name in "ab":
        await world.router.predictions.create(with_file(name, deadline_at=1005.0))
    await world.running("a")
    world.clock.now += 60
    await world.kill_and_restart()
    assert (await world.router.predictions.get("a", TRUSTED)).status is Status.CANCELED
    assert (await world.router.predictions.get("b", TRUSTED)).status is Status.ABORTED
    assert world.router.model.jobs == []


async def test_the_time_limit(world: World) -> None:
    """What runs too long is stopped and has failed."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    world.clock.advance(TIME_LIMIT_S)
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert end.failure.code == "deadline_exceeded"


async def test_the_time_limit_of_one_model(world: World) -> None:
    """Its own, and not the general one; the message names it."""
    world.router.time_limits_s["echo"] = 5.0
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    world.clock.advance(4.9)
    assert world.router.predictions.in_flight("a") is not None
    world.clock.advance(0.1)
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert end.failure.message == "The prediction took longer than 5 s"


async def test_cancel(world: World) -> None:
    """Waiting or running, and again: canceled once; what has ended is left alone."""
    predictions = world.router.predictions
    for name in "ab":
        await predictions.create(with_file(name))
    await world.running("a")
    for name in "baab":
        predictions.cancel(name)
    for name in "ab":
        assert (await world.stored(name, Status.CANCELED)).failure == Failure(
            "canceled", "The prediction was canceled"
        )
    predictions.cancel("a")
    predictions.cancel("nosuch")


async def test_an_output_that_never_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that streams without end is stopped when its output is too large, and says so; what
    is kept is bounded."""
    monkeypatch.setattr("router.predictions.in_flight.MAX_STREAMED_BYTES", 100_000, raising=False)
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    report = world.router.model.reports["a"]
    for _ in range(300):
        report(OutputChunk("x" * 1000))
    await until(lambda: "a" in world.router.model.canceled)
    done = await world.stored("a", Status.FAILED)
    assert done.failure is not None
    assert done.failure.code == "prediction_failed"
    assert "larger than" in done.failure.message
    assert 50 < len(done.output) < 100


@pytest.mark.slow
async def test_a_log_of_many_lines(world: World) -> None:
    """What is shown while it runs and what is stored have a bound, and both ends of the log."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    report = world.router.model.reports["a"]
    for n in range(100_000):
        report(LogText(f"line {n} {'x' * 40}\n"))
    shown = (await world.router.predictions.get("a", TRUSTED)).logs
    world.answer("a", Outcome(Status.CANCELED))
    stored = (await world.stored("a", Status.CANCELED)).logs
    for logs in (shown, stored):
        assert len(logs) < 1_200_000
        assert logs.startswith("line 0 ")
        assert logs.splitlines()[-1].startswith("line 99999 ")
