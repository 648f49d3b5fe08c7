"""Output files: into the spool once, back as they were, and never left behind."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from router.errors import InsufficientStorage, NotFound
from router.prediction import Outcome, OutputChunk, Prediction, Status, advance, conclude
from router.predictions.in_flight import InFlight
from router.predictions.output_files import PIECE_CHARS, Outputs
from router.predictions.output_links import Links
from router.storage.spool import Spool, SpoolFile
from tests.router.conftest import AnyStore


def uri(content: bytes, media_type: str = "image/png") -> str:
    """As a model's server gives a file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


PAINTED = {"picture": uri(b"cat"), "layers": [uri(b"1", "text/plain"), uri(b"2", "")], "n": 3}


class Studio:
    """Outputs in a real spool, and the links to them over a store."""

    def __init__(self, store: AnyStore, folder: Path) -> None:
        self.spool = Spool(folder / "outputs")
        self.outputs = Outputs(self.spool, "secret")
        self.store = store
        self.in_flight: dict[str, InFlight] = {}
        self.links = Links(store, self.outputs, self.in_flight.get)

    def names(self) -> list[str]:
        """What lies in the spool."""
        return sorted(p.name for p in self.spool.folder.iterdir())

    def begun(self, prediction_id: str = "p1", **more: Any) -> InFlight:
        """A durable prediction that runs."""
        p = Prediction(prediction_id, "m", {}, 1.0, **{"durable": True, **more})
        p = advance(p, Status.PROCESSING, 2.0)
        in_flight = InFlight(p, asyncio.get_running_loop().create_future())
        self.in_flight[prediction_id] = in_flight
        return in_flight

    def ended(self, in_flight: InFlight, output: Any) -> Prediction:
        """The same when it has ended; it is not on disk yet."""
        in_flight.prediction = conclude(
            in_flight.prediction, Outcome(Status.SUCCEEDED, output), 3.0
        )
        return in_flight.prediction

    async def end_on_disk(self, in_flight: InFlight) -> Prediction:
        """Its end on disk, as the router writes it."""
        p = await self.links.with_output_files(in_flight.prediction)
        await self.store.put(p)
        del self.in_flight[p.id]
        return p


@pytest.fixture
def studio(any_store: AnyStore, tmp_path: Path) -> Studio:
    """Nothing painted yet."""
    return Studio(any_store, tmp_path)


async def test_there_and_back(studio: Studio) -> None:
    """The row holds no file; either form is what it was, and each file is stored once."""
    in_flight = studio.begun()
    raw = studio.ended(in_flight, PAINTED)
    first = await studio.links.with_output_files(raw)
    p = await studio.end_on_disk(in_flight)
    assert p == first
    assert p.output == {"picture": None, "layers": [None, None], "n": 3}
    assert [(f.name, f.media_type, f.size_bytes) for f in p.output_files] == [
        ("output-picture.png", "image/png", 3),
        ("output-layers-0.txt", "text/plain", 1),
        ("output-layers-1", "", 1),
    ]
    stored = await studio.store.get("p1")
    assert stored == p
    assert (await studio.links.with_data_uris(p)).output == PAINTED
    assert await studio.links.with_output_files(p) is p
    assert await studio.links.with_output_files(raw) == p  # somebody still holds it as it was
    assert len(studio.names()) == 3
    assert all(name.startswith("p1.") for name in studio.names())
    assert studio.spool.remove_unowned({"p1"}) == 0
    studio.spool.remove(await studio.store.sweep(9.0))
    assert studio.names() == []


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,not base64",
        "data:image/png;base64,AAA",
        "data:image/png;base64,AA==AAAA",
        "data:image/png;base64,QR==",  # bits to spare: it would come back as QQ==
        "data:image/png;base64," + "A" * PIECE_CHARS + "AA==" + "A" * PIECE_CHARS,
        "data:image/png;base64," + "A" * (PIECE_CHARS - 4) + "AA==" + "AAAA",
        "data:text/plain,hello",
    ],
)
async def test_what_would_not_come_back_as_it_was_stays(studio: Studio, text: str) -> None:
    """A text that only looks like a file is a text, and leaves none."""
    in_flight = studio.begun()
    studio.ended(in_flight, [text, uri(b"x")])
    p = await studio.end_on_disk(in_flight)
    assert p.output == [text, None]
    assert len(studio.names()) == 1
    assert (await studio.links.with_data_uris(p)).output == [text, uri(b"x")]


