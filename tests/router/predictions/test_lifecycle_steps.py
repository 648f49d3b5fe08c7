"""Each step of a prediction: what is shown, who hears of it, and what is left when it has ended."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from router.errors import (
    InsufficientStorage,
    ModelUnavailable,
    QueueFull,
    RouterError,
    UnknownPrediction,
)
from router.keys.key import TRUSTED, Caller
from router.models.process_interface import MayHaveBegunError
from router.observability.facts import Fact, Facts, PredictionChanged, PredictionEnded
from router.prediction import (
    Callback,
    Failure,
    FileRef,
    LogText,
    Outcome,
    OutputChunk,
    Prediction,
    Status,
)
from router.predictions.custom_metrics import MAX_BYTES
from router.predictions.in_flight import CANCELED, MAX_ATTEMPTS
from router.scheduling import messages
from tests.router.fakes import GOOD, KEEP_S, QUEUE_LIMIT, TIME_LIMIT_S, World
from tests.waiting import LIMIT_S, until

DIED = Outcome(Status.FAILED, failure=Failure("worker_died", "gone"))
REFUSED = ModelUnavailable("no", details={"tail": ["x"]}, retry_after_s=7.0)


def made(prediction_id: str, **changes: Any) -> Prediction:
    """A durable prediction."""
    fields = {"durable": True, "created_at": 1000.0, **changes}
    return Prediction(prediction_id, "echo", {"n": 1}, **fields)


def hear(world: World) -> list[Fact]:
    """The facts of all predictions from now on."""
    heard: list[Fact] = []
    world.router.predictions._facts = Facts([heard.append], delay_s=0)
    return heard


def forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that overflow forgets from now on."""
    ids: list[str] = []
    forget = world.router.predictions.overflow.forget

    def note(prediction_id: str) -> None:
        ids.append(prediction_id)
        forget(prediction_id)

    monkeypatch.setattr(world.router.predictions.overflow, "forget", note)
    return ids


# ---- what is shown -----------------------------------------------------------------------


async def test_pages(world: World) -> None:
    """Newest first, of one owner or of all, from either side; what runs with its progress."""
    for n, owner in enumerate(("ada", "ada", "bob", "ada")):
        await world.router.predictions.create(made(str(n), owner=owner, created_at=1000.0 + n))
    await world.running("0")
    world.router.model.reports["0"](LogText("a line\n"))

    async def ids(caller: Caller, **place: Any) -> str:
        return "".join([p.id for p in await world.router.predictions.page(caller, **place)])

    ada = Caller("ada")
    assert [await ids(TRUSTED, limit=9), await ids(ada, limit=9)] == ["3210", "310"]
    assert await ids(ada, limit=2) == "31"
    assert await ids(ada, before=(1003.0, "3"), limit=9) == "10"
    assert await ids(ada, after=(1000.0, "0"), limit=9) == "31"
    shown = await world.router.predictions.page(TRUSTED, limit=9)
    assert (await world.router.predictions.get("0", TRUSTED)).logs == "a line\n"
    assert [p.logs for p in shown] == ["", "", "", "a line\n"]
    world.answer("0")
    await world.stored("0", Status.SUCCEEDED)
    await until(lambda: world.router.predictions.in_flight("0") is None)
    assert (await world.router.predictions.page(ada, limit=9))[-1].output == {"x": 1}


async def test_its_place_in_the_queue(world: World) -> None:
    """While it waits, and only then."""
    predictions = world.router.predictions
    for name in "abc":
        await predictions.create(made(name))
    await world.running("a")
    places = [predictions.eta(name) for name in ("a", "b", "c", "nosuch")]
    assert [place and place[0] for place in places] == [None, 1, 2, None]
    assert places[1] is not None
    assert places[2] is not None
    assert places[1][1] < places[2][1]


async def test_one_that_is_kept_is_on_disk_at_once(world: World) -> None:
    """In the state that its caller sees, for its owner only."""
    predictions = world.router.predictions
    await predictions.create(made("a", durable=False, owner="ada"))
    await until(lambda: "a" in world.router.model.answers)
    kept = await predictions.keep("a", Caller("ada"))
    assert kept == await world.store.get("a")
    assert (kept.durable, kept.status) == (True, Status.PROCESSING)


# ---- accepted or refused -----------------------------------------------------------------


async def test_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prediction is not accepted, and its files are deleted; nothing is in flight."""

    async def fail(_: Prediction) -> bool:
        raise InsufficientStorage("full")

    monkeypatch.setattr(world.store, "claim", fail)
    with pytest.raises(InsufficientStorage):
        await world.router.predictions.create(made("a", files=(FileRef("f", "/spool/1", "x"),)))
    assert world.spool.removed == ["/spool/1"]
    assert world.router.predictions.in_flight("a") is None


async def test_a_refused_one_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer, no place, and no fact but the refusal; its waiters are woken."""
    predictions = world.router.predictions
    await predictions.create(made("first"))
    await world.running("first")
    for i in range(QUEUE_LIMIT):
        await predictions.create(made(f"n{i}"))
    ids, heard, alarms = forgotten(world, monkeypatch), hear(world), world.clock.pending()
    with pytest.raises(QueueFull):
        await predictions.create(made("late", durable=False, deadline_at=1005.0))
    assert (ids, world.clock.pending()) == (["late"], alarms)
    assert predictions.in_flight("late") is None
    await until(lambda: heard)
    assert [type(fact).__name__ for fact in heard] == ["PredictionRefused"]


