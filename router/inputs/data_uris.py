"""`data:` URIs (RFC 2397), decoded in pieces.

Decoded at once, 24 MB of percent signs take gigabytes and seconds. Here every step (JSON's
escapes, percent signs, base64) takes one piece after the other and keeps no more than the few
bytes that a cut has left over, so memory does not grow and other requests run between two pieces.
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
# A stray sign takes 90 bytes while its piece is decoded.
PERCENT_PIECE_BYTES = 4 << 10
MAX_STRAY_SIGNS = 10_000
HASHED_AT_ONCE_BYTES = 1 << 20
MAX_HEAD_BYTES = 4 << 10
# What may still become part of a longer token when more comes: of a JSON string an escape, the
# first half of a pair of surrogates, or a character of UTF-8; of a URI an escaped byte.
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
    """A string of a JSON body as it came: what stood between its quotes, escapes and all."""

    raw: bytes | bytearray

    def __len__(self) -> int:
        """Bytes."""
        return len(self.raw)

    def release(self) -> None:
        """It has been used: give its memory back, even while the body is still referenced."""
        self.raw = b""

    async def sha256(self, turns: Turns) -> str:
        """The hash, in hex, of the string as it came."""
        digest = hashlib.sha256()
        for piece in _cut(self.raw, HASHED_AT_ONCE_BYTES):
            await turns.take(functools.partial(digest.update, piece))
        return digest.hexdigest()

    def text(self) -> str:
        """The string. Raises PayloadTooLarge when it is too long for a text, ValueError."""
        if len(self.raw) > MAX_TEXT_BYTES:
            raise PayloadTooLarge(f"Cannot read the JSON: a text exceeds {MAX_TEXT_BYTES} bytes")
        return _json_string(bytes(self.raw))

    def pieces(self) -> Iterator[bytes]:
        """The string in UTF-8, piece by piece. Raises ValueError where it is no JSON."""
        carry = b""
        for piece in _cut(self.raw, PIECE_BYTES):
            data = carry + piece
            # Of two backslashes the second starts no escape.
            tail = data.replace(rb"\\", b"..")[-JSON_TAIL_BYTES:]
            unfinished = JSON_UNFINISHED.search(tail)
            end = len(data) - (len(tail) - unfinished.start() if unfinished else 0)
            carry = data[end:]
            yield _json_string(data[:end]).encode()
        yield _json_string(carry).encode()


@dataclass(frozen=True, slots=True)
class DataUri:
    """A data: URI whose head has been read. `media_type` in lower case, "" without one."""

    media_type: str
    is_base64: bool
    encoded: Iterator[bytes]

    def content(self) -> Iterator[bytes]:
        """What it holds, piece by piece. Raises ValueError."""
        decoded = percent_decoded(self.encoded)
        return base64_decoded(decoded) if self.is_base64 else decoded


def long_strings(value: Json) -> Iterator[LongString]:
    """Every one within the value."""
    if isinstance(value, LongString):
        yield value
    elif isinstance(value, list | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from long_strings(v)


def open_data_uri(source: str | LongString) -> DataUri:
    """Read the head. Raises ValueError when no comma ends it within MAX_HEAD_BYTES."""
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
    """Each `%41` as the byte it stands for; a sign that stands for none as it is. Raises
    ValueError when there are over MAX_STRAY_SIGNS of those: each takes a hundred times as long."""
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
    """Base64 or its URL-safe form, white space within and padding at the end or not. Raises
    ValueError."""
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
    """The data decoded, and how many signs in it stand for no byte. Quoted-printable is the same
    but for its sign, and the standard library reads it in C."""
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

# What is shorter is done at once: a turn of the loop costs more.
LONG_BYTES = 64 << 10


class Turns:
    """Ten large bodies at once are parsed and decoded one step after the other: without this
    every turn of the event loop would have ten steps in it, and each waiting request ten times
    the wait. One object for the whole application."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, step: Callable[[], T]) -> T:
        """Call `step` when it is its turn. It should take at most some 10 ms."""
        async with self._lock:
            value = step()
            await asyncio.sleep(0)
        return value
