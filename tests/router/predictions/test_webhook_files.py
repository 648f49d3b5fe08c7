"""Compact webhooks with progress, and output files that go where the receiver wants them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from msgspec.structs import replace

from router.prediction import (
    Callback,
    Json,
    LogText,
    OutputFile,
    Prediction,
    Status,
    WebhookEvent,
)
from router.predictions.webhook_bodies import TAIL_BYTES, log_tail, percent
from router.predictions.webhooks import RETRY_DELAYS_S
from tests.router.fakes import World
from tests.waiting import until

URL = "https://app.example/hook"
EVENTS = (
    WebhookEvent.START,
    WebhookEvent.PROGRESS,
    WebhookEvent.FILES,
    WebhookEvent.COMPLETED,
)


def made(prediction_id: str, events: tuple[str, ...] = EVENTS) -> Prediction:
    """A durable prediction whose receiver keeps it in a row."""
    callback = Callback(URL, events)
    return Prediction(prediction_id, "echo", {}, 1000.0, durable=True, callback=callback)


async def begin(world: World, p: Prediction) -> Any:
    """The prediction runs; returns what its model reports its lines to."""
    await world.router.predictions.create(p)
    await world.running(p.id)
    return world.router.model.reports[p.id]


def file(name: str, place: tuple[str | int, ...] = (), path: str = "/outputs/a") -> OutputFile:
    """An output file."""
    return OutputFile(place, path, name, "image/png", 8)


async def end(world: World, p: Prediction, output: Json, *files: OutputFile) -> None:
    """The prediction has ended, and its row with its webhook is on disk."""
    ended = replace(
        p, status=Status.SUCCEEDED, output=output, output_files=files, completed_at=world.clock.now
    )
    await world.store.put(ended, world.clock.now)
    world.router.webhooks.completed(ended)


async def delivered(world: World) -> None:
    """Wait until nothing is to be delivered any more."""
    for _ in range(5000):
        if not await world.store.deliveries():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never empty")


async def test_progress_once_a_second_with_the_end_of_the_log(world: World) -> None:
    """Percent and log tail, with their time; no inputs, and no more than one a second."""
    report = await begin(world, made("a"))
    await until(lambda: len(world.receiver.calls) == 1)  # start
    for step in range(30):
        report(LogText(f"{step}%|#\n"))
        world.clock.advance(0.1)
        await until(lambda: not world.router.webhooks._sending)
    bodies = [call.body for call in world.receiver.calls[1:]]
    assert [body["progress"] for body in bodies] == [0, 10, 20]
    assert bodies[1]["log_tail"].splitlines()[-1] == "10%|#"
    assert [b["at"] - a["at"] for a, b in itertools.pairwise(bodies)] == [1000, 1000]
    assert "logs" not in bodies[0]


async def test_a_slow_receiver_gets_the_newest_progress(world: World) -> None:
    """With the time of its own news, not of an older or later one."""
    report = await begin(world, made("a", (WebhookEvent.PROGRESS,)))
    world.receiver.gate.clear()
    for step in range(5):
        report(LogText(f"{step}%|#\n"))
        world.clock.advance(1)
    newest_ms = int((world.clock.now - 1) * 1000)
    await until(lambda: len(world.receiver.calls) == 1)
    world.receiver.gate.set()
    await until(lambda: len(world.receiver.calls) == 2)
    body = world.receiver.calls[1].body
    assert (body["progress"], body["at"]) == (4, newest_ms)


async def test_other_receivers_get_neither(world: World) -> None:
    """The two events are only for receivers that name them."""
    p = replace(made("a"), callback=Callback(URL))
    report = await begin(world, p)
    report(LogText("50%|#\n"))
    await until(lambda: len(world.receiver.calls) == 2)  # start and logs
    await end(world, replace(p, id="b"), None, file("output.png"))
    await delivered(world)
    assert len(world.receiver.calls) == 3
    assert all("at" not in call.body for call in world.receiver.calls)
    assert world.receiver.files == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (" 42%|████▏   | 21/50", 42),
        ("step 3\n12.5 %\n", 12),
        ("loss 3.101%", None),
        ("250%", None),
        ("preview: data:image/webp;base64,UklGRg==", None),
        ("", None),
    ],
)
def test_percent(line: str, shown: int | None) -> None:
    """The last percentage that is printed, as tqdm prints it and others do."""
    p = replace(made("a"), status=Status.PROCESSING, logs=line)
    assert percent(p) == (3 if line.startswith("loss") else shown)
    assert percent(replace(p, status=Status.SUCCEEDED)) == 100


@pytest.mark.parametrize("letter", ["x", "é", "語", "😀"])
def test_the_log_tail_is_whole_lines(letter: str) -> None:
    """At most TAIL_BYTES, however many bytes a character takes; of one long line, its end."""
    logs = "".join(f"{n} {letter * 50}\n" for n in range(2000))
    tail = log_tail(logs)
    assert TAIL_BYTES - 300 < len(tail.encode()) <= TAIL_BYTES
    assert logs.endswith(tail)
    assert tail[0].isdigit()
    one = log_tail(letter * 100_000 + "end")
    assert one.endswith("end")
    assert TAIL_BYTES - 4 <= len(one.encode()) <= TAIL_BYTES


async def test_files_are_sent_before_completed(world: World) -> None:
    """The receiver is asked, the file goes to its URL, and `completed` says where it belongs."""
    world.receiver.answer = {"uploads": {"output-picture.png": "https://storage.example/1"}}
    picture = file("output-picture.png", ("picture",))
    await end(world, made("a"), {"picture": None, "n": 1}, picture)
    await delivered(world)
    question, completed = world.receiver.calls[-2:]
    shown = {"place": ["picture"], "name": "output-picture.png", "media_type": "image/png"}
    views = [{**shown, "size_bytes": 8}]
    assert question.body == {"id": "a", "event": "files", "files": views, "total": 1}
    [(url, _, media_type)] = world.receiver.files
    assert (url, media_type) == ("https://storage.example/1", "image/png")
    assert completed.body["output"] == {"picture": None, "n": 1}
    assert completed.body["output_files"] == question.body["files"]
    assert completed.body["progress"] == 100


async def test_many_files_are_asked_for_in_parts(world: World) -> None:
    """A receiver has to make a URL for each: at most 25 in one question, which says how many there
    are in all. Each question has an id of its own, or a receiver would take it for a repetition."""
    names = [f"{n}.png" for n in range(60)]
    world.receiver.answer = {"uploads": {name: f"https://s.example/{name}" for name in names}}
    files = [file(name, (n,)) for n, name in enumerate(names)]
    await end(world, made("a"), [None] * 60, *files)
    await delivered(world)
    *questions, completed = world.receiver.calls
    asked = [[f["name"] for f in call.body["files"]] for call in questions]
    assert asked == [names[:25], names[25:50], names[50:]]
    assert {call.body["total"] for call in questions} == {60}
    assert len({call.message_id for call in questions}) == 3
    assert [url for url, *_ in world.receiver.files] == [f"https://s.example/{n}" for n in names]
    assert [f["name"] for f in completed.body["output_files"]] == names


@pytest.mark.parametrize("what", ["receiver", "storage", "answer"])
async def test_an_outage_of_an_hour_is_outlasted(world: World, what: str) -> None:
    """Whatever is down: `completed` comes only after the files, within a quarter of an hour."""
    good = {"uploads": {"output.png": "https://storage.example/1"}}
    world.receiver.answer = {"uploads": 7} if what == "answer" else good
    world.receiver.status = 503 if what == "receiver" else 200
    world.receiver.put_status = 500 if what == "storage" else 200
    await end(world, made("a"), None, file("output.png"))
    down_s = 0.0
    for delay_s in RETRY_DELAYS_S:
        await until(world.clock.pending)
        if down_s > 3600:
            break
        world.clock.advance(delay_s)
        down_s += delay_s
    world.receiver.status = world.receiver.put_status = 200
    world.receiver.answer = good
    assert not any(call.body.get("status") == "succeeded" for call in world.receiver.calls)
    assert delay_s <= 900
    world.clock.advance(delay_s)
    await delivered(world)
    assert world.receiver.calls[-1].body["output_files"][0]["name"] == "output.png"
    assert 23 * 3600 < sum(RETRY_DELAYS_S) < 24 * 3600, "results are kept for a day"


async def test_a_file_that_is_gone_does_not_stop_the_end(world: World) -> None:
    """The other file is sent, and the result says which one the receiver has."""
    files = file("0.png", (0,), "/outputs/gone"), file("1.png", (1,), "/outputs/here")
    urls = {f"{i}.png": f"https://s.example/{i}" for i in range(2)}
    world.receiver.answer = {"uploads": urls}
    await end(world, made("a"), [None, None], *files)
    await until(lambda: len(world.receiver.calls) == 2)
    assert [f["name"] for f in world.receiver.calls[1].body["output_files"]] == ["1.png"]
    assert [url for url, *_ in world.receiver.files] == ["https://s.example/1"]
