"""A prediction that has not ended: what is kept of its progress, and who is woken by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from router.prediction import (
    FileRef,
    Json,
    LogText,
    MetricUpdate,
    Outcome,
    OutputChunk,
    Prediction,
    Status,
    advance,
    conclude,
)
from router.predictions import in_flight as module
from router.predictions.custom_metrics import MAX_BYTES
from router.predictions.in_flight import (
    ELEMENT_BYTES,
    LINK_BYTES,
    MAX_METRIC_BYTES,
    OVERDUE,
    InFlight,
    chunks_of,
    hopeless,
    metrics_of,
    too_long,
)
from router.predictions.prediction_log import HEAD_BYTES, TAIL_BYTES, gap_line
from router.predictions.worker_death import MAX_ATTEMPTS
from router.secret_inputs import SecretValues
from tests.router.fakes import HandClock

LIMIT_S = 60.0
WAITING = Prediction("a", "m", {}, created_at=1.0, files=(FileRef("f", "/1", "1"),))
GAP = gap_line(3, 30)


def running(**changes: Any) -> InFlight:
    """A prediction that runs."""
    p = advance(Prediction("a", "m", {}, created_at=1.0, **changes), Status.PROCESSING, 2.0)
    return InFlight(p, asyncio.get_running_loop().create_future())


# ---- what is kept ------------------------------------------------------------------------


async def test_metric_updates_are_bounded() -> None:
    """Followers see the first so many; a value that is too large is none of them."""
    in_flight = running()
    in_flight.note(MetricUpdate("large", "x" * MAX_BYTES))
    in_flight.note(OutputChunk("one"))
    in_flight.note(MetricUpdate("a.b", 0.5))
    assert in_flight.metrics_since(0) == [(1, MetricUpdate("a.b", 0.5))]
    assert in_flight.metrics_since(1) == []
    assert in_flight.present().metrics == {"a": {"b": 0.5}}
    for _ in range(MAX_METRIC_BYTES // len("counted")):
        in_flight.note(MetricUpdate("counted", 1, "increment"))
    seen = len(in_flight.metrics_since(0))
    assert 1000 < seen < MAX_METRIC_BYTES // len("counted")
    in_flight.note(MetricUpdate("counted", 1, "increment"))
    assert len(in_flight.metrics_since(0)) == seen
    in_flight.restart()
    assert in_flight.metrics_since(0) == []
    assert in_flight.present().metrics == {}


async def test_metrics_of_exactly_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name and the value as JSON count. A later update that fits is kept; after a restart
    there is room again."""
    monkeypatch.setattr(module, "MAX_METRIC_BYTES", 10)
    in_flight = running()
    for name, value in (("four", 1), ("four", 12), ("four", 1), ("z", 123), ("z", 0)):
        in_flight.note(MetricUpdate(name, value))
    assert [u.value for _, u in in_flight.metrics_since(0)] == [1, 1]
    in_flight.restart()
    in_flight.note(MetricUpdate("four", 123_456))
    assert in_flight.present().metrics == {"four": 123_456}


