"""The result store: a file is on the disk or in the store, at each moment, and in neither when its
prediction has been deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from router.errors import NotFound, ResultStoreFailed
from router.prediction import Outcome, OutputFile, Prediction, Status, advance, conclude
from router.predictions import result_mover
from router.predictions.in_flight import InFlight
from router.predictions.output_files import Outputs
from router.predictions.output_links import Links
from router.predictions.result_mover import ResultMover
from router.storage.spool import Spool
from tests.router.conftest import AnyStore
from tests.router.predictions.test_output_files import uri
from tests.waiting import until

PICTURE = {"picture": uri(b"cat"), "page": uri(b"<svg>", "image/svg+xml")}


class Bucket:
    """As `ResultStore`. `down`: it does not answer. `gate`: uploads and deletions wait for it.
    `refused`: part of a name that it does not take."""

    signs_urls = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.kinds: dict[str, tuple[str, str]] = {}
        self.down = False
        self.refused = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise ResultStoreFailed("it does not answer")

    async def put(self, name: str, path: Path, media_type: str, disposition: str) -> None:
        """Stored, when the gate is open."""
        content = path.read_bytes()
        await self._answer()
        await self.gate.wait()
        if self.refused and self.refused in name:
            raise ResultStoreFailed("it refuses this one")
        self.objects[name], self.kinds[name] = content, (media_type, disposition)

    async def read(self, name: str, first: int, end: int) -> AsyncIterator[bytes]:
        """In pieces of two bytes."""
        await self._answer()
        if name not in self.objects:
            raise FileNotFoundError(name)
        for start in range(first, end, 2):
            yield self.objects[name][start : min(start + 2, end)]

    async def remove(self, names: Sequence[str]) -> None:
        """Deleted, when the gate is open."""
        await self._answer()
        await self.gate.wait()
        for name in names:
            self.objects.pop(name, None)

    async def names(self) -> Sequence[str]:
        """All."""
        await self._answer()
        return list(self.objects)


class Box:
    """One run of a router on a folder, a store of predictions and a bucket."""

    def __init__(self, store: AnyStore, folder: Path, bucket: Bucket) -> None:
        self.spool = Spool(folder / "outputs")
        self.store, self.bucket = store, bucket
        self.mover = ResultMover(self.spool, cast(Any, bucket), store)
        self.outputs = Outputs(self.spool, "secret", self.mover)
        self.in_flight: dict[str, InFlight] = {}
        self.links = Links(store, self.outputs, self.in_flight.get)

    async def made(self, prediction_id: str = "p1", output: Any = PICTURE) -> Prediction:
        """A prediction that has ended; its result is on disk, and announced."""
        p = advance(Prediction(prediction_id, "m", {}, 1.0, durable=True), Status.PROCESSING, 2.0)
        p = conclude(p, Outcome(Status.SUCCEEDED, output), 3.0)
        in_flight = InFlight(p, asyncio.get_running_loop().create_future())
        self.in_flight[p.id] = in_flight
        p = await self.links.with_output_files(p)
        await self.store.put(p)
        del self.in_flight[p.id]
        self.links.note_written(p)
        return p

    def here(self) -> list[str]:
        """What is on the disk."""
        return sorted(p.name for p in self.spool.folder.iterdir())

    async def moved(self) -> None:
        """Wait until nothing waits any more."""
        await until(lambda: self.mover.view() == {"waiting": 0} and not self.here())


@pytest.fixture
async def box(
    any_store: AnyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Box]:
    """A router with a result store."""
    monkeypatch.setattr(result_mover, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(result_mover, "LONGEST_WAIT_S", 0.002)
    box = Box(any_store, tmp_path, Bucket())
    box.mover.open()
    yield box
    await box.mover.close()


def named(file: OutputFile) -> str:
    """Its name on the disk and in the store."""
    return Path(file.path).name


async def test_files_leave_the_disk_and_are_read_as_before(box: Box) -> None:
    """The row and the URLs stay the same, and each API shows the same."""
    p = await box.made()
    paths = [box.outputs.url_path(p.id, f) for f in p.output_files]
    await box.moved()
    assert sorted(box.bucket.objects.values()) == [b"<svg>", b"cat"]
    stored = await box.store.get("p1")
    assert stored == p
    assert (await box.links.with_data_uris(p)).output == PICTURE
    assert [box.outputs.url_path(p.id, f) for f in stored.output_files] == paths
    async with box.links.file_of_url(f"https://a.example{paths[0]}") as copy:
        assert copy is not None
        assert Path(copy.path).read_bytes() == b"cat"
    assert box.here() == []


async def test_a_picture_with_a_script_is_saved_and_not_shown(box: Box) -> None:
    """The store sends no sandbox with it."""
    p = await box.made()
    await box.moved()
    picture, page = map(named, p.output_files)
    assert box.bucket.kinds[picture] == ("image/png", 'inline; filename="output-picture.png"')
    assert box.bucket.kinds[page][1].startswith("attachment")


async def test_a_store_that_is_down_loses_nothing(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    """The result stays on the disk and is moved later; the problem is logged once."""
    box.bucket.down = True
    with caplog.at_level(logging.ERROR):
        p = await box.made()
        await until(lambda: "problem" in box.mover.view())
        await asyncio.sleep(0.02)
    assert box.mover.view() == {"waiting": 1, "problem": "it does not answer"}
    assert len(box.here()) == 2
    assert caplog.text.count("it does not answer") == 1
    assert (await box.links.with_data_uris(p)).output == PICTURE
    box.bucket.down = False
    await box.moved()
    assert len(box.bucket.objects) == 2


async def test_a_moved_file_while_the_store_is_down(box: Box) -> None:
    """It is an error to try again, and no null in the output; one that is gone is null."""
    p = await box.made()
    await box.moved()
    box.bucket.down = True
    with pytest.raises(ResultStoreFailed):
        await box.links.with_data_uris(p)
    box.bucket.down = False
    del box.bucket.objects[named(p.output_files[0])]
    assert (await box.links.with_data_uris(p)).output == {**PICTURE, "picture": None}
    path = box.outputs.url_path("p1", p.output_files[0])
    with pytest.raises(NotFound):
        async with box.links.file_of_url(f"https://a.example{path}"):
            pass


async def test_a_restart_goes_on(box: Box, tmp_path: Path) -> None:
    """A router that was killed before an upload, or before it deleted its file, moves it later."""
    await box.made("p0")
    await box.moved()
    box.bucket.down = True
    kept = await box.made("p1")
    await box.mover.close()
    box.bucket.down = False
    again = Box(box.store, tmp_path, box.bucket)
    again.mover.open()
    await again.moved()
    assert len(box.bucket.objects) == 4
    Path(kept.output_files[0].path).write_bytes(b"cat")  # uploaded, and then killed
    await again.mover.close()
    third = Box(box.store, tmp_path, box.bucket)
    third.mover.open()
    await third.moved()
    assert (await third.links.with_data_uris(kept)).output == PICTURE
    await third.mover.close()


async def test_deleted_with_the_prediction(box: Box) -> None:
    """By a caller, and by the sweep; a store that is down gets it later."""
    for name in ("p1", "p2", "p3"):
        await box.made(name)
    await box.moved()
    p1, p2 = await box.store.get("p1"), await box.store.get("p2")
    assert p1 is not None
    assert p2 is not None
    await box.links.delete(p1)
    await until(lambda: len(box.bucket.objects) == 4)
    box.bucket.down = True
    await box.links.delete(p2)
    box.links.remove(await box.store.sweep(9.0))
    await until(lambda: "problem" in box.mover.view())
    assert len(box.bucket.objects) == 4
    box.bucket.down = False
    await until(lambda: not box.bucket.objects)


async def test_a_crash_between_row_and_object(box: Box, tmp_path: Path) -> None:
    """The next start deletes what belongs to no result, and nothing else."""
    await box.made("p1")
    kept = await box.made("p2")
    await box.moved()
    await box.mover.close()
    await box.store.delete("p1")
    again = Box(box.store, tmp_path, box.bucket)
    again.mover.open()
    await until(lambda: len(box.bucket.objects) == 2)
    assert set(box.bucket.objects) == set(map(named, kept.output_files))
    await again.mover.close()


async def test_deleted_during_its_upload(box: Box) -> None:
    """What arrives in the store after the deletion is deleted too."""
    box.bucket.gate.clear()
    p = await box.made(output=uri(b"cat"))
    await asyncio.sleep(0.02)
    await box.links.delete(p)
    assert box.here() == []
    box.bucket.gate.set()
    await until(lambda: box.mover.view() == {"waiting": 0})
    await until(lambda: not box.bucket.objects)


async def test_deleted_while_another_is_deleted(box: Box) -> None:
    """Neither is forgotten."""
    p1, p2 = await box.made("p1"), await box.made("p2")
    await box.moved()
    box.bucket.gate.clear()
    await box.links.delete(p1)
    await asyncio.sleep(0.02)
    await box.links.delete(p2)
    box.bucket.gate.set()
    await until(lambda: not box.bucket.objects)


async def test_one_that_the_store_refuses_holds_up_no_other(box: Box) -> None:
    """The others are moved before it is tried again."""
    box.bucket.refused = "p1."
    await box.made("p1")
    await box.made("p2")
    await until(lambda: len(box.bucket.objects) == 2)
    assert all(name.startswith("p2.") for name in box.bucket.objects)
    await until(lambda: [name.partition(".")[0] for name in box.here()] == ["p1", "p1"])
    box.bucket.refused = ""
    await box.moved()
