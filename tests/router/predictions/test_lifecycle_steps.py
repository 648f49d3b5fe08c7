"""Each step of a prediction: what is shown, who hears of it, and what is left when it has ended."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import (
    InsufficientStorage,
    ModelUnavailable,
    QueueFull,
    RouterError,
)
from router.keys.key import TRUSTED, Caller
from router.prediction import (
    Callback,
    Failure,
    FileRef,
    LogText,
    OutputChunk,
    Prediction,
    Status,
)
from router.predictions.in_flight import CANCELED
from router.scheduling import messages
from tests.router.fakes import QUEUE_LIMIT, World
from tests.router.predictions.lives import forgotten, hear, made
from tests.waiting import until

REFUSED = ModelUnavailable("no", details={"tail": ["x"]}, retry_after_s=7.0)


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