@pytest.mark.parametrize("size_bytes", [0, 10])
async def test_an_output_of_exactly_the_limit(
    size_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte more is refused, and nobody is woken for it. After a restart there is room again."""
    monkeypatch.setattr(module, "MAX_STREAMED_BYTES", 2 * (10 + ELEMENT_BYTES))
    in_flight = running()
    chunk = OutputChunk("12345678", size_bytes)  # ten bytes with its quotation marks
    for _ in range(2):
        assert [in_flight.note(chunk), in_flight.note(chunk)] == [True, True]
        assert in_flight.progress_since(0, 0) == (["12345678"] * 2, [])
        version = in_flight.version
        assert not in_flight.note(OutputChunk(1, 1))
        assert (in_flight.version, in_flight.present().output) == (version, ["12345678"] * 2)
        in_flight.restart()
        assert in_flight.present() is in_flight.prediction


async def test_the_progress_so_far() -> None:
    """It is shown while the prediction runs; what has not come is None or empty."""
    in_flight = running()
    assert in_flight.present() is in_flight.prediction
    in_flight.note(LogText("a line\n"))
    now = in_flight.present()
    assert (now.output, now.logs, now.metrics, now.status) == (
        None,
        "a line\n",
        {},
        Status.PROCESSING,
    )
    in_flight.note(OutputChunk(None))
    in_flight.note(MetricUpdate("n", 1))
    now = in_flight.present()
    assert (now.output, now.logs, now.metrics) == ([None], "a line\n", {"n": 1})
    in_flight.prediction = advance(in_flight.prediction, Status.STARTING, 3.0)
    assert in_flight.present() is in_flight.prediction


async def test_a_metric_alone_is_shown() -> None:
    """Before any output and any line of the log."""
    in_flight = running(metrics={"before": 1})
    in_flight.note(MetricUpdate("n", 2))
    assert in_flight.present().metrics == {"before": 1, "n": 2}


@pytest.mark.parametrize(
    ("namespace", "chunks", "are_shown"),
    [
        ("", [136], True),
        ("", [137], False),
        ("", [10, 10, 10], False),
        ("", ["data:,1"], True),
        ("", ["data:," + "x" * 200], False),
        ("me", ["data:," + "x" * 20_000], True),
        ("me", ["data:,1", "data:,2"], False),
        ("me", ["x" * 300 + "data:"], False),
        ("me", [["data:," + "x" * 300]], False),
    ],
)
async def test_an_output_before_the_end_is_short(
    namespace: str, chunks: list[Any], are_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one is left out of a webhook. A file counts as the URL that stands for it, where it
    has one. An integer here is a chunk of that size."""
    limit = LINK_BYTES if namespace else 136 + ELEMENT_BYTES
    monkeypatch.setattr(module, "BRIEF_BYTES", limit)
    in_flight = running(namespace=namespace)
    for chunk in chunks:
        in_flight.note(OutputChunk(chunk, chunk if isinstance(chunk, int) else 0))
    in_flight.note(LogText("a line\n"))
    in_flight.note(MetricUpdate("n", 1))
    brief = in_flight.brief()
    assert brief.output == (chunks if are_shown else None)
    assert brief.metrics == {"n": 1}
    assert brief.logs == "a line\n"
    in_flight.restart()
    in_flight.note(OutputChunk(1))
    assert in_flight.brief().output == [1]


async def test_a_log_before_the_end_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is shown, with all of the output; None when there is no output."""
    monkeypatch.setattr(module, "BRIEF_BYTES", ELEMENT_BYTES + 10)
    in_flight = running()
    in_flight.note(LogText("x" * HEAD_BYTES + "\n"))
    in_flight.note(LogText("the end\n"))
    brief = in_flight.brief()
    assert (brief.output, brief.logs) == (None, f"{gap_line(1, HEAD_BYTES + 1)}the end\n")
    in_flight.note(OutputChunk(1, 10))
    assert in_flight.brief().output == [1]


async def test_a_log_of_exactly_the_limit_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a webhook, as one that is shorter."""
    monkeypatch.setattr(module, "BRIEF_BYTES", 10)
    in_flight = running()
    in_flight.note(LogText("123456789\n"))
    assert in_flight.brief().logs == "123456789\n"


# ---- its end -----------------------------------------------------------------------------


async def with_progress() -> InFlight:
    """One that has an output, a log and a metric."""
    in_flight = running()
    for progress in (OutputChunk(1), LogText("so far\n"), MetricUpdate("n", 1)):
        in_flight.note(progress)
    return in_flight


@pytest.mark.parametrize(
    ("outcome", "output", "logs", "metrics"),
    [
        (Outcome(Status.FAILED), [1], "so far\n", {"n": 1}),
        (Outcome(Status.CANCELED, output=[]), [], "so far\n", {"n": 1}),
        (Outcome(Status.FAILED, logs="its own\n"), [1], "its own\n", {"n": 1}),
        (Outcome(Status.FAILED, metrics={"m": 2}), [1], "so far\n", {"m": 2}),
        (Outcome(Status.FAILED, logs=GAP), [1], "so far\n", {"n": 1}),
        (Outcome(Status.SUCCEEDED, logs=GAP), None, "so far\n", {}),
        (Outcome(Status.SUCCEEDED, logs=GAP + "more\n"), None, GAP + "more\n", {}),
        (Outcome(Status.SUCCEEDED, output=0), 0, "", {}),
    ],
)
async def test_what_an_end_lacks(
    outcome: Outcome, output: Json, logs: str, metrics: dict[str, Json]
) -> None:
    """It comes from the progress, unless the run succeeded: then only a log that was too long for
    the response does."""
    end = (await with_progress()).with_progress(outcome)
    assert (end.status, end.output, end.logs, end.metrics) == (
        outcome.status,
        output,
        logs,
        metrics,
    )


async def test_an_end_without_any_progress() -> None:
    """It is as it came, but its log is bounded; a log that is only a gap stays."""
    for status in (Status.SUCCEEDED, Status.FAILED):
        outcome = Outcome(status, logs=GAP)
        assert running().with_progress(outcome) == outcome
        short = Outcome(Status.SUCCEEDED, logs="a line\n")
        assert running().with_progress(short) is short  # no copy is made
        long = Outcome(status, logs="a line\n" * ((HEAD_BYTES + TAIL_BYTES) // 7 + 1000))
        end = running().with_progress(long)
        assert (end.status, end.output) == (status, None)
        assert len(end.logs) < len(long.logs)


async def test_metrics_that_are_too_large_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """In the log, at most ten of them; the others are kept."""
    metrics = {f"large {n}": "x" * MAX_BYTES for n in range(12)} | {"n": 1}
    end = running().with_bounded_metrics(Outcome(Status.FAILED, output=2, metrics=metrics))
    assert (end.output, end.metrics) == (2, {"n": 1})
    (record,) = caplog.records
    assert {k: vars(record)[k] for k in ("prediction", "model", "metrics")} == {
        "prediction": "a",
        "model": "m",
        "metrics": [f"large {n}" for n in range(10)],
    }
    running().with_bounded_metrics(Outcome(Status.FAILED, metrics={"n": 1}))
    assert len(caplog.records) == 1


def numbered(lines: Sequence[tuple[int, LogText]]) -> list[tuple[int, str]]:
    """Each line's number and text."""
    return [(number, line.text) for number, line in lines]


async def test_what_a_follower_has_not_seen() -> None:
    """While it runs and after its end, also of a log and an output that came only at the end."""
    in_flight = running()
    for n in (1, 2, 3):
        in_flight.note(OutputChunk(n))
        in_flight.note(LogText(f"{n}\n"))
    chunks, lines = in_flight.progress_since(1, 2)
    assert (chunks, numbered(lines)) == ([2, 3], [(3, "3\n")])
    logs = "".join(f"{n}\n" for n in range(1, 6))
    outcome = Outcome(Status.SUCCEEDED, output=[1, 2, 3, 4], logs=logs)
    in_flight.prediction = conclude(in_flight.prediction, outcome, 3.0)
    for seen in range(7):
        chunks, lines = in_flight.progress_since(seen, seen)
        assert chunks == [1, 2, 3, 4][seen:]
        assert numbered(lines) == [(n, f"{n}\n") for n in range(seen + 1, 6)]


async def test_a_log_that_came_only_at_the_end() -> None:
    """A follower gets all of it."""
    in_flight = running()
    outcome = Outcome(Status.SUCCEEDED, logs="1\n2\n")
    in_flight.prediction = conclude(in_flight.prediction, outcome, 3.0)
    assert numbered(in_flight.progress_since(0, 0)[1]) == [(1, "1\n"), (2, "2\n")]


@pytest.mark.parametrize(("output", "chunks"), [(None, []), ([1, 2], [1, 2]), (0, [0]), ("", [""])])
def test_the_elements_of_an_output(output: Json, chunks: list[Json]) -> None:
    """One that is not a list is one element."""
    outcome = Outcome(Status.SUCCEEDED, output=output, predict_time_s=1.0, metrics={"n": 1})
    p = conclude(advance(WAITING, Status.PROCESSING, 2.0), outcome, 3.0)
    assert chunks_of(p) == chunks
    assert metrics_of(p) == [(0, MetricUpdate("n", 1))]


RUNNING = Status.PROCESSING
LOST = SecretValues({"token": None})


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"deadline_at": 9.9}, Status.ABORTED, "deadline_exceeded"),
        ({"deadline_at": 10.0, "status": RUNNING}, Status.CANCELED, "deadline_exceeded"),
        ({"deadline_at": 10.1, "status": RUNNING}, None, ""),
        ({"deadline_at": 0.0, "secrets": LOST}, Status.ABORTED, "deadline_exceeded"),
        ({"secrets": LOST}, Status.FAILED, "internal_error"),
        ({"secrets": SecretValues({"token": "t"})}, None, ""),
        ({"attempts": MAX_ATTEMPTS}, None, ""),
        ({"attempts": MAX_ATTEMPTS, "status": RUNNING}, Status.FAILED, "worker_died"),
        ({"attempts": MAX_ATTEMPTS - 1, "status": RUNNING}, None, ""),
    ],
)
def test_what_does_not_run_again(changes: dict[str, Any], status: Status | None, code: str) -> None:
    """At a restart of the router at time 10."""
    end = hopeless(Prediction("a", "m", {}, created_at=1.0, **changes), 10.0)
    assert (end and end[0], end[1].code if end else "") == (status, code)


