"""Webhooks arrive as they were asked for, in order, and at least once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from router.keys.key import TRUSTED
from router.prediction import (
    Callback,
    Json,
    LogText,
    Outcome,
    OutputChunk,
    OutputFile,
    Prediction,
    Status,
    WebhookEvent,
)
from router.predictions.output_reader import with_values
from router.predictions.webhooks import (
    AT_ONCE_PER_HOST,
    AT_ONCE_PER_OWNER,
    RETRY_DELAYS_S,
    Webhooks,
)
from tests.router.fakes import GOOD, World, local
from tests.waiting import until

URL = "https://app.example/hook"


def made(prediction_id: str, *events: WebhookEvent, **changes: Any) -> Prediction:
    """A durable prediction whose caller wants to be told."""
    callback = Callback(URL, events) if events else Callback(URL)
    fields = {"durable": True, "created_at": 1000.0, "callback": callback, **changes}
    return Prediction(prediction_id, "echo", {}, **fields)


async def run(world: World, p: Prediction, outcome: Outcome = GOOD) -> None:
    """The prediction from its creation to its end."""
    await world.router.predictions.create(p)
    await world.running(p.id)
    world.answer(p.id, outcome)
    await world.stored(p.id, outcome.status)


async def outbox_empty(world: World) -> None:
    """Wait until nothing is to be delivered any more."""
    for _ in range(5000):
        if not await world.store.deliveries():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never empty")


def statuses(world: World) -> list[str]:
    """The statuses that were told, in order."""
    return [c.body["status"] for c in world.receiver.calls]


async def test_every_event_in_order(world: World) -> None:
    """Start, one for output and logs, which come together, and the end."""
    await run(world, made("a"))
    await outbox_empty(world)
    assert statuses(world) == ["processing", "processing", "succeeded"]
    _, output, completed = world.receiver.calls
    assert output.body["output"] == {"x": 1}
    assert completed.body == {
        "id": "a",
        "status": "succeeded",
        "output": {"x": 1},
        "logs": "a line\n",
    }
    assert {c.url for c in world.receiver.calls} == {URL}
    assert len({c.message_id for c in world.receiver.calls}) == 3


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ((WebhookEvent.START,), ["processing"]),
        ((WebhookEvent.OUTPUT,), ["processing"]),
        ((WebhookEvent.LOGS,), ["processing"]),
        ((WebhookEvent.COMPLETED,), ["succeeded"]),
        ((WebhookEvent.START, WebhookEvent.COMPLETED), ["processing", "succeeded"]),
    ],
)
async def test_only_what_is_asked_for(
    world: World, events: tuple[WebhookEvent, ...], told: list[str]
) -> None:
    """webhook_events_filter."""
    await run(world, made("a", *events))
    await until(lambda: len(statuses(world)) == len(told))
    await outbox_empty(world)
    assert statuses(world) == told


async def test_output_and_logs_are_throttled(world: World) -> None:
    """At most one in 500 ms for one prediction; start is not held back, nor are others."""
    webhooks = world.router.webhooks
    p = replace(made("a"), status=Status.PROCESSING)
    for step_s in (0.0, 0.1, 0.3, 0.2, 0.4):
        world.clock.advance(step_s)
        webhooks.notify(replace(p, logs=f"{world.clock.now - 1000:.1f}"), WebhookEvent.LOGS)
        webhooks.notify(p, WebhookEvent.OUTPUT)
    webhooks.notify(replace(p, logs="start"), WebhookEvent.START)
    webhooks.notify(replace(p, id="b", logs="b"), WebhookEvent.LOGS)
    await until(lambda: len(world.receiver.calls) == 4)
    assert sorted(c.body["logs"] for c in world.receiver.calls) == ["0.0", "0.6", "b", "start"]


async def test_a_slow_receiver_is_told_how_things_are(world: World) -> None:
    """What came while it took its time is one webhook, the newest; then nothing waits."""
    webhooks = world.router.webhooks
    p = replace(made("a", WebhookEvent.LOGS), status=Status.PROCESSING)
    world.receiver.gate.clear()
    for n in range(20):
        webhooks.notify(replace(p, logs=str(n)), WebhookEvent.LOGS)
        world.clock.advance(0.5)
    await until(lambda: len(world.receiver.calls) == 1)
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == 2)
    assert [c.body["logs"] for c in world.receiver.calls] == ["0", "19"]


async def test_the_end_overtakes_what_is_past(world: World) -> None:
    """`completed` comes after what is being sent, and instead of what still waits."""
    await world.router.predictions.create(made("a"))
    await world.running("a")
    await until(lambda: len(world.receiver.calls) == 1)  # start
    world.receiver.gate.clear()
    report = world.router.model.reports["a"]
    for n in range(10):
        report(LogText(f"{n}\n"))
        world.clock.advance(0.5)
    await until(lambda: len(world.receiver.calls) == 2)
    world.router.model.answers["a"].set_result(Outcome(Status.SUCCEEDED, output=1, logs="all"))
    await world.stored("a", Status.SUCCEEDED)
    await until(lambda: world.router.predictions.in_flight("a") is None)
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == 3)
    await outbox_empty(world)
    assert [c.body["status"] for c in world.receiver.calls] == [
        "processing",
        "processing",
        "succeeded",
    ]


async def test_the_last_output_is_never_too_soon(world: World) -> None:
    """A webhook for outputs only gets the whole output, however soon after a part."""
    await world.router.predictions.create(made("a", WebhookEvent.OUTPUT))
    await world.running("a")
    world.router.model.reports["a"](OutputChunk("one"))
    await until(lambda: len(world.receiver.calls) == 1)
    world.router.model.answers["a"].set_result(Outcome(Status.SUCCEEDED, output=["one", "two"]))
    await until(lambda: len(world.receiver.calls) == 2)
    assert [c.body["output"] for c in world.receiver.calls] == [["one"], ["one", "two"]]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
async def test_every_end_is_told(world: World, status: Status) -> None:
    """Also one that is no success, without an output before it."""
    await run(world, made("a", WebhookEvent.OUTPUT, WebhookEvent.COMPLETED), Outcome(status))
    await outbox_empty(world)
    assert statuses(world) == [status]


async def test_one_that_never_ran_is_told(world: World) -> None:
    """Aborted at its deadline."""
    await world.router.predictions.create(made("a", callback=None))
    await world.running("a")
    await world.router.predictions.create(made("b", WebhookEvent.COMPLETED, deadline_at=1001.0))
    world.clock.advance(1)
    await until(lambda: statuses(world) == ["aborted"])


async def test_retried_with_back_off(world: World) -> None:
    """The same message again, later each time, until it arrives."""
    world.receiver.status = 500
    await run(world, made("a", WebhookEvent.COMPLETED))
    for n, delay_s in enumerate(RETRY_DELAYS_S[:3], 1):
        await until(lambda n=n: len(world.receiver.calls) == n and world.clock.pending())  # type: ignore[misc]
        assert world.clock.pending()[0].at == world.clock.now + delay_s
        if n == 3:
            world.receiver.status = 204
        world.clock.advance(delay_s)
    await outbox_empty(world)
    assert len(world.receiver.calls) == 4
    assert len({c.message_id for c in world.receiver.calls}) == 1
    assert world.clock.pending() == []


async def test_the_result_stays_when_every_retry_fails(world: World) -> None:
    """The webhook is given up in the end; the result can be asked for."""
    world.receiver.status = 0
    await run(world, made("a", WebhookEvent.COMPLETED))
    for n, delay_s in enumerate(RETRY_DELAYS_S, 1):
        await until(lambda n=n: len(world.receiver.calls) == n and world.clock.pending())  # type: ignore[misc]
        world.clock.advance(delay_s)
    await outbox_empty(world)
    assert len(world.receiver.calls) == len(RETRY_DELAYS_S) + 1
    assert (await world.router.predictions.get("a", TRUSTED)).output == {"x": 1}


async def test_who_is_gone_is_not_called_again(world: World) -> None:
    """410 ends it."""
    world.receiver.status = 410
    await run(world, made("a", WebhookEvent.COMPLETED))
    await outbox_empty(world)
    assert len(world.receiver.calls) == 1
    assert world.clock.pending() == []


async def test_it_survives_a_kill(world: World) -> None:
    """In flight or between retries: the next run delivers it, under the same id."""
    world.receiver.status = 503
    await run(world, made("between", WebhookEvent.COMPLETED))
    await until(world.clock.pending)
    world.receiver.gate.clear()
    await run(world, made("inflight", WebhookEvent.COMPLETED))
    await until(lambda: len(world.receiver.calls) == 2)
    await world.kill_and_restart()
    world.receiver.status = 200
    world.receiver.gate.set()
    world.clock.advance(10)
    await outbox_empty(world)
    ids = [(c.body["id"], c.message_id) for c in world.receiver.calls[2:]]
    assert sorted(ids) == [
        ("between", "msg_between_completed"),
        ("inflight", "msg_inflight_completed"),
    ]


async def test_a_slow_receiver_gets_them_in_order(world: World) -> None:
    """The end is not sent before the start has been answered."""
    world.receiver.gate.clear()
    await run(world, made("a", WebhookEvent.START, WebhookEvent.COMPLETED))
    assert statuses(world) == ["processing"]
    world.receiver.gate.set()
    await outbox_empty(world)
    assert statuses(world) == ["processing", "succeeded"]


async def test_a_slow_receiver_holds_up_nobody_else(world: World) -> None:
    """Few are sent to one host at once; another host's go out meanwhile."""
    world.receiver.gate.clear()
    webhooks = world.router.webhooks
    for i in range(3 * AT_ONCE_PER_HOST):
        webhooks.notify(made(f"s{i}"), WebhookEvent.START)
    webhooks.notify(made("f", callback=Callback("https://fast.example/")), WebhookEvent.START)
    await until(lambda: any(c.body["id"] == "f" for c in world.receiver.calls))
    assert len(world.receiver.calls) == AT_ONCE_PER_HOST + 1
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == 3 * AT_ONCE_PER_HOST + 1)


