"""Bodies of answers as they were before their Content-Encoding, in bounds.

Some servers compress whatever was asked for. What comes out is bounded as it is decoded, piece
by piece: a bomb is refused after its first `max_bytes`, and never lies in memory.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

import aiohttp

CHUNK_BYTES = 1 << 16
# What is decoded between two looks at other work: some hundred microseconds.
PIECE_BYTES = 1 << 16
# A gzip file may be thousands of tiny ones in a row, and zlib copies what follows each.
FEED_BYTES = 1 << 12
# What is larger when compressed is so by little: headers, names, checksums.
OVERHEAD_BYTES = 1 << 16
MAX_MEMBERS = 1 << 16  # of one gzip body: each costs some time, however empty it is
GZIP_BITS = 16 + zlib.MAX_WBITS
DECODED = ("gzip", "x-gzip", "deflate")


class CodingError(ValueError):
    """The body cannot be decoded. The message is what "it" or "its URL" does."""


class TooManyBytesError(ValueError):
    """The body is larger than allowed. The message is like CodingError's."""


class Inflater:
    """Decodes gzip, of one member or many, and deflate: zlib's, or bare as some servers send it."""

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding != "deflate"
        self._zlib: zlib._Decompress | None = None
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The next pieces, each of at most PIECE_BYTES. Raises CodingError."""
        while data:
            if self._zlib is None or self._zlib.eof:
                if self._members:
                    # Zeros may pad a gzip file; after a deflate stream nothing means anything.
                    data = data.lstrip(b"\0") if self._is_gzip else b""
                    if not data:
                        return
                self._zlib = self._start(data[0])
            yield self._inflate(self._zlib, data)
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail

    def finish(self) -> Iterator[bytes]:
        """What is left when all has been fed. Raises CodingError for a body that ends before its
        end."""
        while self._zlib is not None and not self._zlib.eof:
            piece = self._inflate(self._zlib, b"")
            if not piece and not self._zlib.eof:
                raise CodingError("answers with a compressed body that ends too early")
            yield piece

    def _start(self, first: int) -> zlib._Decompress:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise CodingError(f"answers with a gzip body of more than {MAX_MEMBERS} members")
        if self._is_gzip:
            return zlib.decompressobj(GZIP_BITS)
        has_header = first & 0x0F == 8  # RFC 1950: the method is 8
        return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)

    def _inflate(self, member: zlib._Decompress, data: bytes) -> bytes:
        try:
            return member.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise CodingError("answers with a compressed body that is damaged") from error


async def decoded(response: aiohttp.ClientResponse, max_bytes: int) -> AsyncIterator[bytes]:
    """The body's pieces, decoded. The session must not decode by itself.

    Raises CodingError, and TooManyBytesError as soon as more than `max_bytes` have come out (or,
    when compressed, a little more than that has come in).
    """
    coding = _coding_of(response)
    may_come_in = max_bytes + (OVERHEAD_BYTES if coding else 0)
    if (response.content_length or 0) > may_come_in:
        raise TooManyBytesError(f"answers with over {max_bytes} bytes")
    pieces = _inflated(response, coding) if coding else response.content.iter_chunked(CHUNK_BYTES)
    came_out = 0
    async for piece in pieces:
        came_out += len(piece)
        if came_out > max_bytes or response.content.total_bytes > may_come_in:
            raise TooManyBytesError(f"answers with over {max_bytes} bytes")
        yield piece


async def _inflated(response: aiohttp.ClientResponse, coding: str) -> AsyncIterator[bytes]:
    inflater = Inflater(coding)
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        for start in range(0, len(chunk), FEED_BYTES):
            for piece in inflater.feed(chunk[start : start + FEED_BYTES]):
                yield piece
                await asyncio.sleep(0)  # one chunk may become a thousand
    for piece in inflater.finish():
        yield piece


def _coding_of(response: aiohttp.ClientResponse) -> str:
    """The one coding that was applied, "" for none. Raises CodingError."""
    named = ",".join(response.headers.getall("Content-Encoding", ())).lower().split(",")
    codings = [c for c in map(str.strip, named) if c not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in DECODED:
        shown = ", ".join(codings)[:60]
        raise CodingError(f"answers in the content coding '{shown}', which is not read")
    return codings[0]
