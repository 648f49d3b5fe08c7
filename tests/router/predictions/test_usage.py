"""What is counted of each prediction, and that it adds up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from router.errors import InsufficientStorage
from router.prediction import Failure, FileRef, Outcome, Prediction, Status
from router.predictions.replicate_prices import price_per_s
from router.predictions.usage import Usage, json_bytes
from router.scheduling import messages as msg
from router.scheduling.model import GONE, Phase
from router.storage.usage_store import NUMBERS, UsageRow, UsageStore
from tests.router.fakes import TIME_LIMIT_S, World
from tests.waiting import until

OWNERS = ("", "ann", "bob")
TEXT = "x" * 3000
GOOD = Outcome(Status.SUCCEEDED, output={"text": TEXT}, predict_time_s=0.1)
FAILED = Outcome(Status.FAILED, failure=Failure("prediction_failed", "KeyError"))
CRASHED = Outcome(Status.FAILED, failure=Failure("worker_died", "gone"))
ENDS = ("good", "failed", "crashed", "canceled", "canceled while waiting", "too long")
FILE_BYTES = 500


class FaultyStore(UsageStore):
    """A disk that is full every now and then."""

    def __init__(self, path: Path, luck: random.Random) -> None:
        super().__init__(path)
        self._luck = luck

    async def add(self, rows: Sequence[UsageRow], forget_before: str) -> None:
        """Half of the time."""
        await asyncio.sleep(0)
        if self._luck.random() < 0.5:
            raise InsufficientStorage("full")
        await super().add(rows, forget_before)


def usage_of(world: World, store: UsageStore) -> Usage:
    """It listens to the world's router."""
    return Usage(
        store,
        world.clock,
        world.router.facts,
        runs_here=lambda p: not p.remote_name,
        local=lambda now: datetime.fromtimestamp(now, UTC),
    )