@pytest.mark.parametrize("size", [0, 1, 2, 3, PIECE_CHARS // 4 * 3 - 1, PIECE_CHARS * 2])
async def test_every_size(studio: Studio, size: int) -> None:
    """Empty ones, padded ones, and those of several pieces."""
    content = os.urandom(size)
    in_flight = studio.begun()
    studio.ended(in_flight, uri(content))
    p = await studio.end_on_disk(in_flight)
    (file,) = p.output_files
    assert (p.output, file.size_bytes, file.name) == (None, size, "output.png")
    assert Path(file.path).read_bytes() == content
    assert (await studio.links.with_data_uris(p)).output == uri(content)


@pytest.mark.slow
async def test_a_large_file_does_not_hold_the_loop(studio: Studio) -> None:
    """Others go on while it is decoded and written, and while it is read."""
    in_flight = studio.begun()
    studio.ended(in_flight, uri(bytes(24 << 20)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    p = await studio.end_on_disk(in_flight)
    stored = turns
    await studio.links.with_data_uris(p)
    task.cancel()
    assert stored > 10
    assert turns - stored > 10


async def test_chunks_of_a_stream(studio: Studio) -> None:
    """Each is stored when it is first followed, and has the same URL at the end."""
    in_flight = studio.begun()
    rest, files, at = await studio.links.chunk_and_files(in_flight, 0, uri(b"0"))
    assert (rest, at) == (None, (0,))
    again = await studio.links.chunk_and_files(in_flight, 0, uri(b"0"))
    assert again[1] == files
    so_far = replace(in_flight.prediction, output=[uri(b"0")])
    assert (await studio.links.with_output_files(so_far)).output_files == files
    assert (await studio.links.file("p1", "output-0.png")) == files[0]
    studio.ended(in_flight, [uri(b"0"), uri(b"1")])
    p = await studio.end_on_disk(in_flight)
    assert p.output_files[0] == files[0]
    # A follower that is behind, and a webhook's body from before the end.
    assert (await studio.links.chunk_and_files(in_flight, 1, uri(b"1")))[1] == p.output_files[1:]
    assert (await studio.links.with_output_files(so_far)).output_files == files
    assert len(studio.names()) == 2


async def test_webhooks_on_the_way_show_large_files_by_their_urls(studio: Studio) -> None:
    """In Replicate's API, where a file of any size is a line; as a data: URI it is left out."""
    picture = uri(bytes(1 << 20))
    for namespace, output in (("acme", [picture]), ("", None)):
        in_flight = studio.begun(namespace=namespace)
        assert in_flight.note(OutputChunk(picture))
        assert in_flight.brief().output == output


async def test_a_run_that_begins_again(studio: Studio) -> None:
    """What the first attempt had put out and the second has not is deleted."""
    in_flight = studio.begun()
    for i in range(3):
        await studio.links.chunk_and_files(in_flight, i, uri(b"first %d" % i))
    await studio.links.chunk_and_files(in_flight, 0, uri(b"second"))
    assert len(studio.names()) == 3
    studio.ended(in_flight, [uri(b"second"), uri(b"first 1")])
    p = await studio.end_on_disk(in_flight)
    assert [Path(f.path).read_bytes() for f in p.output_files] == [b"second", b"first 1"]
    assert len(studio.names()) == 2
    in_flight = studio.begun("p2")
    await studio.links.chunk_and_files(in_flight, 0, uri(b"x"))
    studio.ended(in_flight, "no file at all")
    await studio.end_on_disk(in_flight)
    assert len(studio.names()) == 2


async def test_many_who_ask_at_once(studio: Studio) -> None:
    """One copy, also when one of them leaves; also for a row that was written without files."""
    in_flight = studio.begun()
    raw = studio.ended(in_flight, uri(bytes(1 << 20)))
    asking = [asyncio.create_task(studio.links.with_output_files(raw)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    found = await asyncio.gather(*asking[1:])
    assert len({p.output_files for p in found}) == 1
    old = replace(raw, id="old")
    await studio.store.put(old)
    found = await asyncio.gather(*(studio.links.with_output_files(old) for _ in range(5)))
    assert len({p.output_files for p in found}) == 1
    assert len(studio.names()) == 2
    stored = await studio.store.get("old")
    assert stored is not None
    assert (stored.output, len(stored.output_files)) == (None, 1)


async def test_a_full_disk(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays in the output, and nothing of it on the disk; with room again it is moved
    when it is next shown."""
    written = 0
    write = SpoolFile.write

    def full(file: SpoolFile, chunk: bytes | memoryview) -> None:
        nonlocal written
        written += 1
        if written > 1:
            raise InsufficientStorage(os.strerror(errno.ENOSPC))
        write(file, chunk)

    monkeypatch.setattr(SpoolFile, "write", full)
    in_flight = studio.begun()
    studio.ended(in_flight, [uri(b"first"), uri(b"second")])
    p = await studio.end_on_disk(in_flight)
    assert p.output == [None, uri(b"second")]
    assert len(studio.names()) == 1
    in_flight = studio.begun("p2")
    raw = studio.ended(in_flight, uri(b"third"))
    assert (await studio.end_on_disk(in_flight)).output == raw.output
    monkeypatch.setattr(SpoolFile, "write", write)
    assert (await studio.links.chunk_and_files(in_flight, 0, uri(b"third")))[0] == uri(b"third")
    moved = await studio.links.with_output_files(raw)
    assert (moved.output, len(moved.output_files)) == (None, 1)
    assert len(studio.names()) == 2


async def test_a_folder_that_is_gone(studio: Studio) -> None:
    """The result is written all the same, with its files in it."""
    studio.spool.folder.rmdir()
    studio.spool.folder.touch()  # so that nobody makes it again
    in_flight = studio.begun()
    studio.ended(in_flight, uri(b"x"))
    assert (await studio.end_on_disk(in_flight)).output == uri(b"x")


async def test_one_that_is_not_durable_leaves_no_file(studio: Studio) -> None:
    """It is gone with its answer."""
    in_flight = studio.begun(durable=False)
    assert await studio.links.chunk_and_files(in_flight, 0, uri(b"0")) == (uri(b"0"), (), (0,))
    raw = studio.ended(in_flight, uri(b"x"))
    assert await studio.links.with_output_files(raw) is raw
    assert studio.names() == []


async def test_urls(studio: Studio) -> None:
    """Each opens its own file alone, over a restart too, and ends in a file's name."""
    in_flight = studio.begun()
    hostile = {"../../x": uri(b"1"), "a b/é": uri(b"2"), "a b": uri(b"3"), "a_b": uri(b"4")}
    studio.ended(in_flight, {**hostile, "k" * 500: uri(b"5")})
    p = await studio.end_on_disk(in_flight)
    paths = [studio.outputs.url_path("p1", f) for f in p.output_files]
    assert len(set(paths)) == 5
    for path, file in zip(paths, p.output_files, strict=True):
        for outputs in (studio.outputs, Outputs(studio.spool, "secret")):
            assert outputs.named_by(f"https://any.example{path}") == ("p1", file.name)
        assert Outputs(studio.spool, "other").named_by(path) is None
        assert studio.outputs.named_by(path[:-1] + "z") is None
        assert studio.outputs.named_by(path.partition("?")[0]) is None
        async with studio.links.file_of_url(f"https://a.example{path}") as copy:
            assert copy is not None
            assert copy.name == file.name
            assert Path(copy.path).read_bytes() == Path(file.path).read_bytes()
    assert len(studio.names()) == 5
    async with studio.links.file_of_url("https://a.example/cat.png") as none:
        assert none is None
    await studio.store.sweep(9.0)
    with pytest.raises(NotFound):
        async with studio.links.file_of_url(paths[0]):
            pass


async def test_a_file_that_is_gone(studio: Studio) -> None:
    """The rest of the output is shown."""
    in_flight = studio.begun()
    studio.ended(in_flight, {"a": uri(b"x"), "b": 1})
    p = await studio.end_on_disk(in_flight)
    Path(p.output_files[0].path).unlink()
    assert (await studio.links.with_data_uris(p)).output == {"a": None, "b": 1}


async def test_more_files_than_anybody_wants(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest stays in the output."""
    monkeypatch.setattr("router.predictions.output_files.MAX_FILES", 2)
    in_flight = studio.begun()
    studio.ended(in_flight, [uri(b"1"), uri(b"2"), uri(b"3")])
    p = await studio.end_on_disk(in_flight)
    assert p.output == [None, None, uri(b"3")]
    assert (await studio.links.with_data_uris(p)).output == [uri(b"1"), uri(b"2"), uri(b"3")]


def test_what_an_earlier_router_left(tmp_path: Path) -> None:
    """Files of predictions that have not ended, or are not there, are deleted at start."""
    spool = Spool(tmp_path)
    for owner in ("kept", "kept-too", "gone"):
        file = spool.create("a.png", owner)
        file.close()
    (tmp_path / "stranger").touch()
    (tmp_path / "lost+found").mkdir()
    assert spool.remove_unowned({"kept", "kept-too"}) == 2
    left = sorted(p.name.partition(".")[0] for p in tmp_path.iterdir())
    assert left == ["kept", "kept-too", "lost+found"]
