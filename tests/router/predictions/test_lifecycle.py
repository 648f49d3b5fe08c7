"""Predictions in_flight, end and are taken up again as promised, on every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from router.errors import (
    IdConflict,
    InvalidInput,
    ModelUnavailable,
    NotEnded,
    QueueFull,
    ShuttingDown,
    UnknownPrediction,
)
from router.keys.key import TRUSTED, Caller
from router.models.process_interface import MayHaveBegunError, NotStartedError, StartError
from router.observability.facts import Fact, Facts, PredictionChanged
from router.prediction import (
    Failure,
    FileRef,
    Job,
    LogText,
    Outcome,
    OutputChunk,
    Prediction,
    Status,
)
from router.predictions import output_links
from router.predictions.in_flight import CANCELED, MAX_ATTEMPTS
from router.scheduling import messages
from router.secret_inputs import CONTEXT, SecretValues
from tests.router.fakes import QUEUE_LIMIT, TIME_LIMIT_S, World
from tests.waiting import until

FILES = (FileRef("file", "/spool/1", "cat.png"),)
REFUSED = FileRef("file", "/spool/refused", "dog.png")


def made(prediction_id: str, **changes: Any) -> Prediction:
    """A durable prediction."""
    fields = {"durable": True, "created_at": 1000.0, "files": FILES, **changes}
    return Prediction(prediction_id, "echo", {"n": 1}, **fields)


async def test_on_disk_before_it_is_acknowledged(world: World) -> None:
    """When `create` returns, another program finds it; its end is written too."""
    in_flight = await world.router.predictions.create(made("a"))
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
    in_flight = await world.router.predictions.create(made("a", secrets=secrets, via="box"))
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
    await world.router.predictions.create(made("b", secrets=secrets))
    await world.running("b")
    world.answer("b")
    assert (await world.stored("b", Status.SUCCEEDED)).failure is None


async def test_one_whose_secrets_are_lost_does_not_run(world: World) -> None:
    """It fails with the reason when the router starts again: here no store keeps them."""
    await world.router.predictions.create(made("a", secrets=SecretValues({"n": "hunter2"})))
    await world.running("a")
    await world.kill_and_restart()
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert "secret inputs cannot be read" in end.failure.message
    assert world.router.model.jobs == []


async def test_a_synchronous_one_leaves_nothing(world: World) -> None:
    """Neither a row nor a file; `keep` makes one durable while it runs."""
    in_flight = await world.router.predictions.create(made("a", durable=False))
    await until(lambda: "a" in world.router.model.answers)
    world.answer("a")
    await in_flight.wait(5)
    assert await world.store.get("a") is None
    with pytest.raises(UnknownPrediction):
        await world.router.predictions.get("a", TRUSTED)
    await world.router.predictions.create(made("b", durable=False))
    await until(lambda: "b" in world.router.model.answers)
    await world.router.predictions.keep("b", TRUSTED)
    world.answer("b")
    await world.stored("b", Status.SUCCEEDED)


async def test_taken_up_after_a_kill(world: World) -> None:
    """What waited runs, in order; what ran runs again, with its files."""
    for name in "abc":
        await world.router.predictions.create(made(name))
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
        await world.router.predictions.create(made(name))
        await world.running(names[0])
    await world.kill_and_restart()
    for name in names:
        world.clock.advance(100)
        await world.running(name)
        world.answer(name)
        await world.stored(name, Status.SUCCEEDED)


async def test_a_result_survives_a_kill(world: World) -> None:
    """What had ended is told, and does not run again."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    await world.kill_and_restart()
    assert (await world.router.predictions.get("a", TRUSTED)).output == {"x": 1}
    assert world.router.model.jobs == []


async def test_deleted(world: World) -> None:
    """Not before its end, and by nobody else; then it is gone and its id is free."""
    predictions = world.router.predictions
    await predictions.create(made("a", owner="ada"))
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
    assert await world.store.claim(made("a"))


async def test_deleted_while_its_result_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion waits for the disk; while the disk takes nothing, it says so."""
    predictions = world.router.predictions
    await predictions.create(made("a"))
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
    await world.router.predictions.create(made("a"))
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
        return made("a", digest="d")

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
        return made("a", digest="d")

    create_once = world.router.predictions.create_once
    await create_once("a", "echo", "d", TRUSTED, make)
    for model, digest in (("echo", "other"), ("parrot", "d")):
        with pytest.raises(IdConflict):
            await create_once("a", model, digest, TRUSTED, make)
    with pytest.raises(IdConflict, match="Cannot create 'a'"):
        await world.router.predictions.create(made("a"))


async def test_a_request_that_was_refused_may_be_sent_again(world: World) -> None:
    """Bad inputs and a full queue leave the id free, and no file in the spool."""

    async def refuse() -> Prediction:
        raise InvalidInput("no")

    async def make() -> Prediction:
        return made("late", digest="d", files=(REFUSED,))

    predictions = world.router.predictions
    with pytest.raises(InvalidInput):
        await predictions.create_once("late", "echo", "d", TRUSTED, refuse)
    await predictions.create(made("first"))
    await world.running("first")
    for i in range(QUEUE_LIMIT):
        await predictions.create(made(f"n{i}"))
    with pytest.raises(QueueFull):
        await predictions.create_once("late", "echo", "d", TRUSTED, make)
    assert await world.store.get("late") is None
    assert world.spool.removed == [REFUSED.path]
    predictions.cancel("n0")
    assert await predictions.create_once("late", "echo", "d", TRUSTED, make) is not None


async def test_a_deadline_that_passes_while_it_waits(world: World) -> None:
    """Aborted, and never run."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    in_flight = await world.router.predictions.create(made("b", deadline_at=1005.0))
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
    await world.router.predictions.create(made("a", deadline_at=1005.0))
    await world.running("a")
    world.clock.advance(5)
    end = await world.stored("a", Status.CANCELED)
    assert world.router.model.canceled == ["a"]
    assert end.failure is not None
    assert end.failure.code == "deadline_exceeded"


