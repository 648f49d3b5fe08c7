"""From what a client sent to checked values and spooled files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from router.errors import InvalidInput, PayloadTooLarge, RouterError
from router.inputs.data_uris import LONG_BYTES, LongString
from router.inputs.input_schema import InputSchema
from router.inputs.json_text import MAX_TEXT_BYTES
from router.inputs.request_inputs import MAX_FILES, MAX_URL_CHARS, NO_FILE, RequestInputs, Text
from router.keys.key import TRUSTED, Caller
from router.models.coglet_client import with_file_urls
from router.prediction import FileRef, Job
from router.storage.spool import Spool

FILE = {"type": "string", "format": "uri"}
SCHEMA = {
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


def spec() -> InputSchema:
    """What the model takes, read again for each test."""
    return InputSchema(SCHEMA)


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
def intake(spool: Spool) -> RequestInputs:
    """An intake of files of at most 100 bytes."""
    return RequestInputs(spool, NoFetcher(), 100)


@pytest.mark.parametrize(
    ("uri", "content", "suffix"),
    [
        ("data:text/plain;base64,aGVsbG8=", b"hello", ".txt"),
        ("DATA:text/plain;base64,aGVsbG8", b"hello", ".txt"),
        ("data:audio/webm;codecs=opus;base64,aGVsbG8", b"hello", ".webm"),
        ("data:,a%20b", b"a b", ""),
        ("data:image/png;base64,-_-_", b"\xfb\xff\xbf", ".png"),
        ("data:;base64,aGVs\r\nbG8 ==", b"hello", ""),
        ("data:;base64,aGVsbG8%3D", b"hello", ""),
        ("data:,100%25 of 5%", b"100% of 5%", ""),
        ("data:,\u00e9", b"\xc3\xa9", ""),
        ("data:,", b"", ""),
    ],
)
async def test_data_uris(intake: RequestInputs, uri: str, content: bytes, suffix: str) -> None:
    """Every kind becomes a file with the suffix of its type."""
    _, (ref,) = await intake.from_json(spec(), {"image": uri}, TRUSTED)
    path = Path(ref.path)
    assert (path.read_bytes(), path.suffix) == (content, suffix)


@pytest.mark.parametrize(
    "value",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "data:no comma",
        "data:;base64,!!!",
        "data:;base64,aGVs=bG8",
        "data:;base64,a",
        "data:" + ";a" * 3000 + ",x",
        "http://a.example/" + "x" * 9000,
        "data:," + "x" * 101,
        "http://[::1",
        "http://a.example/x",
        7,
        ["data:,a", "data:,b"],
    ],
)
async def test_what_is_no_file(intake: RequestInputs, spool: Spool, value: object) -> None:
    """Refused, and nothing stays in the spool."""
    with pytest.raises(RouterError):
        await intake.from_json(spec(), {"image": value}, TRUSTED)
    assert list(spool.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/etc/passwd", "must be an upload, a data: URI or an http(s) URL"),
        (7, "must be an upload, a data: URI or an http(s) URL"),
        ("http://a.example/" + "x" * MAX_URL_CHARS, "is a URL of over 8192 characters"),
        ("https://[::1", "is not a URL"),
        (["data:,a", "data:,b"], "must be given once"),
    ],
)
async def test_why_it_is_no_file(intake: RequestInputs, value: object, message: str) -> None:
    """In words, for the input that it is about."""
    with pytest.raises(InvalidInput) as refused:
        await intake.from_json(spec(), {"image": value}, TRUSTED)
    assert refused.value.message == f"Cannot use 'image': {message}"
    assert refused.value.details == {"problems": [{"input": "image", "message": message}]}


async def test_values_pass(intake: RequestInputs) -> None:
    """As they are; an unknown input is dropped, and a file input that is left blank is none."""
    values = {"steps": 3, "unknown": 1, "image": "", "more": []}
    inputs, refs = await intake.from_json(spec(), values, TRUSTED)
    assert (dict(inputs), refs) == ({"steps": 3}, ())
    with pytest.raises(InvalidInput, match="'steps'"):
        await intake.from_json(spec(), {"steps": 6}, TRUSTED)


class Fetched:
    """Fetches everything, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int, Caller]] = []

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """A path and a name for it."""
        self.asked.append((url, field, max_bytes, caller))
        return f"/spool/{len(self.asked)}", f"name {len(self.asked)}"

    async def close(self) -> None:
        """Nothing to close."""