def test_the_reasons_to_withdraw_one() -> None:
    """The final status depends on whether it runs."""
    assert (OVERDUE.waiting, OVERDUE.running) == (Status.ABORTED, Status.CANCELED)
    limit = too_long(90.4)
    assert (limit.waiting, limit.running) == (Status.ABORTED, Status.FAILED)
    assert limit.failure.message == "The prediction took longer than 90 s"


# ---- who is woken ------------------------------------------------------------------------


async def test_who_follows_is_woken_by_each_change() -> None:
    """By progress, another status and the end. A change that was missed counts too."""
    in_flight = running()
    assert await in_flight.changed_since(in_flight.version - 1, LIMIT_S)
    for change in (lambda: in_flight.note(LogText("x\n")), in_flight.wake_followers, in_flight.end):
        version = in_flight.version
        followers = [asyncio.create_task(in_flight.changed_since(version, LIMIT_S)) for _ in "ab"]
        await asyncio.sleep(0)
        assert not any(f.done() for f in followers)
        change()
        async with asyncio.timeout(LIMIT_S / 2):
            assert await asyncio.gather(*followers) == [True, True]
    assert await in_flight.changed_since(in_flight.version, 0)


async def test_nothing_changes_for_a_while() -> None:
    """A follower learns that, and nothing of it is left."""
    in_flight = running()
    assert not await in_flight.changed_since(in_flight.version, 0)
    follower = asyncio.create_task(in_flight.changed_since(in_flight.version, LIMIT_S))
    await asyncio.sleep(0)
    follower.cancel()
    await asyncio.wait({follower})
    assert not in_flight._followers
    in_flight.wake_followers()  # a cancelled one is no error


async def test_who_waits_for_the_end() -> None:
    """All are woken. One that has gone, or whose time is over, disturbs none of the others."""
    in_flight = running()
    async with asyncio.timeout(LIMIT_S / 2):
        await in_flight.wait(0)
        assert not in_flight.done.done()
        waiters = [asyncio.create_task(in_flight.wait(LIMIT_S)) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        in_flight.end()
        assert await asyncio.gather(*waiters[1:]) == [None, None]
        await in_flight.wait(LIMIT_S)
    assert waiters[0].cancelled()
    assert not in_flight._waiters


async def test_its_timers() -> None:
    """The time limit is stopped when it does not run now, and both when it has ended."""
    clock, in_flight = HandClock(), running()
    in_flight.stop_timers()  # there are none
    in_flight.timer = clock.call_later(1, print)
    in_flight.deadline = deadline = clock.call_later(2, print)
    in_flight.stop_timer()
    assert clock.pending() == [deadline]
    in_flight.timer = clock.call_later(1, print)
    in_flight.stop_timers()
    in_flight.stop_timers()
    assert clock.pending() == []
    assert in_flight.timer is in_flight.deadline is None
