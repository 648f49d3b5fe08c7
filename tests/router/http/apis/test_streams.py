"""A follower's place in a prediction: nothing is missed, nothing comes twice."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from router.errors import without_paths
from router.http.apis import streams
from router.http.apis.streams import StreamCursor, follow
from router.models.process_interface import LogLine
from router.prediction import (
    LogText,
    Outcome,
    OutputChunk,
    Prediction,
    Status,
    advance,
    conclude,
)
from router.predictions.failure_details import failure_log_tail
from router.predictions.in_flight import InFlight

WAITING = Prediction("a", "poet", {}, created_at=1.0)


def running() -> InFlight:
    """A prediction that runs."""
    in_flight = InFlight(WAITING, asyncio.get_running_loop().create_future())
    in_flight.prediction = advance(WAITING, Status.PROCESSING, 2.0)
    in_flight.wake_followers()
    return in_flight


def end(in_flight: InFlight, outcome: Outcome) -> None:
    """It ends, as `Predictions` has it."""
    in_flight.prediction = conclude(in_flight.prediction, outcome, 3.0)
    in_flight.done.set_result(None)


async def test_what_comes_while_one_is_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress and the end both: a follower that was busy sending misses neither, at once."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 30.0)
    in_flight = running()
    in_flight.note(OutputChunk("one"))
    got = []
    async with asyncio.timeout(5):
        async for step in follow(in_flight, WAITING, StreamCursor()):
            assert step is not None
            got.append(step[1])
            if got[-1] == OutputChunk("one"):
                in_flight.note(OutputChunk("two"))
            if got[-1] == OutputChunk("two"):
                end(in_flight, Outcome(Status.SUCCEEDED, output=["one", "two", "three"]))
    chunks = [s.value for s in got if isinstance(s, OutputChunk)]
    assert chunks == ["one", "two", "three"]
    assert isinstance(got[-1], Prediction)
    assert got[-1].status is Status.SUCCEEDED


async def test_nothing_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life; and the stream of one that the router leaves for its next start ends
    without an end."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    in_flight = running()
    got = []
    async with asyncio.timeout(5):
        async for step in follow(in_flight, WAITING, StreamCursor()):
            got.append(step)
            if step is None and not in_flight.done.done():
                in_flight.done.set_result(None)
    assert got[0] is not None
    assert got[1:] == [None]


@pytest.mark.parametrize("logs", ["a\n", "0 %\r50 %\r100 %\n", "x\u2028y\nz", "a\r\nb\n", "\n\n"])
async def test_places_are_the_same_before_and_after(logs: str) -> None:
    """Lines are counted alike while it runs and when it has ended, progress bars too."""
    in_flight = running()
    lines = [f"{line}\n" for line in logs.removesuffix("\n").split("\n")]
    for line in lines:
        in_flight.note(LogText(line))
    ended = replace(in_flight.prediction, status=Status.SUCCEEDED, logs="".join(lines))
    before = [s async for s in follow(live_ended(in_flight, ended), ended, StreamCursor())]
    after = [s async for s in follow(None, ended, StreamCursor())]
    assert before == after
    assert [s[1].text for s in after if s and isinstance(s[1], LogText)] == lines


def live_ended(in_flight: InFlight, ended: Prediction) -> InFlight:
    """The same, at the moment of its end."""
    in_flight.prediction = ended
    in_flight.done.set_result(None)
    return in_flight


def test_whose_words_they_are() -> None:
    """The set-up's and one's own; what nobody signed only where nobody else ran."""
    lines = [
        LogLine("loaded", in_set_up=True),
        LogLine("theirs", "b"),
        LogLine("their subprocess"),
        LogLine("mine", "a"),
        LogLine("my subprocess"),
    ]
    assert failure_log_tail(lines, "a") == ("loaded", "mine", "my subprocess")
    assert failure_log_tail(lines) == ("loaded",)
    assert failure_log_tail([*lines, LogLine("beside me", "b")], "a") == ("loaded", "mine")
    assert failure_log_tail(lines, "c") == ("loaded",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("open file:///home/u/x.png", "open file:x.png"),
        ("cache:/root/.cache/hf/x", "cache:x"),
        ("see https://example.com/a/b/c", "see https://example.com/a/b/c"),
        ("4/5 and/or a/b/c", "4/5 and/or a/b/c"),
        ("/srv/models/w.bin gone", "w.bin gone"),
    ],
)
def test_paths_in_words(text: str, told: str) -> None:
    """Of this machine none is told, whatever stands before it; of the web every one."""
    assert without_paths(text) == told