@pytest.mark.parametrize(("retry_after_s", "later_s"), [(7.0, 7.0), (None, 1.0)])
async def test_an_accepted_one_survives_a_full_queue(
    retry_after_s: float | None, later_s: float, world: World
) -> None:
    """It is submitted again when the queue says, and later than at once."""
    predictions = world.router.predictions
    await predictions.create(made("a"))
    await world.running("a")
    in_flight = await predictions.create(made("b"))
    world.router.loop.post(messages.Withdrawn("b"))
    predictions.dropped("b", QueueFull("full", retry_after_s=retry_after_s))
    world.answer("a")
    await world.stored("a", Status.SUCCEEDED)
    world.clock.advance(later_s - 0.1)
    assert predictions.eta("b") is None
    assert in_flight.prediction.status is Status.STARTING
    world.clock.advance(0.1)
    await world.running("b")


async def test_one_that_has_ended_is_not_submitted_again(world: World) -> None:
    """It was canceled before the queue had room."""
    predictions = world.router.predictions
    await predictions.create(made("a"))
    await world.running("a")
    await predictions.create(made("b"))
    predictions.dropped("b", QueueFull("full"))
    predictions.cancel("b")
    await world.stored("b", Status.CANCELED)
    await until(lambda: predictions.in_flight("b") is None)
    world.clock.advance(1)
    assert predictions.eta("b") is None


async def test_a_refusal_at_one_place_is_tried_at_the_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not ended while the other place takes it. One that was withdrawn is not sent there."""
    predictions = world.router.predictions
    asked: list[tuple[str, RouterError]] = []

    def refused(prediction_id: str, error: RouterError) -> bool:
        asked.append((prediction_id, error))
        return True

    monkeypatch.setattr(predictions.overflow, "refused", refused)
    await predictions.create(made("a"))
    await world.running("a")
    in_flight = await predictions.create(made("b"))
    predictions.dropped("b", REFUSED)
    assert asked == [("b", REFUSED)]
    assert in_flight.prediction.status is Status.STARTING
    in_flight.end_reason = CANCELED
    predictions.dropped("b", REFUSED)
    assert (len(asked), in_flight.prediction.status) == (1, Status.CANCELED)
    assert in_flight.prediction.failure == CANCELED.failure


async def test_a_refusal_after_it_was_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has failed, with all that the refusal says."""
    ids = forgotten(world, monkeypatch)
    await world.router.predictions.create(made("a"))
    await world.running("a")
    await world.router.predictions.create(made("b"))
    world.clock.now += 2
    world.router.predictions.dropped("b", REFUSED)
    end = await world.stored("b", Status.FAILED)
    assert end.failure == Failure("model_unavailable", "no", {"tail": ["x"]}, 7.0)
    assert (end.completed_at, ids) == (world.clock.now, ["b"])


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


async def test_a_start_and_an_output_are_announced(world: World) -> None:
    """To the receiver of its webhooks."""
    callback = Callback("https://a.example/", ("start", "output"))
    await world.router.predictions.create(made("a", callback=callback))
    await world.running("a")
    await until(lambda: len(world.receiver.calls) == 1)
    world.clock.advance(1)
    world.router.model.reports["a"](OutputChunk("one"))
    await until(lambda: len(world.receiver.calls) == 2)
    world.answer("a")
    await until(lambda: len(world.receiver.calls) == 3)
    outputs = [call.body["output"] for call in world.receiver.calls]
    assert outputs == [None, ["one"], {"x": 1}]


async def test_a_line_of_the_log_is_announced(world: World) -> None:
    """To a receiver that wants the log and no output."""
    callback = Callback("https://a.example/", ("logs",))
    await world.router.predictions.create(made("a", callback=callback))
    await world.running("a")
    world.router.model.reports["a"](OutputChunk("one"))
    world.router.model.reports["a"](LogText("a line\n"))
    await until(lambda: world.receiver.calls)
    assert [call.body["logs"] for call in world.receiver.calls] == ["a line\n"]


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
    world.router.loop.post(messages.Draining())
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
    world.router.loop.post(messages.Draining())
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
        world.router.loop.post(messages.Draining())
    assert in_flight.prediction.home == "there"
    assert predictions.handed_back("a", may_have_begun=may_have_begun)
    stored = await world.stored("a", Status.STARTING)
    assert (stored.attempts, stored.home) == after
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
