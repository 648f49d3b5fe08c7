"""`data:` URIs (RFC 2397), decoded in pieces.

Decoded at once, 24 MB of percent signs take gigabytes and seconds. Here every step (JSON's
escapes, percent signs, base64) takes one piece after the other. Between two pieces it keeps only
the few bytes that the end of a piece has cut off. So memory does not grow, and other requests run
between two pieces.
"""

from __future__ import annotations

import asyncio
import binascii
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from router.errors import PayloadTooLarge
from router.inputs.json_text import MAX_TEXT_BYTES
from router.prediction import Json

PIECE_BYTES = 32 << 10
# Smaller, because a stray percent sign takes 90 bytes while its piece is decoded.
PERCENT_PIECE_BYTES = 4 << 10
MAX_STRAY_SIGNS = 10_000
HASHED_AT_ONCE_BYTES = 1 << 20
MAX_HEAD_BYTES = 4 << 10
# What may continue in the next piece. At the end of a JSON string's piece: an escape, the first
# half of a surrogate pair, or a character in UTF-8. At the end of a URI's piece: an escaped byte.
JSON_TAIL_BYTES = 12
JSON_UNFINISHED = re.compile(
    rb"(?:\\(?:u[0-9A-Fa-f]{0,3}|u[dD][89ABab][0-9A-Fa-f]{2}(?:\\(?:u[0-9A-Fa-f]{0,3})?)?)?"
    rb"|[\xc0-\xff][\x80-\xbf]{0,2})\Z"
)
PERCENT_UNFINISHED = re.compile(rb"%[0-9A-Fa-f]?\Z")
STRAY_SIGN = re.compile(rb"%(?![0-9A-Fa-f]{2})")
SWAP_PERCENT_EQUALS = bytes.maketrans(b"%=", b"=%")
BASE64_URLSAFE = bytes.maketrans(b"-_", b"+/")
WHITESPACE = b" \t\r\n"


@dataclass(slots=True)
class LongString:
    """A string of a JSON body as received: all bytes between its quotes, escapes included."""

    raw: bytes | bytearray

    def __len__(self) -> int:
        """Size in bytes, escapes included."""
        return len(self.raw)

    def release(self) -> None:
        """Free its memory after its use, even while the body is still referenced."""
        self.raw = b""

    async def sha256(self, turns: Turns) -> str:
        """Return the hash, in hex, of the string as received."""
        digest = hashlib.sha256()
        for piece in _cut(self.raw, HASHED_AT_ONCE_BYTES):
            await turns.take(functools.partial(digest.update, piece))
        return digest.hexdigest()

    def text(self) -> str:
        """Return the string.

        Raises PayloadTooLarge when it is too long for a text, and ValueError when it is not a
        JSON string.
        """
        if len(self.raw) > MAX_TEXT_BYTES:
            raise PayloadTooLarge(f"Cannot read the JSON: a text exceeds {MAX_TEXT_BYTES} bytes")
        return _json_string(bytes(self.raw))

    def pieces(self) -> Iterator[bytes]:
        """Yield the string in UTF-8, piece by piece. Raises ValueError when it is not JSON."""
        carry = b""
        for piece in _cut(self.raw, PIECE_BYTES):
            data = carry + piece
            # The second of two backslashes does not start an escape.
            tail = data.replace(rb"\\", b"..")[-JSON_TAIL_BYTES:]
            unfinished = JSON_UNFINISHED.search(tail)
            end = len(data) - (len(tail) - unfinished.start() if unfinished else 0)
            carry = data[end:]
            yield _json_string(data[:end]).encode()
        yield _json_string(carry).encode()


@dataclass(frozen=True, slots=True)
class DataUri:
    """A data: URI whose head has been read. `media_type` is in lower case, "" without one."""

    media_type: str
    is_base64: bool
    encoded: Iterator[bytes]

    def content(self) -> Iterator[bytes]:
        """Yield the content, piece by piece. Raises ValueError when it cannot be decoded."""
        decoded = percent_decoded(self.encoded)
        return base64_decoded(decoded) if self.is_base64 else decoded


