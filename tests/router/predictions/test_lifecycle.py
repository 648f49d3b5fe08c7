"""Predictions in_flight, end and are taken up again as promised, on every store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from router.errors import (
    IdConflict,
    InvalidInput,
    ModelUnavailable,
    NotEnded,
    QueueFull,
    UnknownPrediction,
)
from router.keys.key import TRUSTED, Caller
from router.models.process_interface import StartError
from router.prediction import (
    Failure,
    FileRef,
    Job,
    Outcome,
    Prediction,
    Status,
)
from router.predictions import output_links
from router.predictions.worker_death import MAX_ATTEMPTS
from router.secret_inputs import CONTEXT, SecretValues
from tests.router.fakes import QUEUE_LIMIT, World
from tests.router.predictions.lives import FILES, with_file
from tests.waiting import until

REFUSED = FileRef("file", "/spool/refused", "dog.png")


async def test_on_disk_before_it_is_acknowledged(world: World) -> None:
    """When `create` returns, another program finds it; its end is written too."""
    in_flight = await world.router.predictions.create(with_file("a"))
    assert await world.store.get("a") is not None
    await world.running("a")
    world.answer("a")
    await in_flight.wait(5)
    done = await world.stored("a", Status.SUCCEEDED)
    assert (done.output, done.logs, done.attempts) == ({"x": 1}, "a line\n", 1)
    assert world.spool.removed == ["/spool/1"]


async def test_secrets_reach_the_model_alone(world: World) -> None:
    """The job has the values; the prediction shows none, and has none once it has ended. A
    failure that quotes one is scrubbed."""
    secrets = SecretValues({"n": "hunter2", CONTEXT: {"user": "ada"}})
    in_flight = await world.router.predictions.create(with_file("a", secrets=secrets, via="box"))
    await world.running("a")
    assert world.router.model.jobs == [
        Job("a", {"n": "hunter2"}, FILES, via="box", context={"user": "ada"})
    ]
    assert (await world.router.predictions.get("a", TRUSTED)).inputs == {"n": 1}
    failure = Failure("prediction_failed", "401 for hunter2")
    world.answer("a", Outcome(Status.FAILED, failure=failure))
    await in_flight.wait(5)
    end = await world.stored("a", Status.FAILED)
    assert end.failure == Failure("prediction_failed", "401 for **********")
    assert end.secrets == in_flight.prediction.secrets == {}
    await world.router.predictions.create(with_file("b", secrets=secrets))
    await world.running("b")
    world.answer("b")
    assert (await world.stored("b", Status.SUCCEEDED)).failure is None


async def test_one_whose_secrets_are_lost_does_not_run(world: World) -> None:
    """It fails with the reason when the router starts again: here no store keeps them."""
    await world.router.predictions.create(with_file("a", secrets=SecretValues({"n": "hunter2"})))
    await world.running("a")
    await world.kill_and_restart()
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert "secret inputs cannot be read" in end.failure.message
    assert world.router.model.jobs == []


async def test_a_synchronous_one_leaves_nothing(world: World) -> None:
    """Neither a row nor a file; `keep` makes one durable while it runs."""
    in_flight = await world.router.predictions.create(with_file("a", durable=False))
    await until(lambda: "a" in world.router.model.answers)
    world.answer("a")
    await in_flight.wait(5)
    assert await world.store.get("a") is None
    with pytest.raises(UnknownPrediction):
        await world.router.predictions.get("a", TRUSTED)
    await world.router.predictions.create(with_file("b", durable=False))
    await until(lambda: "b" in world.router.model.answers)
    await world.router.predictions.keep("b", TRUSTED)
    world.answer("b")
    await world.stored("b", Status.SUCCEEDED)


async def test_taken_up_after_a_kill(world: World) -> None:
    """What waited runs, in order; what ran runs again, with its files."""
    for name in "abc":
        await world.router.predictions.create(with_file(name))
    await world.running("a")
    await world.kill_and_restart()
    for name in "abc":
        await world.running(name)
        world.answer(name)
    ends = {name: await world.stored(name, Status.SUCCEEDED) for name in "abc"}
    assert [e.attempts for e in ends.values()] == [2, 1, 1]
    assert [j.files for j in world.router.model.jobs] == [FILES] * 3


async def test_more_than_may_wait_are_taken_up(world: World) -> None:
    """One that ran and a full queue: after the restart none of them is refused."""
    names = [f"n{i}" for i in range(QUEUE_LIMIT + 1)]
    for name in names:
        await world.router.predictions.create(with_file(name))
        await world.running(names[0])
    await world.kill_and_restart()
    for name in names:
        world.clock.advance(100)
        await world.running(name)
        world.answer(name)
        await world.stored(name, Status.SUCCEEDED)


async def test_a_result_survives_a_kill(world: World) -> None:
    """What had ended is told, and does not run again."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    await world.kill_and_restart()
    assert (await world.router.predictions.get("a", TRUSTED)).output == {"x": 1}
    assert world.router.model.jobs == []


