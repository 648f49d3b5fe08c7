"""Uploads are kept, used by link, and swept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.errors import InsufficientStorage, InvalidInput, NotFound
from router.inputs.file_uploads import Uploads
from router.keys.key import TRUSTED, Caller
from router.prediction import FileRef
from router.storage.spool import Spool
from router.storage.store import StoredFile
from tests.router.conftest import AnyStore
from tests.router.fakes import HandClock
from tests.waiting import until

KEEP_S = 100.0


class Elsewhere:
    """The fetcher of all other URLs."""

    def __init__(self) -> None:
        self.urls: list[str] = []

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Noted."""
        self.urls.append(url)
        return "/fetched", "x"

    async def close(self) -> None:
        """Nothing to close."""


class Desk:
    """Uploads on a store and a real spool."""

    def __init__(self, store: AnyStore, folder: Path) -> None:
        self.spool = Spool(folder / "spool")
        self.clock = HandClock()
        self.elsewhere = Elsewhere()
        self.outputs: dict[str, FileRef] = {}
        self.uploads = Uploads(
            store, self.spool, self.elsewhere, self.clock, KEEP_S, find_output=self.find_output
        )

    @contextlib.asynccontextmanager
    async def find_output(self, url: str) -> AsyncIterator[FileRef | None]:
        """An output of this box, or one that was."""
        if url.endswith("/swept"):
            raise NotFound("swept")
        yield self.outputs.get(url)

    def spooled(self, body: bytes) -> FileRef:
        """An upload as a form leaves it."""
        file = self.spool.create("a.txt")
        file.write(body)
        file.close()
        return FileRef("content", str(file.path), "a.txt", media_type="text/plain")

    def names(self) -> list[str]:
        """What lies in the spool."""
        return sorted(p.name for p in self.spool.folder.iterdir())


@pytest.fixture
def desk(any_store: AnyStore, tmp_path: Path) -> Desk:
    """Nothing uploaded yet."""
    return Desk(any_store, tmp_path)


def url(stored: StoredFile, host: str = "box.example") -> str:
    """Where clients are told it is."""
    return f"https://{host}/v1/files/{stored.id}"


async def test_an_upload_is_an_input_by_its_url(desk: Desk) -> None:
    """Under any of our names, by a link of its own; nothing is fetched."""
    stored = await desk.uploads.add(desk.spooled(b"hello"), {"k": 1}, TRUSTED)
    assert (stored.size_bytes, stored.content_type, stored.metadata) == (5, "text/plain", {"k": 1})
    paths = [
        (await desk.uploads.fetch(url(stored, h), "f", 99, TRUSTED))[0]
        for h in ("a", "127.0.0.1:1")
    ]
    assert len({*paths, stored.path}) == 3
    await desk.uploads.delete(stored.id, TRUSTED)
    assert [Path(p).read_bytes() for p in paths] == [b"hello"] * 2
    assert [Path(p).suffix for p in paths] == [".txt"] * 2
    assert desk.elsewhere.urls == []
    desk.spool.remove([FileRef("f", p, "a") for p in paths])
    assert desk.names() == []


@pytest.mark.parametrize(
    ("name", "media_type", "suffix"),
    [
        ("renamed.PNG", "text/plain", ".png"),
        ("upload", "image/webp", ".webp"),
        ("upload", "application/octet-stream", ".txt"),
        ("../../x.sh/y", "", ".txt"),
    ],
)
async def test_a_link_has_the_ending_of_the_name_or_the_type(
    desk: Desk, name: str, media_type: str, suffix: str
) -> None:
    """Whatever the upload's own part was called: some decoders go by the ending."""
    upload = replace(desk.spooled(b"x"), name=name, media_type=media_type)
    stored = await desk.uploads.add(upload, {}, TRUSTED)
    path, shown = await desk.uploads.fetch(url(stored), "f", 99, TRUSTED)
    assert (Path(path).suffix, shown) == (suffix, name)
    assert Path(path).parent == desk.spool.folder


async def test_other_urls_are_fetched(desk: Desk) -> None:
    """Also those that only look like ours."""
    stored = await desk.uploads.add(desk.spooled(b"x"), {}, TRUSTED)
    urls = [
        "https://a.example/cat.png",
        f"https://a.example/v1/files/{'0' * 32}",
        f"{url(stored)}/more",
        url(stored).upper(),
    ]
    for u in urls:
        assert await desk.uploads.fetch(u, "f", 99, TRUSTED) == ("/fetched", "x")
    assert desk.elsewhere.urls == urls


async def test_a_file_of_an_output_is_an_input_by_its_url(desk: Desk) -> None:
    """By a link, for every holder; one that was swept is not looked for elsewhere."""
    made = desk.spooled(b"painted")
    desk.outputs["https://box.example/v1/outputs/p/output.png"] = FileRef("", made.path, "o.png")
    path, name = await desk.uploads.fetch(next(iter(desk.outputs)), "f", 99, TRUSTED)
    assert (Path(path).read_bytes(), Path(path).suffix, name) == (b"painted", ".png", "o.png")
    with pytest.raises(InvalidInput, match="not kept any more"):
        await desk.uploads.fetch("https://box.example/v1/outputs/p/swept", "f", 99, TRUSTED)
    assert desk.elsewhere.urls == []


async def test_what_is_too_old_is_swept(desk: Desk) -> None:
    """Not shown from then on, and gone with the next sweep."""
    old = await desk.uploads.add(desk.spooled(b"old"), {}, TRUSTED)
    desk.clock.advance(KEEP_S / 2)
    new = await desk.uploads.add(desk.spooled(b"new"), {}, TRUSTED)
    desk.clock.advance(KEEP_S / 2)
    assert list(await desk.uploads.list(TRUSTED)) == [new]
    with pytest.raises(NotFound):
        await desk.uploads.get(old.id, TRUSTED)
    await desk.uploads.open()
    await until(lambda: desk.names() == [Path(new.path).name])
    await desk.uploads.close()


async def test_a_file_that_is_gone_from_the_spool(desk: Desk) -> None:
    """The client is told; it is not looked for elsewhere."""
    stored = await desk.uploads.add(desk.spooled(b"x"), {}, TRUSTED)
    Path(stored.path).unlink()
    with pytest.raises(InvalidInput, match="expired"):
        await desk.uploads.fetch(url(stored), "f", 99, TRUSTED)


async def test_an_upload_that_cannot_be_recorded(
    desk: Desk, any_store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays."""

    async def full(file: StoredFile) -> None:
        raise InsufficientStorage("full")

    monkeypatch.setattr(any_store, "put_file", full)
    with pytest.raises(InsufficientStorage):
        await desk.uploads.add(desk.spooled(b"x"), {}, TRUSTED)
    assert desk.names() == []