async def test_a_webhook_on_the_way_is_brief(world: World) -> None:
    """There may be two a second: a long log is told by its end, a large output not at all."""
    await world.router.predictions.create(made("a", WebhookEvent.LOGS, WebhookEvent.OUTPUT))
    await world.running("a")
    report = world.router.model.reports["a"]
    for n in range(50_000):
        report(LogText(f"line {n} {'x' * 40}\n"))
    world.clock.advance(1)
    report(OutputChunk("o" * 500_000))
    await until(lambda: len(world.receiver.calls) >= 2)
    body = world.receiver.calls[-1].body
    assert body["output"] is None
    assert len(body["logs"]) < 300_000
    assert body["logs"].splitlines()[-1].startswith("line 49999 ")


async def test_a_webhook_is_not_larger_than_a_receiver_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is there to be fetched."""
    monkeypatch.setattr("router.predictions.webhooks.MAX_BODY_BYTES", 10_000, raising=False)
    await run(
        world, made("a", WebhookEvent.COMPLETED), Outcome(Status.SUCCEEDED, output="o" * 20_000)
    )
    await outbox_empty(world)
    assert [c.body["output"] for c in world.receiver.calls] == [None]
    stored = await world.store.get("a")
    assert stored is not None
    assert stored.output == "o" * 20_000


async def test_a_webhook_that_is_too_large_by_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes without its output, wherever the files are in that."""
    monkeypatch.setattr("router.predictions.webhooks.MAX_BODY_BYTES", 10_000)

    async def render(p: Prediction) -> Json:
        files = [(f.place, "f" * 20_000) for f in p.output_files]
        return {"id": p.id, "output": with_values(p.output, files)}

    webhooks = Webhooks(world.store, world.store, world.receiver, world.clock, render, local=local)
    file = OutputFile(("picture",), "/outputs/a", "output-picture.png", "image/png", 20_000)
    p = replace(made("a"), output={"picture": None}, output_files=(file,))
    webhooks.notify(p, WebhookEvent.OUTPUT, last=True)
    await until(lambda: world.receiver.calls)
    assert [c.body for c in world.receiver.calls] == [{"id": "a", "output": None}]