class Ledger:
    """What the test itself has seen."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], UsageRow] = {}

    def enter(self, day: str, owner: str, end: str, run_s: float) -> None:
        """One prediction has ended."""
        row = self.rows.setdefault((day, owner), UsageRow(day, owner, "echo"))
        row.predictions += 1
        row.failed += end in ("failed", "crashed", "too long")
        row.canceled += end.startswith("canceled")
        row.run_s += run_s
        row.input_bytes += FILE_BYTES + len('{"n":1}')
        row.output_bytes += len(TEXT) + len('{"text":""}') if end == "good" else 0


@pytest.mark.slow
@pytest.mark.parametrize("any_store", ["memory"], indirect=True)
async def test_it_adds_up(world: World, tmp_path: Path) -> None:
    """A thousand predictions of three holders over some days, that end in every way, on a disk that
    is often full; and a reader that leaves while it is written."""
    luck = random.Random(16)
    upload = tmp_path / "upload"
    upload.write_bytes(b"y" * FILE_BYTES)
    files = (FileRef("file", str(upload), "cat.png"),)
    usage = usage_of(world, FaultyStore(tmp_path / "usage.sqlite3", luck))
    ledger, loop = Ledger(), world.router.loop
    for n in range(1000):
        name, owner = str(n), luck.choice(OWNERS)
        end = luck.choice(ENDS) if luck.random() < 0.5 else "good"
        durable = luck.random() < 0.3
        now, run_s = world.clock.now, luck.uniform(0.1, 400.0)
        if end == "canceled while waiting":
            world.router.model.opens.clear()
            loop.post(msg.Unload("echo"))
            await until(lambda: loop.scheduler.models["echo"].phase in GONE)
        made = Prediction(*(name, "echo", {"n": 1}, now, files), owner=owner, durable=durable)
        await world.router.predictions.create(made)
        if end == "canceled while waiting":
            world.clock.advance(run_s)
            world.router.predictions.cancel(name)
            world.router.model.opens.set()
            run_s = 0.0
        else:
            await until(partial(world.router.model.answers.__contains__, name))
            run_s = TIME_LIMIT_S if end == "too long" else run_s
            world.clock.advance(run_s)
            if end == "canceled":
                world.router.predictions.cancel(name)
            elif end != "too long":
                outcome = {"good": GOOD, "failed": FAILED, "crashed": CRASHED}[end]
                world.answer(name, outcome)
        await until(partial(has_ended, world, name))
        day = f"{datetime.fromtimestamp(world.clock.now, UTC):%Y-%m-%d}"
        ledger.enter(day, owner, end, run_s)
        if end == "crashed":
            await until(lambda: loop.scheduler.models["echo"].phase is Phase.FAILED)
            world.clock.advance(400.0)
            loop.post(msg.Tick())
        if n % 50 == 0:
            reader = asyncio.create_task(usage.read("2000-01-01", None))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.gather(reader, usage.save(), return_exceptions=True)
    found = await settled(usage)
    assert len({row.day for row in found}) > 1
    seen = sorted(ledger.rows.values(), key=lambda row: (row.day, row.owner))
    for row, expected in zip(found, seen, strict=True):
        for name in ("day", "owner", "model", *NUMBERS):
            assert getattr(row, name) == pytest.approx(getattr(expected, name)), (name, row)
    assert sum(row.predictions for row in found) == 1000
    assert [row.owner for row in await settled(usage, "ann")] == [
        row.owner for row in found if row.owner == "ann"
    ]


def has_ended(world: World, prediction_id: str) -> bool:
    """Whether the router is done with it."""
    return world.router.predictions.in_flight(prediction_id) is None


async def settled(usage: Usage, owner: str | None = None) -> Sequence[UsageRow]:
    """Read, as often as the disk is full."""
    for _ in range(50):
        try:
            return await usage.read("1970-01-01", owner)
        except InsufficientStorage:
            continue
    raise AssertionError("the disk is always full")


async def test_a_year(tmp_path: Path) -> None:
    """What is older is deleted with the next write; a file that was removed is made again."""
    path = tmp_path / "usage.sqlite3"
    store = UsageStore(path)
    old, new = UsageRow("2025-11-26", "", "echo", 1), UsageRow("2025-11-27", "", "echo", 2)
    await store.add([old], "")
    await store.add([new, new], "2025-11-27")
    assert [(r.day, r.predictions) for r in await store.read("", None)] == [("2025-11-27", 4)]
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    await store.add([new], "")
    assert [r.predictions for r in await store.read("", "")] == [2]


def test_the_size_of_a_value() -> None:
    """As JSON, texts by their characters; no text is encoded to be counted, wherever it stands."""
    long = "é" * 2000
    sizes = [json_bytes(v) for v in (None, 1.5, "ab", [1, long], {"a": "b", "c": long}, {1: 2})]
    assert sizes == [0, 3, 4, 2006, 2016, 7]
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    assert json_bytes(deep) == 2 * 301
    not_utf8 = "\ud800" + "x" * 100  # the encoder refuses it
    assert json_bytes({"text": "a", "data": not_utf8}) == len('{"text":"a","data":""}') + 101
    large = {"text": "abc", "steps": 4, "seed": 2**70}
    assert json_bytes(large) == len('{"text":"abc","steps":4,"seed":}')
    assert json_bytes({"images": [{"data": not_utf8}]}) == len('{"images":[{"data":""}]}') + 101
    many = list(range(100_000))
    assert json_bytes({"numbers": many}) == len(f'{{"numbers":{many}}}'.replace(" ", ""))


def test_the_price_of_a_card() -> None:
    """By a word of its name; the operator's own first."""
    cards = ("CPU", "NVIDIA A40", "NVIDIA A100-SXM4-80GB", "NVIDIA L40S", "NVIDIA T400")
    assert [price_per_s(card, {}) for card in cards] == [0.0001, 0.000575, 0.0014, 0.000975, None]
    assert price_per_s("NVIDIA H100 80GB HBM3", {"h100": 2.0}) == 2.0
    assert price_per_s("NVIDIA H100 80GB HBM3", {"h100 80gb": 3.0}) == 3.0