async def test_deleted(world: World) -> None:
    """Not before its end, and by nobody else; then it is gone and its id is free."""
    predictions = world.router.predictions
    await predictions.create(with_file("a", owner="ada"))
    await world.running("a")
    with pytest.raises(NotEnded):
        await predictions.links.delete(await predictions.get("a", TRUSTED))
    world.answer("a")
    await until(
        lambda: (a := predictions.in_flight("a")) is None or a.prediction.status.is_terminal
    )
    with pytest.raises(UnknownPrediction):
        await predictions.get("a", Caller("bob"))
    # Its caller knows that it has ended, though it may not be on disk yet.
    await predictions.links.delete(await predictions.get("a", Caller("ada")))
    with pytest.raises(UnknownPrediction):
        await predictions.get("a", TRUSTED)
    assert await predictions.page(TRUSTED, limit=9) == []
    assert await world.store.claim(with_file("a"))


async def test_deleted_while_its_result_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion waits for the disk; while the disk takes nothing, it says so."""
    predictions = world.router.predictions
    await predictions.create(with_file("a"))
    await world.running("a")
    is_free = asyncio.Event()
    put = world.store.put

    async def slow(p: Prediction, announced_at: float | None = None) -> None:
        if p.status.is_terminal:
            await is_free.wait()
        await put(p, announced_at)

    monkeypatch.setattr(world.store, "put", slow)
    world.answer("a")
    await until(
        lambda: (a := predictions.in_flight("a")) is not None and a.prediction.status.is_terminal
    )
    monkeypatch.setattr(output_links, "WRITTEN_WITHIN_S", 0.1)
    with pytest.raises(NotEnded, match="being written; try again"):
        await predictions.links.delete(await predictions.get("a", TRUSTED))
    monkeypatch.setattr(output_links, "WRITTEN_WITHIN_S", 60.0)
    deletion = asyncio.create_task(predictions.links.delete(await predictions.get("a", TRUSTED)))
    await asyncio.sleep(0)
    is_free.set()
    await deletion
    assert await world.store.get("a") is None


async def test_at_most_three_attempts(world: World) -> None:
    """A prediction that takes the router with it each time is given up, with the reason."""
    await world.router.predictions.create(with_file("a"))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        await world.running("a")
        assert (await world.router.predictions.get("a", TRUSTED)).attempts == attempt
        await world.kill_and_restart()
    end = await world.router.predictions.get("a", TRUSTED)
    assert end.status is Status.FAILED
    assert end.failure is not None
    assert end.failure.code == "worker_died"
    assert "3 attempts" in end.failure.message
    assert world.router.model.jobs == []
    assert world.spool.removed == ["/spool/1"]


async def test_the_same_request_runs_once(world: World) -> None:
    """Of many at once one is made; during and after, across a restart, it stays that one."""
    calls = 0

    async def make() -> Prediction:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return with_file("a", digest="d")

    def ask() -> Any:
        return world.router.predictions.create_once("a", "echo", "d", TRUSTED, make)

    lives = await asyncio.gather(*(ask() for _ in range(20)))
    assert len([x for x in lives if x is not None]) == calls == 1
    await world.running("a")
    assert await ask() is None
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    await world.kill_and_restart()
    assert await ask() is None
    assert calls == 1


async def test_another_request_for_the_id_is_a_conflict(world: World) -> None:
    """Other inputs or another model."""

    async def make() -> Prediction:
        return with_file("a", digest="d")

    create_once = world.router.predictions.create_once
    await create_once("a", "echo", "d", TRUSTED, make)
    for model, digest in (("echo", "other"), ("parrot", "d")):
        with pytest.raises(IdConflict):
            await create_once("a", model, digest, TRUSTED, make)
    with pytest.raises(IdConflict, match="Cannot create 'a'"):
        await world.router.predictions.create(with_file("a"))


async def test_a_request_that_was_refused_may_be_sent_again(world: World) -> None:
    """Bad inputs and a full queue leave the id free, and no file in the spool."""

    async def refuse() -> Prediction:
        raise InvalidInput("no")

    async def make() -> Prediction:
        return with_file("late", digest="d", files=(REFUSED,))

    predictions = world.router.predictions
    with pytest.raises(InvalidInput):
        await predictions.create_once("late", "echo", "d", TRUSTED, refuse)
    await predictions.create(with_file("first"))
    await world.running("first")
    for i in range(QUEUE_LIMIT):
        await predictions.create(with_file(f"n{i}"))
    with pytest.raises(QueueFull):
        await predictions.create_once("late", "echo", "d", TRUSTED, make)
    assert await world.store.get("late") is None
    assert world.spool.removed == [REFUSED.path]
    predictions.cancel("n0")
    assert await predictions.create_once("late", "echo", "d", TRUSTED, make) is not None


async def test_a_model_that_fails(world: World) -> None:
    """Its failure is the prediction's."""
    await world.router.predictions.create(with_file("a"))
    await world.running("a")
    failure = Failure("prediction_failed", "boom")
    world.answer("a", Outcome(Status.FAILED, failure=failure))
    assert (await world.stored("a", Status.FAILED)).failure == failure


