"""Long data: strings are cut out of a JSON body, whatever is around them and however it is cut."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from router.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from router.http import json_body
from router.http.json_body import JsonBody, read_json
from router.inputs.data_uris import LongString, long_strings
from router.inputs.json_text import MAX_TEXT_BYTES
from router.inputs.request_inputs import with_texts
from router.prediction import Json

pytestmark = pytest.mark.slow

SNIPPETS = st.sampled_from(
    ["data:", '"data:', '\\"data:', "DATA:,", '"', "\\", ",", "/", "é", "😀", "x" * 40, "\n", "%41"]
)
TEXTS = st.lists(SNIPPETS, max_size=8).map("".join) | st.text(max_size=60)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is long that has some bytes."""
    monkeypatch.setattr(json_body, "LONG_BYTES", 5)
    monkeypatch.setattr(json_body, "SHORTEST_CUT_BYTES", 20)
    monkeypatch.setattr(json_body, "WINDOW_BYTES", 7)


def load(body: bytes, cut: int) -> Json:
    """What the body says when it comes in pieces of so many bytes."""
    reader = JsonBody()
    for start in range(0, len(body), cut):
        reader.take(body[start : start + cut])
    return reader.load()


@given(value=VALUES, cut=st.integers(1, 200), ascii_only=st.booleans(), slashes=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.usefixtures("small")
def test_any_cut_gives_the_same_value(
    value: Any, cut: int, ascii_only: bool, slashes: bool
) -> None:
    """Strings that were cut out are the strings that they were."""
    text = json.dumps({"input": {"v": value, "long": f"data:,{value}{'y' * 120}"}}, indent=1)
    if not ascii_only:
        text = json.dumps(json.loads(text), ensure_ascii=False)
    if slashes:
        text = text.replace("/", "\\/")
    loaded = load(text.encode(), cut)
    assert any(long_strings(loaded))
    assert with_texts(loaded) == json.loads(text)


@given(data=st.binary(max_size=300), cut=st.integers(1, 100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@pytest.mark.usefixtures("small")
def test_what_is_no_json_is_no_json_without_its_strings(data: bytes, cut: int) -> None:
    """To cut strings out makes nothing valid that was not."""
    body = b'{"a":"data:,' + b"x" * 120 + data
    try:
        loaded = load(body, cut)
    except ValueError:
        return
    try:
        strings = with_texts({"v": loaded})["v"]
    except ValueError:
        return  # a string that is none is found when it is used
    assert strings == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"x\\\\"data:,' + b"y" * 9000 + b'"}',
        b'{"data:,' + b"y" * 9000 + b'":1}',
        b'{"a":"data:,' + b"y" * 9000,
        b'{"a":"data:,' + b"y" * 9000 + b"\\",
        b'{"a":"data:,' + b"y" * 9000 + b'\\"}',
        b'["data:,' + b"y" * 9000 + b'"] x',
    ],
)
def test_what_is_refused(body: bytes) -> None:
    """A string after a string, a name, no end."""
    for cut in (1000, 70_000, 7):
        with pytest.raises(ValueError):
            load(b" " * 70_000 + body, cut)


@pytest.mark.parametrize(
    "unit", [b"[],", b'"",', b'"data:",', b'"data:,' + b"x" * 90 + b'",', b'\\"', b"\\\\", b" "]
)
def test_too_much_text_is_refused_early(unit: bytes) -> None:
    """No more of it is kept than may be text."""
    body = JsonBody()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            for _ in range(300):
                body.take(unit * (64_000 // len(unit)))
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_TEXT_BYTES
    finally:
        tracemalloc.stop()


def test_too_many_long_strings() -> None:
    """More than any request has files."""
    body = b'{"a":["' + b'","'.join([b"data:," + b"x" * 5000] * 300) + b'"]}'
    with pytest.raises(PayloadTooLarge):
        load(body, 65_536)


@pytest.mark.parametrize("unit", [b"A", b"%", b'\\"', b"\\\\", b"\\/", b"\\u0025"])
def test_a_long_string_takes_its_own_size(unit: bytes) -> None:
    """Kept once, in one piece, also when it comes byte by byte."""
    content = b"data:," + unit * (3_000_000 // len(unit))
    body = b'{"input":{"file":"' + content + b'"}}'
    tracemalloc.start()
    try:
        loaded = load(body, 65_536)
        assert tracemalloc.get_traced_memory()[1] < 1.6 * len(body)
    finally:
        tracemalloc.stop()
    assert loaded["input"]["file"].raw == content
    assert isinstance(load(body[:200_000] + b'"}}', 1)["input"]["file"], LongString)


def request(pieces: list[bytes], headers: list[tuple[bytes, bytes]]) -> Request:
    """A POST with that body."""
    last = len(pieces) - 1
    messages = [
        {"type": "http.request", "body": p, "more_body": i < last} for i, p in enumerate(pieces)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


JSON = (b"content-type", b"application/json; charset=utf-8")


async def test_a_body_is_an_object() -> None:
    """Nothing else, and nothing that is no JSON."""
    assert await read_json(request([b'{"a', b'":1}'], [JSON]), 100) == {"a": 1}
    for text in (b"[]", b"1", b"{", b"", b"{'a':1}", b'{"a":NaN}'):
        with pytest.raises(MalformedRequest):
            await read_json(request([text], [JSON]), 100)
    with pytest.raises(PayloadTooLarge):
        await read_json(request([b'{"a', b'":1}'], [JSON]), 6)


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"zstd", b"identity, br"])
async def test_a_compressed_body_is_refused(encoding: bytes) -> None:
    """By its header; one that is not compressed may say so."""
    with pytest.raises(UnsupportedMediaType):
        await read_json(request([b"{}"], [JSON, (b"content-encoding", encoding)]), 100)
    plain = request([b"{}"], [JSON, (b"content-encoding", b"identity")])
    assert await read_json(plain, 100) == {}