async def test_urls_are_fetched(spool: Spool) -> None:
    """Each for its field and its caller, in the order in which they came."""
    fetched, caller = Fetched(), Caller("ann")
    longest = "HTTPS://a.example/" + "x" * (MAX_URL_CHARS - 18)
    values = {"image": "http://a.example/1", "more": [longest, "https://a.example/3"]}
    _, refs = await RequestInputs(spool, fetched, 100).from_json(spec(), values, caller)
    assert fetched.asked == [
        ("http://a.example/1", "image", 100, caller),
        (longest, "more", 100, caller),
        ("https://a.example/3", "more", 100, caller),
    ]
    assert refs == (
        FileRef("image", "/spool/1", "name 1"),
        FileRef("more", "/spool/2", "name 2", in_list=True),
        FileRef("more", "/spool/3", "name 3", in_list=True),
    )


async def test_a_form_is_its_callers(spool: Spool) -> None:
    """So are the URLs in it; an upload keeps the name that it came with."""
    fetched, caller = Fetched(), Caller("ann")
    upload = FileRef("image", "/spool/0", "my cat.png")
    parts: list[Text | FileRef] = [upload, Text("more", "https://a.example/1")]
    _, refs = await RequestInputs(spool, fetched, 100).from_form(spec(), parts, caller)
    assert fetched.asked == [("https://a.example/1", "more", 100, caller)]
    assert [ref.name for ref in refs] == ["my cat.png", "name 1"]


async def test_a_file_of_just_the_limit(intake: RequestInputs) -> None:
    """To the byte; its name is the input's, with the ending of its type."""
    uri = "data:text/plain," + "x" * 100
    _, (ref,) = await intake.from_json(spec(), {"image": uri}, TRUSTED)
    assert (ref.field, ref.name, ref.in_list) == ("image", "image.txt", False)
    with pytest.raises(PayloadTooLarge, match="'image': it exceeds 100 bytes"):
        await intake.from_json(spec(), {"image": uri + "x"}, TRUSTED)
    fits, over = (
        LongString(f"data:;base64,{'QUJD' * 33}{end}".encode()) for end in ("QQ==", "QUI=")
    )
    await intake.from_json(spec(), {"image": fits}, TRUSTED)
    assert len(fits) == 0  # its memory is free
    with pytest.raises(PayloadTooLarge, match="'image': it exceeds 100 bytes"):
        await intake.from_json(spec(), {"image": over}, TRUSTED)
    _, refs = await intake.from_json(spec(), {"more": ["data:,a", "data:,b"]}, TRUSTED)
    assert [(r.field, r.name, r.in_list) for r in refs] == [("more", "more", True)] * 2


async def test_more_files_than_may_be(intake: RequestInputs, spool: Spool) -> None:
    """Refused before the first is written; as many as may be are taken, in their order."""
    with pytest.raises(PayloadTooLarge):
        await intake.from_json(spec(), {"more": ["data:,x"] * (MAX_FILES + 1)}, TRUSTED)
    assert list(spool.folder.iterdir()) == []
    _, refs = await intake.from_json(
        spec(), {"more": [f"data:,{i}" for i in range(MAX_FILES)]}, TRUSTED
    )
    assert [Path(r.path).read_text() for r in refs] == [str(i) for i in range(MAX_FILES)]


async def test_a_wrong_value_costs_the_uploads(intake: RequestInputs, spool: Spool) -> None:
    """Files that came with a form that is refused are deleted."""
    file = spool.create("a.png")
    file.write(b"x")
    file.close()
    upload = FileRef("image", str(file.path), "a.png")
    with pytest.raises(InvalidInput):
        await intake.from_form(spec(), [Text("steps", "9"), upload], TRUSTED)
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


async def test_files_keep_the_order_of_the_forms_parts(intake: RequestInputs, spool: Spool) -> None:
    """Uploads, data: URIs and a JSON array of them, as they came."""
    parts: list[Text | FileRef] = []
    for content in (b"1", b"3"):
        file = spool.create("a")
        file.write(content)
        file.close()
        parts.append(FileRef("more", str(file.path), "a"))
    parts.insert(1, Text("more", "data:,2"))
    parts += [Text("more", '["data:,4", "data:,5"]'), Text("more", ""), Text("image", "")]
    _, refs = await intake.from_form(spec(), parts, TRUSTED)
    assert [Path(r.path).read_text() for r in refs] == ["1", "2", "3", "4", "5"]
    assert {(r.field, r.in_list) for r in refs} == {("more", True)}