async def test_a_start_that_fails_ends_who_waits(world: World) -> None:
    """A prediction that was accepted has failed, with the reason and when to try again."""
    world.router.model.opens.clear()
    in_flight = await world.router.predictions.create(with_file("a"))
    world.router.model.start_error = StartError("no weights")
    world.router.model.opens.set()
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert (end.failure.code, end.failure.message) == (
        "model_unavailable",
        "Cannot start 'echo': no weights",
    )
    assert end.failure.retry_after_s is not None
    assert end.completed_at == world.clock.now
    assert isinstance(in_flight.dropped_with, ModelUnavailable)
    assert world.spool.removed == ["/spool/1"]


async def test_a_refusal_is_counted(world: World) -> None:
    """By its model and its code."""
    predictions = world.router.predictions
    await predictions.create(with_file("first"))
    await world.running("first")
    for i in range(QUEUE_LIMIT):
        await predictions.create(with_file(f"n{i}"))
    with pytest.raises(QueueFull):
        await predictions.create(with_file("late"))
    assert world.router.refusals.noted == [("echo", "queue_full")]


async def test_keep_finds_what_has_ended(world: World) -> None:
    """For its holder, and for nobody else."""
    await world.router.predictions.create(with_file("a", owner="web"))
    await world.running("a")
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    kept = await world.router.predictions.keep("a", Caller("web"))
    assert kept.output == {"x": 1}
    with pytest.raises(UnknownPrediction, match="'a'"):
        await world.router.predictions.keep("a", Caller("app"))


async def test_an_id_of_somebody_else_is_taken(world: World) -> None:
    """The same request by another holder neither runs nor joins it."""
    create_once = world.router.predictions.create_once

    async def make() -> Prediction:
        return with_file("a", digest="d", owner="web")

    await create_once("a", "echo", "d", Caller("web"), make)
    assert await create_once("a", "echo", "d", Caller("web"), make) is None
    with pytest.raises(IdConflict, match="Cannot create 'a': the id is taken"):
        await create_once("a", "echo", "d", Caller("app"), make)