async def test_one_host_is_one_however_it_is_written(world: World) -> None:
    """Names in the URL, letters of another size and a dot at the end make no second one."""
    world.receiver.gate.clear()
    webhooks = world.router.webhooks
    for i in range(AT_ONCE_PER_HOST):
        for n, host in enumerate(("a.example", "u@a.example", "A.EXAMPLE", "a.example.:443")):
            callback = Callback(f"https://{host}/hook")
            webhooks.notify(made(f"{i}-{n}", callback=callback), WebhookEvent.START)
    webhooks.notify(made("f", callback=Callback("https://fast.example/")), WebhookEvent.START)
    await until(lambda: any(c.body["id"] == "f" for c in world.receiver.calls))
    assert len(world.receiver.calls) == AT_ONCE_PER_HOST + 1
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == 4 * AT_ONCE_PER_HOST + 1)


async def test_one_owners_hosts_hold_up_nobody_else(world: World) -> None:
    """Each of its webhooks names another host, and none of them answers."""
    world.receiver.gate.clear()
    webhooks = world.router.webhooks
    for i in range(AT_ONCE_PER_OWNER + 5):
        callback = Callback(f"https://host{i}.example/")
        webhooks.notify(made(f"s{i}", callback=callback, owner="one"), WebhookEvent.START)
    webhooks.notify(
        made("f", callback=Callback("https://fast.example/"), owner="other"), WebhookEvent.START
    )
    await until(lambda: any(c.body["id"] == "f" for c in world.receiver.calls))
    assert len(world.receiver.calls) == AT_ONCE_PER_OWNER + 1
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == AT_ONCE_PER_OWNER + 6)