async def test_a_form_may_not_give_one_file_twice(intake: RequestInputs, spool: Spool) -> None:
    """As an upload and as a text."""
    file = spool.create("a")
    file.close()
    with pytest.raises(InvalidInput, match="must be given once"):
        await intake.from_form(
            spec(), [FileRef("image", str(file.path), "a"), Text("image", "data:,x")], TRUSTED
        )
    assert list(spool.folder.iterdir()) == []


WORDS = {
    "components": {
        "schemas": {
            "Input": {
                "properties": {
                    "text": {"type": "string"},
                    "words": {"type": "array", "items": {"type": "string"}},
                    "map": {"type": "object"},
                    "image": FILE,
                    "more": {"type": "array", "items": FILE},
                }
            }
        }
    }
}


async def test_long_strings_are_texts_where_no_file_is_taken(intake: RequestInputs) -> None:
    """Wherever they stand; all of them together as long as a body's text, to the byte."""
    half = MAX_TEXT_BYTES // 2
    long = [LongString(b"a" * half), LongString(b"b" * half)]
    for values, expected in (
        (
            {"text": long[0], "words": ["x", long[1]]},
            {"text": "a" * half, "words": ["x", "b" * half]},
        ),
        ({"map": {"k": [long[0], 1]}}, {"map": {"k": ["a" * half, 1]}}),
        ({"text": LongString(b"c" * 2 * half)}, {"text": "c" * 2 * half}),
    ):
        inputs, _ = await intake.from_json(InputSchema(WORDS), values, TRUSTED)
        assert dict(inputs) == expected
    for words in ([*long, LongString(b"c")], [LongString(b"c" * (2 * half + 1))]):
        with pytest.raises(PayloadTooLarge):
            await intake.from_json(InputSchema(WORDS), {"words": words}, TRUSTED)
    with pytest.raises(PayloadTooLarge, match=f"it has over {MAX_TEXT_BYTES} bytes of text"):
        await intake.from_json(InputSchema(WORDS), {"words": [*long, LongString(b"c")]}, TRUSTED)


async def test_what_a_form_may_not_say(intake: RequestInputs, spool: Spool) -> None:
    """A file for a text; a list of files that is no JSON. What it may: texts of each type."""
    file = spool.create("a")
    file.close()
    upload = FileRef("text", str(file.path), "a")
    wrong: list[tuple[list[Text | FileRef], str]] = [
        ([Text("text", "a"), upload], "Cannot use 'text': must be text, got a file"),
        ([Text("more", " [x")], f"Cannot use 'more': {NO_FILE}"),
        ([Text("image", "x")], f"Cannot use 'image': {NO_FILE}"),
    ]
    for parts, message in wrong:
        with pytest.raises(InvalidInput) as refused:
            await intake.from_form(InputSchema(WORDS), parts, TRUSTED)
        assert refused.value.message == message
    assert list(spool.folder.iterdir()) == []
    parts = [
        Text("text", "a"),
        Text("words", "b"),
        Text("words", "c"),
        Text("more", ' ["data:,d"]'),
    ]
    inputs, (ref,) = await intake.from_form(InputSchema(WORDS), parts, TRUSTED)
    assert dict(inputs) == {"text": "a", "words": ["b", "c"]}
    assert Path(ref.path).read_text() == "d"


async def test_a_long_form_is_read_in_a_turn_of_its_own(
    intake: RequestInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a long data: URI is decoded: what is short waits for nobody."""
    taken: list[object] = []
    take = intake.turns.take

    async def noted(work: Callable[[], object]) -> object:
        taken.append(work)
        return await take(work)

    monkeypatch.setattr(intake.turns, "take", noted)
    for length, turns in ((LONG_BYTES, 0), (LONG_BYTES + 1, 1)):
        taken.clear()
        await intake.from_form(InputSchema(WORDS), [Text("text", "a" * length)], TRUSTED)
        assert len(taken) == turns
    big = RequestInputs(Spool(intake._files.folder), NoFetcher(), 1 << 20)  # type: ignore[attr-defined]
    monkeypatch.setattr(big.turns, "take", noted)
    for length, at_least in ((LONG_BYTES - 6, 0), (LONG_BYTES - 5, 1)):
        taken.clear()
        await big.from_json(InputSchema(WORDS), {"image": "data:," + "x" * length}, TRUSTED)
        assert (len(taken) >= 1) == bool(at_least)