def long_strings(value: Json) -> Iterator[LongString]:
    """Yield every LongString within the value."""
    if isinstance(value, LongString):
        yield value
    elif isinstance(value, list | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from long_strings(v)


def open_data_uri(source: str | LongString) -> DataUri:
    """Read the head of a data: URI.

    Raises ValueError when no comma ends it within MAX_HEAD_BYTES.
    """
    if isinstance(source, LongString):
        pieces = source.pieces()
    else:
        pieces = _cut(source.encode("utf-8", "replace"), PIECE_BYTES)
    begun = b""
    for piece in pieces:
        begun += piece
        if b"," in begun or len(begun) > MAX_HEAD_BYTES:
            break
    head, comma, rest = begun.partition(b",")
    if not comma or len(head) > MAX_HEAD_BYTES:
        raise ValueError("is not a data: URI: it has no comma")
    media_type, *parameters = head[len("data:") :].decode("utf-8", "replace").split(";")
    is_base64 = bool(parameters) and parameters[-1].strip().lower() == "base64"
    return DataUri(media_type.strip().lower(), is_base64, _chain(rest, pieces))


def percent_decoded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data with each `%41` decoded. A percent sign that encodes no byte stays unchanged.

    Raises ValueError when there are over MAX_STRAY_SIGNS such signs: each takes a hundred times
    as long.
    """
    carry = b""
    stray = 0
    for piece in pieces:
        for part in _cut(piece, PERCENT_PIECE_BYTES) if b"%" in piece else (piece,):
            data = carry + part
            unfinished = PERCENT_UNFINISHED.search(data[-2:])
            end = len(data) - (len(unfinished[0]) if unfinished else 0)
            carry = data[end:]
            decoded, count = _percent_decoded(data[:end])
            stray += count
            if stray > MAX_STRAY_SIGNS:
                raise ValueError(f"has over {MAX_STRAY_SIGNS} percent signs that encode no byte")
            yield decoded
    yield carry


def base64_decoded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the decoded data of base64 or its URL-safe form.

    White space within it and padding at its end are optional. Raises ValueError when it is not
    valid base64.
    """
    carry = b""
    ended = False
    for piece in pieces:
        data = piece.translate(BASE64_URLSAFE, WHITESPACE)
        new = data.rstrip(b"=")
        if ended and new:
            raise ValueError("is not valid base64")
        ended = ended or len(new) < len(data)
        packed = carry + new
        end = len(packed) - len(packed) % 4
        carry = packed[end:]
        yield _base64_decoded(packed[:end])
    yield _base64_decoded(carry + b"=" * (-len(carry) % 4))


def _cut(data: bytes | bytearray, piece_bytes: int) -> Iterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), piece_bytes):
        yield bytes(view[start : start + piece_bytes])


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _json_string(raw: bytes) -> str:
    try:
        return msgspec.json.decode(b'"' + raw + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError("is not a JSON string") from error


def _percent_decoded(data: bytes) -> tuple[bytes, int]:
    """Return the decoded data, and how many percent signs in it encode no byte.

    Quoted-printable differs only in its sign, and the standard library decodes it in C.
    """
    if b"%" not in data:
        return data, 0
    whole, stray = STRAY_SIGN.subn(b"%25", data)
    swapped = whole.replace(b"=", b"%3D").translate(SWAP_PERCENT_EQUALS)
    return binascii.a2b_qp(swapped), stray


def _base64_decoded(packed: bytes) -> bytes:
    try:
        return binascii.a2b_base64(packed, strict_mode=True)
    except binascii.Error as error:
        raise ValueError("is not valid base64") from error


T = TypeVar("T")

# Shorter data is handled at once, because a turn of the event loop costs more.
LONG_BYTES = 64 << 10


class Turns:
    """Runs the parsing and decoding steps of all large bodies one after the other.

    Without this, ten large bodies would put ten steps into every turn of the event loop, and every
    other request would wait ten times as long. There is one object for the whole
    application.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, step: Callable[[], T]) -> T:
        """Call `step` when it is its turn, and return its value.

        A step should take about 10 ms at most.
        """
        async with self._lock:
            value = step()
            await asyncio.sleep(0)
        return value
