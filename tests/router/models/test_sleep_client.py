"""How the router asks a worker's hook, against a hook that does as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from router.models import memory, sleep_client, sleep_levels
from router.models.memory import NotMeasuredError
from router.models.process_interface import Copied, SleepRefusedError, Slept, Woken
from router.models.sleep_client import SleepClient
from router.models.sleep_levels import TwoLevelSleeper

MIB = 1 << 20
COPIED = {"device_bytes": 300 * MIB, "host_bytes": 320 * MIB, "copied_bytes": 7, "seconds": 0.5}
WOKEN = {"copied_bytes": 300 * MIB, "seconds": 0.25}
BUSY = {"refused": "busy", "why": "run.py:run"}


class Hook:
    """Gives the next of `answers` to each request; None: none, and the connection ends; ...: it
    hangs. `held`: what the processes hold before, and by the readings that follow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.held: list[int] = [0]
        self.client = SleepClient(path, lambda: [7, 8], self.measure, asyncio.Lock())

    def measure(self, pids: Sequence[int]) -> int:
        """The next reading; the last one stays."""
        assert list(pids) == [7, 8]
        return self.held.pop(0) if len(self.held) > 1 else self.held[0]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.asked.append(json.loads(await reader.readline()))
        answer = self.answers.pop(0)
        if answer is ...:
            await reader.read()
        elif answer is not None:
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


@pytest.fixture
async def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hook]:
    """A hook that listens, in a folder with a long name."""
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.0)
    monkeypatch.setattr(memory, "FREED_POLL_S", 0.001)
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.chdir(folder)
    made = Hook(folder / "hook.sock")
    async with await asyncio.start_unix_server(made.answer, "hook.sock"):
        yield made


async def test_what_is_asked(hook: Hook) -> None:
    """The words with their limit, and what comes back."""
    hook.answers = [COPIED, COPIED, WOKEN]
    client = hook.client
    staged = await client.stage(500)
    assert (staged.freed_bytes, staged.host_bytes, staged.copied_bytes, staged.seconds) == (
        *(300 * MIB, 320 * MIB, 7, 0.5),
    )
    assert not client.asleep
    slept = await client.sleep(600)
    assert (slept.copied, slept.residue_bytes, client.asleep) == (staged, None, True)
    woken = await client.wake()
    assert (woken.copied_bytes, woken.seconds, client.asleep) == (300 * MIB, 0.25, False)
    assert client.host_bytes == 320 * MIB, "the copies stay"
    assert hook.asked == [
        {"do": "stage", "limit_bytes": 500},
        {"do": "sleep", "limit_bytes": 600},
        {"do": "wake"},
    ]


async def test_freed_is_what_was_seen(hook: Hook) -> None:
    """It may hold what it held before, less what it freed, and a little for the driver's pages."""
    left = 100 * MIB
    hook.held = [left + 300 * MIB, left + memory.SLACK_BYTES]
    hook.answers = [COPIED] * 3
    assert (await hook.client.sleep(1)).residue_bytes == left + memory.SLACK_BYTES
    hook.held = [left + 300 * MIB, left + memory.SLACK_BYTES + 1]
    with pytest.raises(TimeoutError, match="are still held"):
        await hook.client.sleep(1)
    assert hook.client.asleep, "it has to be stopped"
    hook.held = [200 * MIB, 60 * MIB]  # it has counted what was never given to it
    assert (await hook.client.sleep(1)).residue_bytes == 60 * MIB


