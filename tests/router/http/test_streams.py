"""A follower's place in a prediction: nothing is missed, nothing comes twice."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from router.errors import without_paths
from router.http import streams
from router.http.streams import Place, follow
from router.models.process import LogLine
from router.prediction import (
    LogText,
    Outcome,
    OutputChunk,
    Prediction,
    Status,
    advance,
    conclude,
)
from router.predictions.failures import last_words
from router.predictions.in_flight import Live

WAITING = Prediction("a", "poet", {}, created_at=1.0)


def running() -> Live:
    """A prediction that runs."""
    live = Live(WAITING, asyncio.get_running_loop().create_future())
    live.prediction = advance(WAITING, Status.PROCESSING, 2.0)
    live.wake_followers()
    return live


def end(live: Live, outcome: Outcome) -> None:
    """It ends, as `Predictions` has it."""
    live.prediction = conclude(live.prediction, outcome, 3.0)
    live.done.set_result(None)


async def test_what_comes_while_one_is_being_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress and the end both: a follower that was busy sending misses neither, at once."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 30.0)
    live = running()
    live.note(OutputChunk("one"))
    got = []
    async with asyncio.timeout(5):
        async for step in follow(live, WAITING, Place()):
            assert step is not None
            got.append(step[1])
            if got[-1] == OutputChunk("one"):
                live.note(OutputChunk("two"))
            if got[-1] == OutputChunk("two"):
                end(live, Outcome(Status.SUCCEEDED, output=["one", "two", "three"]))
    chunks = [s.value for s in got if isinstance(s, OutputChunk)]
    assert chunks == ["one", "two", "three"]
    assert isinstance(got[-1], Prediction)
    assert got[-1].status is Status.SUCCEEDED


async def test_nothing_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sign of life; and the stream of one that the router leaves for its next start ends
    without an end."""
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    live = running()
    got = []
    async with asyncio.timeout(5):
        async for step in follow(live, WAITING, Place()):
            got.append(step)
            if step is None and not live.done.done():
                live.done.set_result(None)
    assert got[0] is not None
    assert got[1:] == [None]


@pytest.mark.parametrize("logs", ["a\n", "0 %\r50 %\r100 %\n", "x\u2028y\nz", "a\r\nb\n", "\n\n"])
async def test_places_are_the_same_before_and_after(logs: str) -> None:
    """Lines are counted alike while it runs and when it has ended, progress bars too."""
    live = running()
    lines = [f"{line}\n" for line in logs.removesuffix("\n").split("\n")]
    for line in lines:
        live.note(LogText(line))
    ended = replace(live.prediction, status=Status.SUCCEEDED, logs="".join(lines))
    before = [s async for s in follow(live_ended(live, ended), ended, Place())]
    after = [s async for s in follow(None, ended, Place())]
    assert before == after
    assert [s[1].text for s in after if s and isinstance(s[1], LogText)] == lines


def live_ended(live: Live, ended: Prediction) -> Live:
    """The same, at the moment of its end."""
    live.prediction = ended
    live.done.set_result(None)
    return live


def test_whose_words_they_are() -> None:
    """The set-up's and one's own; what nobody signed only where nobody else ran."""
    lines = [
        LogLine("loaded", in_set_up=True),
        LogLine("theirs", "b"),
        LogLine("their subprocess"),
        LogLine("mine", "a"),
        LogLine("my subprocess"),
    ]
    assert last_words(lines, "a") == ("loaded", "mine", "my subprocess")
    assert last_words(lines) == ("loaded",)
    assert last_words([*lines, LogLine("beside me", "b")], "a") == ("loaded", "mine")
    assert last_words(lines, "c") == ("loaded",)


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
