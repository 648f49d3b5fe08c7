"""data: URIs in pieces give what they would give at once."""

from __future__ import annotations

import base64
import json
import tracemalloc
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.errors import PayloadTooLarge
from router.inputs import data_uris
from router.inputs.data_uris import MAX_STRAY_SIGNS, PIECE_BYTES, LongString, Turns, open_data_uri
from router.inputs.json_text import MAX_TEXT_BYTES

SMALL = pytest.mark.usefixtures("small_pieces")
WITH_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of some bytes, so that every token is cut somewhere."""
    monkeypatch.setattr(data_uris, "PIECE_BYTES", 13)


def escaped(text: str) -> LongString:
    """The string as a JSON body has it: every slash, quote and non-ASCII character escaped."""
    return LongString(bytearray(json.dumps(text)[1:-1].replace("/", "\\/").encode()))


def raw(text: str) -> LongString:
    """The string as a JSON body has it, escaped no more than need be."""
    return LongString(json.dumps(text, ensure_ascii=False)[1:-1].encode())


@SMALL
@WITH_FIXTURE
@given(st.binary(max_size=300))
def test_base64(content: bytes) -> None:
    """As text, in JSON, URL-safe, in lines, without padding."""
    packed = base64.b64encode(content).decode()
    safe = base64.urlsafe_b64encode(content).decode().rstrip("=")
    lines = base64.encodebytes(content).decode()
    for body in (packed, safe, lines, quote(packed, safe="")):
        uri = f"data:image/png;base64,{body}"
        for source in (uri, escaped(uri), raw(uri)):
            assert b"".join(open_data_uri(source).content()) == content


@SMALL
@WITH_FIXTURE
@given(st.text(max_size=200))
def test_percent_signs_and_escapes(text: str) -> None:
    """Whatever the text, also with percent signs that stand for nothing."""
    for body in (text, quote(text), f"%{text}%4"):
        uri = f"data:text/plain;charset=utf-8,{body}"
        wanted = unquote_to_bytes(body)
        for source in (uri, escaped(uri), raw(uri)):
            assert b"".join(open_data_uri(source).content()) == wanted
        assert escaped(uri).text() == raw(uri).text() == uri


@SMALL
@WITH_FIXTURE
@given(st.binary(max_size=120))
def test_what_is_no_string_of_json(data: bytes) -> None:
    """A ValueError, or the string that JSON says."""
    string = LongString(b"data:,abc" + data)
    try:
        wanted = json.loads(b'"' + string.raw + b'"')
        wanted.encode()  # two halves of a pair that never meet
    except ValueError:
        with pytest.raises(ValueError):
            b"".join(string.pieces())
    else:
        assert b"".join(string.pieces()).decode() == wanted


@pytest.mark.parametrize(
    "uri", ["data:;base64,a", "data:;base64,aaaa=aaa", "data:;base64,aa!a", "data:;base64,=aaa"]
)
def test_what_is_no_base64(uri: str) -> None:
    """A ValueError."""
    with pytest.raises(ValueError, match="base64"):
        b"".join(open_data_uri(uri).content())


def test_padding_ends_it_also_where_a_piece_ends() -> None:
    """What comes in the next piece is read by itself."""
    head = "data:;base64,QQ=="
    far = head + " " * (PIECE_BYTES - len(head))
    assert b"".join(open_data_uri(far + "  =").content()) == b"A"
    with pytest.raises(ValueError, match="base64"):
        b"".join(open_data_uri(far + "QUJD").content())


@pytest.mark.parametrize("head", ["data:" + ";a" * 1_000_000, "data:" + "a" * 5000 + ",x"])
def test_the_head_is_bounded(head: str) -> None:
    """No comma is looked for in megabytes."""
    with pytest.raises(ValueError, match="no comma"):
        open_data_uri(head)


@pytest.mark.parametrize("token", ["%", "%41", "%4", "=", "\\/", "\\u0025", "A"])
@pytest.mark.parametrize("head", ["data:,", "data:;base64,"])
def test_it_takes_no_memory(token: str, head: str) -> None:
    """Whatever it is full of."""
    source = LongString(bytearray((head + token * (4_000_000 // len(token))).encode()))
    tracemalloc.start()
    try:
        for _ in open_data_uri(source).content():
            pass
    except ValueError:
        pass
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 1_000_000


def test_stray_percent_signs() -> None:
    """Some are what somebody has typed; millions would take seconds."""
    many = "data:," + "100%, " * MAX_STRAY_SIGNS
    assert b"".join(open_data_uri(many).content()).decode() == many[len("data:,") :]
    with pytest.raises(ValueError, match="over 10000 percent signs"):
        b"".join(open_data_uri(many + "%%").content())


def test_one_that_is_too_long_for_a_text() -> None:
    """It may be a file all the same."""
    string = LongString(b"data:," + b"x" * MAX_TEXT_BYTES)
    with pytest.raises(PayloadTooLarge):
        string.text()
    assert sum(map(len, string.pieces())) == len(string)


async def test_its_hash() -> None:
    """Of the string as it came; another string has another."""
    one, same, other = (LongString(s) for s in (b"data:,a", bytearray(b"data:,a"), b"data:,b"))
    hashes = [await s.sha256(Turns()) for s in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