async def test_a_reading_that_fails_shows_nothing(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bytes at all are no measurement: a process that sleeps holds its context. It is read
    again, and after the limit it is no sleep."""
    hook.answers = [COPIED] * 2
    hook.held = [400 * MIB, 0]
    with pytest.raises(TimeoutError, match="cannot be measured"):
        await hook.client.sleep(1)
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 60.0)
    hook.held = [400 * MIB, 0, 0, 90 * MIB]
    assert (await hook.client.sleep(1)).residue_bytes == 90 * MIB


async def test_at_work(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sleep is asked for again, for a while; a copy is not, and other refusals count at once."""
    hook.answers = [BUSY, BUSY, COPIED]
    await hook.client.sleep(1)
    assert len(hook.asked) == 3
    monkeypatch.setattr(sleep_client, "BUSY_LIMIT_S", -1.0)
    hook.answers = [BUSY, BUSY, {"refused": "unfit", "why": "CUDA graphs"}]
    for ask, again, why in (
        (hook.client.sleep, True, "run.py:run"),
        (hook.client.stage, True, "run.py:run"),
        (hook.client.sleep, False, "CUDA graphs"),
    ):
        with pytest.raises(SleepRefusedError, match=why) as refused:
            await ask(1)
        assert refused.value.again is again
        assert not hook.client.asleep
    assert hook.answers == []


@pytest.mark.parametrize("word", ["stage", "sleep", "wake"])
async def test_a_process_that_ends(hook: Hook, word: str) -> None:
    """Before its answer: what it has done is not known. It is no refusal."""
    hook.answers = [None]
    with pytest.raises(ConnectionError, match="ended"):
        await ask(hook.client, word)
    assert hook.client.asleep is (word == "sleep")


@pytest.mark.parametrize("word", ["stage", "sleep", "wake"])
async def test_a_hook_that_hangs(hook: Hook, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a time limit, which grows with what is to be copied."""
    hook.answers = [COPIED, ...]
    await hook.client.stage(1)
    monkeypatch.setattr(sleep_client, "SHORTEST_LIMIT_S", 0.05)
    monkeypatch.setattr(sleep_client, "PATIENCE", 0.0)
    with pytest.raises(TimeoutError):
        await ask(hook.client, word)


async def test_how_long_it_may_take(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is to be copied, at a rate that is slow, ten times over; a wake by the last wake."""
    limits: list[float] = []
    timeout = asyncio.timeout

    def noted(seconds: float) -> Any:
        limits.append(seconds)
        return timeout(60)

    gib = 1 << 30
    monkeypatch.setattr(asyncio, "timeout", noted)
    hook.answers = [{**COPIED, "device_bytes": 4 * gib}, COPIED, COPIED, WOKEN, WOKEN, WOKEN]
    await hook.client.stage(3 * gib)  # nothing is known but what it may take
    await hook.client.sleep(3 * gib)
    await hook.client.sleep(3 * gib)
    await hook.client.wake()
    hook.client._bytes = 2 * gib
    await hook.client.wake()
    hook.client._wake_s = 1.5
    await hook.client.wake()
    connect = sleep_client.CONNECT_LIMIT_S
    assert [limit for limit in limits if limit != connect] == [30, 40, 10, 10, 10, 15]
    assert limits.count(connect) == 6


@pytest.mark.parametrize("word", ["stage", "sleep"])
async def test_the_first_time_there_is_no_more_to_copy_than_is_held(
    hook: Hook, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large machine has room for far more. A hook that hangs would block the GPU for so long."""
    limits: list[float] = []
    timeout = asyncio.timeout

    def noted(seconds: float) -> Any:
        limits.append(seconds)
        return timeout(60)

    monkeypatch.setattr(asyncio, "timeout", noted)
    hook.answers = [COPIED]
    hook.held = [2 << 30, 0]
    with contextlib.suppress(TimeoutError):  # what is held asleep cannot be read here
        await getattr(hook.client, word)(100 << 30)
    assert limits == [20, sleep_client.CONNECT_LIMIT_S]


async def ask(client: SleepClient, word: str) -> object:
    """One of the three words."""
    return await (client.wake() if word == "wake" else getattr(client, word)(1))


@pytest.mark.parametrize("word", ["stage", "sleep", "wake"])
async def test_no_hook(word: str, tmp_path: Path) -> None:
    """A worker without it cannot be asked: nothing has been touched."""
    client = SleepClient(tmp_path / "none.sock", list, lambda pids: 0, asyncio.Lock())
    with pytest.raises(SleepRefusedError, match="hook does not answer") as refused:
        await ask(client, word)
    assert not refused.value.again
    assert not client.asleep


class Driver:
    """Notes what it is asked to suspend."""

    def __init__(self) -> None:
        self.held: dict[int, int] | None = {7: 40 * MIB}
        self.asked: list[tuple[str, object]] = []

    def held_by(self, pids: Sequence[int]) -> dict[int, int]:
        """As NVML says, or does not."""
        assert list(pids) == [7, 8]
        if self.held is None:
            raise NotMeasuredError("gone")
        return self.held

    async def why_unfit(self) -> str:
        """What the driver lacks."""
        return "too old"

    async def suspend(self, held: object) -> None:
        """At once."""
        self.asked.append(("suspend", held))

    async def resume(self, held: object) -> None:
        """At once."""
        self.asked.append(("resume", held))


@pytest.mark.parametrize("held", [None, {}], ids=["unreadable", "nothing"])
async def test_not_suspended_when_nobody_knows_what_it_holds(
    hook: Hook, held: dict[int, int] | None
) -> None:
    """Then nobody could say whether there is room to resume it."""
    driver: Any = Driver()
    driver.held = held
    sleeper = TwoLevelSleeper(hook.client, driver, lambda: [7, 8], asyncio.Lock())
    with pytest.raises(SleepRefusedError, match="cannot be measured"):
        await sleeper.sleep(1 << 40, hook=False, driver=True)
    assert driver.asked == []
    assert not sleeper.asleep


async def test_both_levels_share_the_room(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that the hook has made count, asleep or not; what is over is the driver's. Each level
    has its own time."""
    times = iter((10.0, 13.0, 20.0, 24.0) * 4)
    monkeypatch.setattr(sleep_levels, "time", SimpleNamespace(monotonic=lambda: next(times)))
    driver: Any = Driver()
    sleeper = TwoLevelSleeper(hook.client, driver, lambda: [7, 8], asyncio.Lock())
    assert await sleeper.why_not_suspended() == "too old"
    hook.answers = [COPIED, COPIED, WOKEN, COPIED, WOKEN]
    staged = await sleeper.stage(1 << 30)
    # By the driver alone; by both at once; and by one after the other.
    for hooked, apart in ((False, False), (True, False), (True, True)):
        if apart:
            assert await sleeper.sleep(320 * MIB) == Slept(staged, None)
        slept = await sleeper.sleep((320 + 40) * MIB, hook=hooked and not apart, driver=True)
        copied = staged if hooked else Copied(0, 0, 0, 0.0)
        assert slept == Slept(copied, 0, suspended_bytes=40 * MIB, suspend_s=3.0)
        assert (sleeper.asleep, sleeper.is_suspended) == (True, True)
        woken = Woken(300 * MIB, 0.25) if hooked else Woken(0, 0.0)
        assert await sleeper.wake() == replace(woken, resumed_bytes=40 * MIB, resume_s=4.0)
        assert (sleeper.asleep, sleeper.is_suspended) == (False, False)
    held = {7: 40 * MIB}
    assert driver.asked == [("suspend", held), ("resume", held)] * 3
    with pytest.raises(SleepRefusedError, match="no room"):
        await sleeper.sleep((320 + 40) * MIB - 1, hook=False, driver=True)


async def test_a_machine_without_a_driver(hook: Hook) -> None:
    """Only the hook puts it to sleep."""
    sleeper = TwoLevelSleeper(hook.client, None, lambda: [7, 8], asyncio.Lock())
    assert "GPU" in await sleeper.why_not_suspended()
    with pytest.raises(SleepRefusedError, match="GPU"):
        await sleeper.sleep(1, hook=False, driver=True)
    hook.answers = [COPIED]
    slept = await sleeper.sleep(1, driver=True)
    assert (slept.suspended_bytes, "GPU" in slept.suspend_refusal) == (0, True)
    assert (sleeper.asleep, sleeper.is_suspended) == (True, False)
