"""Decodes the Content-Encoding of response bodies, with limits.

Some servers compress whatever the client asked for. The decoded size is checked after each piece,
so a decompression bomb is refused after its first `max_bytes` and is never in memory as a whole.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

import aiohttp

CHUNK_BYTES = 1 << 16
# Decoded between two turns of the event loop. This takes some hundred microseconds.
PIECE_BYTES = 1 << 16
# A gzip file may be thousands of tiny members in a row, and zlib copies what follows each one.
FEED_BYTES = 1 << 12
# Data that grows by compression grows only a little: by headers, names, checksums.
OVERHEAD_BYTES = 1 << 16
MAX_MEMBERS = 1 << 16  # of one gzip body: even an empty member takes some time
GZIP_BITS = 16 + zlib.MAX_WBITS
DECODED = ("gzip", "x-gzip", "deflate")


class CodingError(ValueError):
    """The body cannot be decoded. The message has no subject: "it" or "its URL" goes before it."""


class TooManyBytesError(ValueError):
    """The body is larger than allowed. The message is like CodingError's."""


class Inflater:
    """Decodes gzip with one member or many, and deflate.

    deflate may have zlib's header or, as some servers send it, none.
    """

    def __init__(self, coding: str) -> None:
        self._is_gzip = coding != "deflate"
        self._zlib: zlib._Decompress | None = None
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the next pieces, each of at most PIECE_BYTES.

        Raises CodingError when the data is damaged or has too many members.
        """
        while data:
            if self._zlib is None or self._zlib.eof:
                if self._members:
                    # Zeros may pad a gzip file. Data after a deflate stream has no meaning.
                    data = data.lstrip(b"\0") if self._is_gzip else b""
                    if not data:
                        return
                self._zlib = self._start(data[0])
            yield self._inflate(self._zlib, data)
            data = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail

    def finish(self) -> Iterator[bytes]:
        """Yield what is left when all data has been fed.

        Raises CodingError when the body ends too early.
        """
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
    """Yield the decoded body, piece by piece. The session must not decode by itself.

    Raises CodingError when the body cannot be decoded, and TooManyBytesError as soon as more than
    `max_bytes` have been decoded. For a compressed body it also raises that when OVERHEAD_BYTES
    more than that have been received.
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
                await asyncio.sleep(0)  # one chunk may become a thousand pieces
    for piece in inflater.finish():
        yield piece


def _coding_of(response: aiohttp.ClientResponse) -> str:
    """Return the one coding that was applied, "" for none.

    Raises CodingError when there are several or it is not known.
    """
    named = ",".join(response.headers.getall("Content-Encoding", ())).lower().split(",")
    codings = [c for c in map(str.strip, named) if c not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in DECODED:
        shown = ", ".join(codings)[:60]
        raise CodingError(f"answers in the content coding '{shown}', which is not supported")
    return codings[0]
