"""What becomes of predictions when the router stops, and where those go that are handed back."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from router.errors import (
    UnknownPrediction,
)
from router.keys.key import TRUSTED
from router.models.process_interface import MayHaveBegunError
from router.observability.facts import PredictionEnded
from router.prediction import (
    Failure,
    FileRef,
    LogText,
    Outcome,
    Prediction,
    Status,
)
from router.predictions.worker_death import MAX_ATTEMPTS
from router.scheduling import messages
from tests.router.fakes import TIME_LIMIT_S, World
from tests.router.predictions.lives import DIED, forgotten, hear, made
from tests.waiting import LIMIT_S, until

# ---- a router that stops, and its next start ---------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
async def test_a_worker_that_dies_with_the_router(
    durable: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A durable prediction waits for the next start; another one's caller learns the reason."""
    ids = forgotten(world, monkeypatch)
    predictions = world.router.predictions
    in_flight = await predictions.create(made("a", durable=durable, deadline_at=9000.0))
    await until(lambda: "a" in world.router.model.answers)
    world.router.loop.post(messages.RouterStopping())
    assert predictions.finished("a", DIED) is None
    assert in_flight.done.done()
    assert predictions.in_flight("a") is None
    assert (ids, world.clock.pending()) == (["a"], [])
    end = in_flight.prediction
    if durable:
        assert (end.status, end.failure) == (Status.PROCESSING, None)
    else:
        assert (end.status, end.failure) == (
            Status.FAILED,
            Failure("shutting_down", "The server stopped"),
        )


async def test_a_failure_of_its_own_while_the_router_stops(world: World) -> None:
    """It is the prediction's end."""
    in_flight = await world.router.predictions.create(made("a"))
    await world.running("a")
    world.router.loop.post(messages.RouterStopping())
    failure = Failure("prediction_failed", "boom")
    world.answer("a", Outcome(Status.FAILED, failure=failure))
    await in_flight.wait(LIMIT_S)
    assert in_flight.prediction.failure == failure


async def test_the_next_start_says_what_it_took_up(world: World) -> None:
    """In the state in which it waits. What cannot run again has ended, and its files are gone."""
    predictions = world.router.predictions
    await predictions.create(made("a"))
    await predictions.create(made("b", deadline_at=1005.0, files=(FileRef("f", "/s/b", "b"),)))
    await predictions.create(made("c", deadline_at=1090.0))
    await world.running("a")
    world.router.disk.cut = True
    for alarm in world.clock.alarms:
        alarm.cancel()
    world.clock.now += 60
    again = World(world.store)
    again.clock.now = world.clock.now
    heard = hear(again)
    await again.router.webhooks.open()
    resumed = await again.router.predictions.open()
    assert [(p.id, p.status, p.started_at) for p in resumed] == [
        ("a", Status.STARTING, None),
        ("c", Status.STARTING, None),
    ]
    assert again.spool.removed == ["/s/b"]
    ended = await again.stored("b", Status.ABORTED)
    assert ended.completed_at == again.clock.now
    await until(lambda: any(isinstance(fact, PredictionEnded) for fact in heard))
    await again.running("a")
    again.clock.advance(29.9)
    assert again.router.predictions.eta("c") is not None
    again.clock.advance(0.1)
    await again.stored("c", Status.ABORTED)


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ((1, False, False), (0, "")),
        ((1, True, False), (1, "there")),
        ((1, True, True), (0, "there")),
        ((2, False, False), (1, "there")),
        ((MAX_ATTEMPTS, True, True), (MAX_ATTEMPTS - 1, "there")),
        ((MAX_ATTEMPTS, False, False), (MAX_ATTEMPTS - 1, "there")),
    ],
)
async def test_where_one_goes_that_was_handed_back(
    how: tuple[int, bool, bool],
    after: tuple[int, str],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the remote where it may have begun; anywhere if it has begun nowhere."""
    attempts, may_have_begun, draining = how
    predictions = world.router.predictions
    monkeypatch.setattr(predictions.overflow, "remote_of", {"a": "there"}.__getitem__)
    in_flight = await predictions.create(made("a"))
    await world.running("a")
    in_flight.prediction = replace(in_flight.prediction, attempts=attempts)
    if draining:
        world.router.loop.post(messages.RouterStopping())
    assert in_flight.prediction.remote_name == "there"
    assert predictions.handed_back("a", may_have_begun=may_have_begun)
    stored = await world.stored("a", Status.STARTING)
    assert (stored.attempts, stored.remote_name) == after
    assert stored == in_flight.prediction


async def test_the_last_attempt_is_not_handed_back(world: World) -> None:
    """The loop learns that the model is free for another one."""
    in_flight = await world.router.predictions.create(made("a"))
    await world.running("a")
    in_flight.prediction = replace(in_flight.prediction, attempts=MAX_ATTEMPTS)
    assert world.router.predictions.handed_back("a", may_have_begun=True) is False
    await world.stored("a", Status.FAILED)


async def test_one_that_is_not_known(world: World) -> None:
    """The message quotes the start of its id, however long it is."""
    with pytest.raises(UnknownPrediction) as refusal:
        await world.router.predictions.get("x" * 80 + "y", TRUSTED)
    assert refusal.value.message == f"Cannot find prediction '{'x' * 80}'"


async def test_one_handed_back_has_its_time_again(world: World) -> None:
    """The clock of its time limit stands while it waits, and its progress is forgotten."""
    in_flight = await world.router.predictions.create(made("a"))
    await world.running("a")
    world.router.model.reports["a"](LogText("first try\n"))
    world.router.model.answers.pop("a").set_exception(MayHaveBegunError("the connection was lost"))
    await world.stored("a", Status.STARTING)
    assert world.clock.pending() == []
    world.clock.now += TIME_LIMIT_S
    world.router.loop.post(messages.Tick())
    await world.running("a")
    assert in_flight.present().logs == ""
    assert in_flight.prediction.attempts == 2
    world.clock.advance(TIME_LIMIT_S - 0.1)
    assert in_flight.end_reason is None
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)


async def test_a_close_waits_for_the_last_result(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on disk when the router has closed."""
    is_free = asyncio.Event()
    put = world.store.put

    async def slow(p: Prediction, announced_at: float | None = None) -> None:
        await is_free.wait()
        await put(p, announced_at)

    in_flight = await world.router.predictions.create(made("a"))
    await world.running("a")
    monkeypatch.setattr(world.store, "put", slow)
    world.answer("a")
    await in_flight.wait(LIMIT_S)
    closing = asyncio.create_task(world.router.predictions.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    is_free.set()
    await closing
    ended = await world.store.get("a")
    assert ended is not None
    assert ended.status is Status.SUCCEEDED