async def test_a_deadline_that_is_kept(world: World) -> None:
    """No timer outlives its prediction."""
    await world.router.predictions.create(made("a", deadline_at=1005.0))
    await world.running("a")
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    assert world.clock.pending() == []


async def test_a_deadline_that_passes_while_the_router_is_down(world: World) -> None:
    """What waited is aborted, what ran is canceled, and neither runs again."""
    for name in "ab":
        await world.router.predictions.create(made(name, deadline_at=1005.0))
    await world.running("a")
    world.clock.now += 60
    await world.kill_and_restart()
    assert (await world.router.predictions.get("a", TRUSTED)).status is Status.CANCELED
    assert (await world.router.predictions.get("b", TRUSTED)).status is Status.ABORTED
    assert world.router.model.jobs == []


async def test_the_time_limit(world: World) -> None:
    """What runs too long is stopped and has failed."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    world.clock.advance(TIME_LIMIT_S)
    end = await world.stored("a", Status.FAILED)
    assert end.failure is not None
    assert end.failure.code == "deadline_exceeded"


async def test_the_time_limit_of_one_model(world: World) -> None:
    """Its own, and not the general one; the message names it."""
    world.router.time_limits_s["echo"] = 5.0
    await world.router.predictions.create(made("a"))
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
        await predictions.create(made(name))
    await world.running("a")
    for name in "baab":
        predictions.cancel(name)
    for name in "ab":
        assert (await world.stored(name, Status.CANCELED)).failure == Failure(
            "canceled", "The prediction was canceled"
        )
    predictions.cancel("a")
    predictions.cancel("nosuch")


async def test_a_model_that_fails(world: World) -> None:
    """Its failure is the prediction's."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    failure = Failure("prediction_failed", "boom")
    world.answer("a", Outcome(Status.FAILED, failure=failure))
    assert (await world.stored("a", Status.FAILED)).failure == failure


async def test_an_output_that_never_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that streams without end is stopped when its output is too large, and says so; what
    is kept is bounded."""
    monkeypatch.setattr("router.predictions.in_flight.MAX_STREAMED_BYTES", 100_000, raising=False)
    await world.router.predictions.create(made("a"))
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
    await world.router.predictions.create(made("a"))
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


async def test_a_start_that_fails_ends_who_waits(world: World) -> None:
    """A prediction that was accepted has failed, with the reason and when to try again."""
    world.router.model.opens.clear()
    in_flight = await world.router.predictions.create(made("a"))
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


async def test_handed_back_after_a_cancel(world: World) -> None:
    """The process dies before it began what has just been canceled."""
    model = world.router.model
    await world.router.predictions.create(made("a"))
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
    in_flight = await world.router.predictions.create(made("a"))
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
        asked = await world.router.predictions.create(made(name, durable=durable))
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
    in_flight = await world.router.predictions.create(made("a"))
    await world.running("a")
    answer = world.router.model.answers.pop("a")
    answer.set_exception(NotStartedError("the worker died"))
    await until(lambda: heard[-1] == "starting" and len(heard) == 3)
    world.clock.now += 5  # its model is started again
    world.router.loop.post(messages.Tick())
    await until(lambda: "a" in world.router.model.answers)
    again = await world.stored("a", Status.PROCESSING)
    assert (again.attempts, again.home, again.started_at) == (1, "", 1005.0)
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
    await world.router.predictions.create(made("a"))
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
    await world.router.predictions.create(made("a"))
    await world.running("a")
    world.router.loop.post(messages.Draining())
    answer = world.router.model.answers.pop("a")
    answer.set_exception(MayHaveBegunError("the router stopped using the back-end"))
    await until(lambda: world.router.predictions.in_flight("a") is None)
    assert (await world.stored("a", Status.STARTING)).attempts == 0
    await world.kill_and_restart()
    await world.running("a")


async def test_a_router_that_stops_keeps_what_is_durable(world: World) -> None:
    """What waits and is on disk is left for the next run; what is not ends with the reason."""
    world.router.model.opens.clear()
    kept = await world.router.predictions.create(made("a"))
    other = await world.router.predictions.create(made("b", durable=False))
    world.router.loop.post(messages.Draining())
    await asyncio.gather(kept.wait(5), other.wait(5))
    assert isinstance(other.dropped_with, ShuttingDown)
    assert other.prediction.status is Status.FAILED
    assert (await world.stored("a", Status.STARTING)).failure is None
    assert kept.prediction.status is Status.STARTING
    await world.kill_and_restart()
    await world.running("a")


async def test_a_refusal_is_counted(world: World) -> None:
    """By its model and its code."""
    predictions = world.router.predictions
    await predictions.create(made("first"))
    await world.running("first")
    for i in range(QUEUE_LIMIT):
        await predictions.create(made(f"n{i}"))
    with pytest.raises(QueueFull):
        await predictions.create(made("late"))
    assert world.router.refusals.noted == [("echo", "queue_full")]


async def test_keep_finds_what_has_ended(world: World) -> None:
    """For its holder, and for nobody else."""
    await world.router.predictions.create(made("a", owner="web"))
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
        return made("a", digest="d", owner="web")

    await create_once("a", "echo", "d", Caller("web"), make)
    assert await create_once("a", "echo", "d", Caller("web"), make) is None
    with pytest.raises(IdConflict, match="Cannot create 'a': the id is taken"):
        await create_once("a", "echo", "d", Caller("app"), make)
