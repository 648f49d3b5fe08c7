"""Predictions that a model or a remote hands back run again, or end: on every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from router.errors import (
    ShuttingDown,
)
from router.keys.key import TRUSTED
from router.models.process_interface import MayHaveBegunError, NotStartedError
from router.observability.facts import Fact, Facts, PredictionChanged
from router.prediction import (
    Failure,
    Outcome,
    Status,
)
from router.predictions.in_flight import CANCELED
from router.predictions.worker_death import MAX_ATTEMPTS
from router.scheduling import messages
from tests.router.fakes import World
from tests.router.predictions.lives import with_file
from tests.waiting import until


async def test_handed_back_after_a_cancel(world: World) -> None:
    """The process dies before it began what has just been canceled."""
    model = world.router.model
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    answer = model.answers["a"]
    model.answers["a"] = asyncio.get_running_loop().create_future()  # what `cancel` answers
    world.router.predictions.cancel("a")
    answer.set_exception(NotStartedError("the worker died"))
    end = await world.stored("a", Status.CANCELED)
    assert end.failure == Failure("canceled", "The prediction was canceled")
    assert [j.id for j in model.jobs] == ["a"]


def submitted(world: World, times: int) -> bool:
    """Whether the model was given so many predictions."""
    return len(world.router.model.jobs) == times


async def test_what_its_remote_refuses_for_now_is_submitted_again(world: World) -> None:
    """A durable one waits, however often; one whose caller waits for the answer fails."""
    unavailable = Failure("model_unavailable", "not now", retry_after_s=7)
    refused = Outcome(Status.FAILED, failure=unavailable, refused=True)
    in_flight = await world.router.predictions.create(with_file("a"))
    for n in range(MAX_ATTEMPTS + 2):
        await until(partial(submitted, world, n + 1))
        world.router.model.answers.pop("a").set_result(refused)
        await until(lambda: in_flight.prediction.status is Status.STARTING)
        world.clock.advance(7)
    await world.running("a")
    world.answer("a")
    assert (await world.stored("a", Status.SUCCEEDED)).attempts == 1
    for_long = replace(unavailable, retry_after_s=3600)
    for name, durable, failure in (("b", False, unavailable), ("c", True, for_long)):
        asked = await world.router.predictions.create(with_file(name, durable=durable))
        await until(partial(world.router.model.answers.__contains__, name))
        outcome = Outcome(Status.FAILED, failure=failure, refused=True)
        world.router.model.answers[name].set_result(outcome)
        await asked.wait(5)
        assert asked.prediction.failure == failure


async def test_one_that_never_began_counts_no_attempt(world: World) -> None:
    """It waits again, as if it had not been started; its next run is its first attempt."""
    heard: list[str] = []

    def hear(fact: Fact) -> None:
        if isinstance(fact, PredictionChanged):
            heard.append(fact.prediction.status)
        else:
            heard.append(type(fact).__name__)

    world.router.predictions._facts = Facts([hear], delay_s=0)
    in_flight = await world.router.predictions.create(with_file("a"))
    await world.running("a")
    answer = world.router.model.answers.pop("a")
    answer.set_exception(NotStartedError("the worker died"))
    await until(lambda: heard[-1] == "starting" and len(heard) == 3)
    world.clock.now += 5  # its model is started again
    world.router.loop.post(messages.Tick())
    await until(lambda: "a" in world.router.model.answers)
    again = await world.stored("a", Status.PROCESSING)
    assert (again.attempts, again.remote_name, again.started_at) == (1, "", 1005.0)
    world.answer("a")
    await in_flight.wait(5)
    assert (await world.stored("a", Status.SUCCEEDED)).attempts == 1
    steps = ["starting", "processing", "starting", "processing", "succeeded"]
    assert heard == [*steps, "PredictionEnded"]


async def cut_off(world: World, attempt: int) -> None:
    """The connection to the remote of `a` is lost in this attempt, and its model starts again."""
    model = world.router.model
    await until(lambda: "a" in model.answers)
    assert (await world.router.predictions.get("a", TRUSTED)).attempts == attempt
    model.answers.pop("a").set_exception(MayHaveBegunError("the connection was lost"))
    in_flight = world.router.predictions.in_flight("a")
    assert in_flight is not None
    await until(lambda: in_flight.prediction.status is not Status.PROCESSING)
    world.clock.now += 60
    world.router.loop.post(messages.Tick())


@pytest.mark.parametrize("canceled", [False, True])
async def test_one_that_its_remote_never_finishes_has_an_end(world: World, canceled: bool) -> None:
    """It may be what takes the remote down, so an attempt that may have begun counts."""
    await world.router.predictions.create(with_file("a"))
    for attempt in range(1, MAX_ATTEMPTS):
        await cut_off(world, attempt)
    if canceled:
        await until(lambda: "a" in world.router.model.answers)
        in_flight = world.router.predictions.in_flight("a")
        assert in_flight is not None
        in_flight.end_reason = CANCELED
    await cut_off(world, MAX_ATTEMPTS)
    end = await world.stored("a", Status.CANCELED if canceled else Status.FAILED)
    assert end.failure is not None
    assert end.failure.code == ("canceled" if canceled else "backend_failed")
    assert len(world.router.model.jobs) == MAX_ATTEMPTS
    assert world.spool.removed == ["/spool/1"]


async def test_a_stop_of_the_router_counts_no_attempt(world: World) -> None:
    """The remote did nothing wrong, and is asked for the prediction after the restart."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    world.router.loop.post(messages.RouterStopping())
    answer = world.router.model.answers.pop("a")
    answer.set_exception(MayHaveBegunError("the router stopped using the back-end"))
    await until(lambda: world.router.predictions.in_flight("a") is None)
    assert (await world.stored("a", Status.STARTING)).attempts == 0
    await world.kill_and_restart()
    await world.running("a")


async def test_a_router_that_stops_keeps_what_is_durable(world: World) -> None:
    """What waits and is on disk is left for the next run; what is not ends with the reason."""
    world.router.model.opens.clear()
    kept = await world.router.predictions.create(with_file("a"))
    other = await world.router.predictions.create(with_file("b", durable=False))
    world.router.loop.post(messages.RouterStopping())
    await asyncio.gather(kept.wait(5), other.wait(5))
    assert isinstance(other.dropped_with, ShuttingDown)
    assert other.prediction.status is Status.FAILED
    assert (await world.stored("a", Status.STARTING)).failure is None
    assert kept.prediction.status is Status.STARTING
    await world.kill_and_restart()
    await world.running("a")
