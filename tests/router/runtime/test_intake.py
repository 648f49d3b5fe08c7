"""From what a client sent to checked values and spooled files."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.adapters.cog_process import with_file_urls
from router.adapters.spool import Spool
from router.domain.caller import TRUSTED, Caller
from router.domain.errors import InvalidInput, PayloadTooLarge, RouterError
from router.domain.prediction import FileRef, Job
from router.runtime.inputs import InputSpec
from router.runtime.intake import MAX_FILES, Intake, Upload

FILE = {"type": "string", "format": "uri"}
SPEC = InputSpec(
    {
        "components": {
            "schemas": {
                "Input": {
                    "properties": {
                        "image": {"x-order": 0, **FILE},
                        "more": {"x-order": 1, "type": "array", "items": FILE},
                        "steps": {"x-order": 2, "type": "integer", "maximum": 5},
                    }
                }
            }
        }
    }
)


class NoFetcher:
    """There is no network here."""

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Refuses."""
        raise InvalidInput(f"Cannot fetch '{field}'")

    async def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    return Spool(tmp_path / "spool")


@pytest.fixture
def intake(spool: Spool) -> Intake:
    """An intake of files of at most 100 bytes."""
    return Intake(spool, NoFetcher(), 100)


@pytest.mark.parametrize(
    ("uri", "content", "suffix"),
    [
        ("data:text/plain;base64,aGVsbG8=", b"hello", ".txt"),
        ("DATA:text/plain;base64,aGVsbG8", b"hello", ".txt"),
        ("data:audio/webm;codecs=opus;base64,aGVsbG8", b"hello", ".webm"),
        ("data:,a%20b", b"a b", ""),
        ("data:image/png;base64,-_-_", b"\xfb\xff\xbf", ".png"),
    ],
)
async def test_data_uris(intake: Intake, uri: str, content: bytes, suffix: str) -> None:
    """Every kind becomes a file with the suffix of its type."""
    _, (ref,) = await intake.from_json(SPEC, {"image": uri}, TRUSTED)
    path = Path(ref.path)
    assert (path.read_bytes(), path.suffix) == (content, suffix)


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "data:no comma",
        "data:;base64,!!!",
        "data:," + "x" * 101,
        "http://[::1",
        "http://a.example/x",
        7,
        ["data:,a", "data:,b"],
    ],
)
async def test_what_is_no_file(intake: Intake, spool: Spool, value: object) -> None:
    """Refused, and nothing stays in the spool."""
    with pytest.raises(RouterError):
        await intake.from_json(SPEC, {"image": value}, TRUSTED)
    assert list(spool.folder.iterdir()) == []


async def test_more_files_than_may_be(intake: Intake, spool: Spool) -> None:
    """Refused before the first is written; as many as may be are taken, in their order."""
    with pytest.raises(PayloadTooLarge):
        await intake.from_json(SPEC, {"more": ["data:,x"] * (MAX_FILES + 1)}, TRUSTED)
    assert list(spool.folder.iterdir()) == []
    _, refs = await intake.from_json(
        SPEC, {"more": [f"data:,{i}" for i in range(MAX_FILES)]}, TRUSTED
    )
    assert [Path(r.path).read_text() for r in refs] == [str(i) for i in range(MAX_FILES)]


async def test_a_wrong_value_costs_the_uploads(intake: Intake, spool: Spool) -> None:
    """Files that came with a form that is refused are deleted."""
    file = spool.create("a.png")
    file.write(b"x")
    file.close()
    upload = Upload("image", str(file.path), "a.png")
    with pytest.raises(InvalidInput):
        await intake.from_form(SPEC, {"steps": ["9"]}, [upload], TRUSTED)
    assert list(spool.folder.iterdir()) == []


def test_files_in_lists_reach_coglet_in_their_order() -> None:
    """One URL each, beside the plain values."""
    files = tuple(FileRef("more", f"/spool/{i}.png", "n", in_list=True) for i in range(3))
    job = Job("id", {"steps": 1}, (*files, FileRef("image", "/spool/x y.png", "n")))
    assert with_file_urls(job) == {
        "steps": 1,
        "more": [f"http://spool.callme.invalid/{i}.png" for i in range(3)],
        "image": "http://spool.callme.invalid/x%20y.png",
    }
