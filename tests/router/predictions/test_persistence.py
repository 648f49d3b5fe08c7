"""Results reach the disk whatever the disk does meanwhile, and old ones leave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import cast

import pytest
from msgspec.structs import replace

from router.errors import InsufficientStorage
from router.prediction import Callback, FileRef, Prediction, Status
from router.predictions import persistence as module
from router.predictions.output_links import Links
from router.predictions.persistence import Persistence
from router.predictions.webhooks import Webhooks
from tests.router.fakes import HandClock, Spool
from tests.router.memory_store import MemoryStore
from tests.waiting import until

KEEP_S = 100.0
CALLBACK = Callback("https://a.example/")


class FailingStore(MemoryStore):
    """It refuses the next `failures` calls, and no call returns before the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def _try(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise InsufficientStorage("the disk is full")

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Refused while it fails."""
        await self._try()
        await super().put(prediction, announce_at)

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """Refused while it fails."""
        await self._try()
        return await super().sweep(completed_before)


class Sent:
    """The part of Webhooks that is used here."""

    def __init__(self) -> None:
        self.completed_ones: list[Prediction] = []

    def completed(self, p: Prediction) -> None:
        """Noted."""
        self.completed_ones.append(p)


class Desk:
    """A Persistence and all around it. `with_output_files` gives each prediction an output."""

    def __init__(self) -> None:
        self.written_ones: list[Prediction] = []
        self.store, self.spool, self.clock, self.sent = FailingStore(), Spool(), HandClock(), Sent()
        self.persistence = Persistence(
            self.store,
            self.clock,
            cast(Webhooks, self.sent),
            KEEP_S,
            links=cast(Links, self),
        )

    async def with_output_files(self, p: Prediction) -> Prediction:
        """As if its files had been moved."""
        return replace(p, output="linked")

    def note_written(self, p: Prediction) -> None:
        """Noted."""
        self.written_ones.append(p)

    def remove(self, files: Collection[FileRef]) -> None:
        """As `Links` does."""
        self.spool.remove(files)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Each wait is short."""
    monkeypatch.setattr(module, "WRITE_AGAIN_S", 0.001)
    monkeypatch.setattr(module, "SWEEP_EVERY_S", 0.001)
    desk = Desk()
    yield desk
    await desk.persistence.close()


def ended(prediction_id: str = "a", completed_at: float = 1000.0) -> Prediction:
    """One that has ended, with a webhook and a file."""
    return Prediction(
        prediction_id,
        "m",
        {},
        created_at=1.0,
        files=(FileRef("f", f"/spool/{prediction_id}", "f"),),
        durable=True,
        callback=CALLBACK,
        status=Status.SUCCEEDED,
        completed_at=completed_at,
    )


async def test_a_result_is_written_until_the_disk_takes_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Once then, with its webhook; and only then does its caller hear of it."""
    desk.store.failures = 2
    written: list[int] = []
    desk.persistence.write_result(ended(), lambda: written.append(desk.store.calls))
    await until(lambda: written)
    assert written == [desk.store.calls] == [3]
    assert desk.store.rows["a"].output == "linked"
    assert [p.output for p in desk.written_ones] == ["linked"]
    assert desk.store.outbox["a"].due_at == desk.clock.now
    assert [p.id for p in desk.sent.completed_ones] == ["a"]
    assert [r.getMessage() for r in caplog.records] == [
        "Cannot write a result: the disk is full; trying again"
    ] * 2


async def test_a_result_that_nobody_waits_for(desk: Desk) -> None:
    """It is announced only where a webhook is to be sent."""
    await desk.persistence.conclude(replace(ended(), callback=None))
    assert desk.store.rows.keys() == {"a"}
    assert desk.store.outbox == {}
    desk.store.failures = 1
    with pytest.raises(InsufficientStorage):
        await desk.persistence.conclude(ended("b"))
    assert [p.id for p in desk.sent.completed_ones] == ["a"]


async def test_a_step_is_written_when_it_is_durable(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """A step that the disk does not take is logged and not tried again."""
    desk.persistence.note(replace(ended("b"), durable=False))
    desk.persistence.note(ended("c"))
    await until(lambda: desk.store.rows)
    assert desk.store.rows.keys() == {"c"}
    desk.store.failures = 1
    desk.persistence.note(ended("d"))
    await until(lambda: caplog.records)
    assert caplog.records[0].getMessage() == (
        "Cannot write a step of a prediction: the disk is full"
    )
    assert desk.store.rows.keys() == {"c"}


async def test_old_results_are_deleted_regularly(desk: Desk) -> None:
    """With their files, also after a time in which the disk failed."""
    desk.store.failures = 2
    for name, completed_at in (("old", 899.0), ("new", 901.0)):
        desk.store.rows[name] = ended(name, completed_at)
    desk.persistence.open()
    await until(lambda: desk.spool.removed)
    assert (list(desk.store.rows), desk.spool.removed) == (["new"], ["/spool/old"])
    desk.clock.now += 2
    await until(lambda: not desk.store.rows)
    await until(lambda: desk.spool.removed == ["/spool/old", "/spool/new"])
    await desk.persistence.close()
    calls = desk.store.calls
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert desk.store.calls == calls


async def test_a_close_waits_for_what_is_being_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for a disk that takes nothing any more."""
    desk.store.gate.clear()
    desk.persistence.note(ended())
    await asyncio.sleep(0)
    await desk.persistence.close()  # gives up after WRITE_AGAIN_S
    await until(lambda: not desk.persistence._writes)
    monkeypatch.setattr(module, "WRITE_AGAIN_S", 60.0)
    desk.persistence.note(ended("b"))
    closing = asyncio.create_task(desk.persistence.close())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not closing.done()
    desk.store.gate.set()
    await closing
    assert desk.store.rows.keys() == {"b"}
