"""What a prediction leaves when it ends: who gets a message, what is counted, what is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from router.observability.facts import PredictionChanged, PredictionEnded
from router.prediction import (
    FileRef,
    LogText,
    Outcome,
    Prediction,
    Status,
)
from router.predictions.custom_metrics import MAX_BYTES
from router.predictions.in_flight import CANCELED
from tests.router.fakes import GOOD, KEEP_S, World
from tests.router.predictions.lives import forgotten, hear, made
from tests.waiting import LIMIT_S, until

# ---- ended -------------------------------------------------------------------------------


async def test_who_is_told_of_an_end(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step, and the size of its input files; overflow learns its place and forgets it."""
    heard, ids = hear(world), forgotten(world, monkeypatch)
    served: list[Prediction] = []
    monkeypatch.setattr(world.router.predictions.overflow, "served", served.append)
    (tmp_path / "in").write_bytes(b"12345")
    in_flight = await world.router.predictions.create(
        made("a", durable=False, files=(FileRef("f", str(tmp_path / "in"), "x"),))
    )
    await until(lambda: "a" in world.router.model.answers)
    world.clock.now += 3
    world.answer("a")
    await in_flight.wait(LIMIT_S)
    await until(lambda: len(heard) == 4)
    steps = [fact.prediction for fact in heard if isinstance(fact, PredictionChanged)]
    assert [p.status for p in steps] == [Status.STARTING, Status.PROCESSING, Status.SUCCEEDED]
    assert (steps[1].started_at, steps[2].completed_at) == (1000.0, 1003.0)
    assert heard[3] == PredictionEnded(steps[2], 5)
    assert (ids, [p.id for p in served]) == (["a"], ["a"])
    assert world.clock.pending() == []


async def test_the_time_of_a_run_counts_when_it_succeeded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the average of its model."""
    times: list[float | None] = []
    finished = world.router.predictions.finished

    def note(prediction_id: str, outcome: Outcome) -> float | None:
        times.append(finished(prediction_id, outcome))
        return times[-1]

    monkeypatch.setattr(world.router.predictions, "finished", note)
    for name, outcome in (("a", GOOD), ("b", Outcome(Status.FAILED, predict_time_s=0.2))):
        in_flight = await world.router.predictions.create(made(name, durable=False))
        await until(partial(world.router.model.answers.__contains__, name))
        world.answer(name, outcome)
        await in_flight.wait(LIMIT_S)
    assert times == [0.1, None]


async def test_metrics_that_are_too_large_are_not_stored(world: World) -> None:
    """The others are."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    metrics = {"large": "x" * MAX_BYTES, "n": 1}
    world.answer("a", Outcome(Status.SUCCEEDED, metrics=metrics))
    end = await world.stored("a", Status.SUCCEEDED)
    assert end.metrics.keys() == {"n", "total_time"}


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
async def test_a_result_in_spite_of_a_cancel(world: World, status: Status) -> None:
    """A run that succeeded meanwhile keeps its result; a failure counts as the cancel."""
    predictions = world.router.predictions
    in_flight = await predictions.create(made("a"))
    await world.running("a")
    in_flight.end_reason = CANCELED
    world.answer("a", Outcome(status, output=1))
    succeeded = status is Status.SUCCEEDED
    end = await world.stored("a", status if succeeded else Status.CANCELED)
    assert end.failure == (None if succeeded else CANCELED.failure)


async def test_what_comes_after_its_end(world: World) -> None:
    """A last line of its log, or of one that is not known, changes nothing."""
    predictions = world.router.predictions
    in_flight = await predictions.create(made("a", durable=False))
    await until(lambda: "a" in world.router.model.answers)
    world.answer("a")
    await in_flight.wait(LIMIT_S)
    version = in_flight.version
    predictions._in_flight["a"] = in_flight  # as while its result is being written
    for prediction_id in ("a", "nosuch"):
        predictions.progressed(prediction_id, LogText("late\n"))
    assert (in_flight.version, in_flight.prediction.logs) == (version, "a line\n")


async def test_a_result_is_kept_for_its_time(world: World) -> None:
    """Then the sweep of the next start deletes its row and its files."""
    for name, ended_at in (("old", 999.0), ("new", 1001.0)):
        files = (FileRef("f", f"/s/{name}", "x"),)
        ended = made(name, files=files, status=Status.SUCCEEDED, completed_at=ended_at)
        await world.store.put(ended)
    world.clock.now += KEEP_S
    await world.kill_and_restart()
    await until(lambda: world.spool.removed)
    assert world.spool.removed == ["/s/old"]
    kept = [await world.store.get(name) is not None for name in ("old", "new")]
    assert kept == [False, True]


@pytest.mark.parametrize("deadline_at", [900.0, 1000.0, 1000.5])
async def test_a_deadline_that_is_near_or_past(deadline_at: float, world: World) -> None:
    """It is aborted at that moment, and at once if the moment has passed."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    in_flight = await world.router.predictions.create(made("b", deadline_at=deadline_at))
    world.clock.advance(max(deadline_at - 1000.0, 0.0))
    assert in_flight.prediction.status is Status.ABORTED
