"""Decoding in pieces, whatever the pieces that it comes in."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import random
import resource
import zlib
from collections.abc import AsyncIterator
from typing import cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from router.outbound.content_coding import (
    MAX_MEMBERS,
    OVERHEAD_BYTES,
    PIECE_BYTES,
    CodingError,
    Inflater,
    TooManyBytesError,
    decoded,
)


def inflate(coding: str, body: bytes, cuts: list[int]) -> bytes:
    """All that comes out of it, fed in these pieces."""
    inflater = Inflater(coding)
    out = []
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        out += list(inflater.feed(body[start:end]))
    out += list(inflater.finish())
    assert all(len(piece) <= PIECE_BYTES for piece in out)
    return b"".join(out)


CONTENTS = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda n, b: bytes([b]) * n, st.integers(0, 300_000), st.integers(0, 255)),
    st.integers(0, 100).map(lambda seed: random.Random(seed).randbytes(70_000)),
)
CUTS = st.lists(st.integers(0, 1 << 20), max_size=8)


@pytest.mark.slow
@settings(deadline=None)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=4), cuts=CUTS, zeros=st.integers(0, 9))
def test_gzip(contents: list[bytes], cuts: list[int], zeros: int) -> None:
    """Of one member or many, padded with zeros or not."""
    body = b"".join(gzip.compress(c) for c in contents) + bytes(zeros)
    assert inflate("gzip", body, cuts) == b"".join(contents)


@settings(deadline=None)
@given(content=CONTENTS, cuts=CUTS, bare=st.booleans(), more=st.binary(max_size=5))
def test_deflate(content: bytes, cuts: list[int], bare: bool, more: bytes) -> None:
    """With zlib's head or without; what follows its end is nothing."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
    body = packer.compress(content) + packer.flush() + more
    assert inflate("deflate", body, cuts) == content


@settings(deadline=None)
@given(content=CONTENTS, cuts=CUTS, missing=st.integers(1, 8))
def test_what_ends_too_early(content: bytes, cuts: list[int], missing: int) -> None:
    """Its checksum has not come: it is not known to be whole."""
    with pytest.raises(CodingError, match="early"):
        inflate("gzip", gzip.compress(content)[:-missing], cuts)


def test_the_last_bytes_of_a_bare_stream() -> None:
    """All input is consumed while some output is still to come."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = bytes(PIECE_BYTES + 4)
    body = packer.compress(content) + packer.flush()
    assert b"".join(Inflater("deflate").feed(body)) == content[:PIECE_BYTES]
    assert inflate("deflate", body, []) == content


def test_only_zeros_may_follow() -> None:
    """Anything else after the last member is damage."""
    with pytest.raises(CodingError) as refusal:
        inflate("gzip", gzip.compress(b"x") + b"XX", [])
    assert str(refusal.value) == "answers with a compressed body that is damaged"
    with pytest.raises(CodingError) as refusal:
        inflate("gzip", gzip.compress(b"x")[:-1], [])
    assert str(refusal.value) == "answers with a compressed body that ends too early"


def test_a_bomb_comes_out_in_pieces() -> None:
    """Each is decoded when it is asked for: who has had enough stops."""
    pieces = Inflater("gzip").feed(gzip.compress(bytes(64 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [len(next(pieces)) for _ in range(16)] == [PIECE_BYTES] * 16
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10  # KiB


def test_a_gzip_body_of_too_many_members() -> None:
    """Each costs something, though nothing comes out."""
    inflater = Inflater("gzip")
    member = gzip.compress(b"")
    for _ in range(MAX_MEMBERS):
        assert b"".join(inflater.feed(member)) == b""
    with pytest.raises(CodingError, match="members"):
        list(inflater.feed(member))


# ---- a response --------------------------------------------------------------------------


class Answer:
    """As much of a response as is read: `pieces` arrive one after the other."""

    def __init__(
        self, *pieces: bytes, coding: str | list[str] = "", length: int | None = None
    ) -> None:
        codings = [coding] if isinstance(coding, str) else coding
        self.headers = CIMultiDict([("content-encoding", c) for c in codings])
        self.content_length = length
        self.content = self
        self.total_bytes = 0
        self._pieces = pieces

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """They are smaller than that."""
        for piece in self._pieces:
            assert len(piece) <= n
            self.total_bytes += len(piece)
            yield piece


def whole(answer: Answer, max_bytes: int) -> AsyncIterator[bytes]:
    """All that comes out of it."""
    return decoded(cast(aiohttp.ClientResponse, answer), max_bytes)


@pytest.mark.parametrize(
    ("coding", "length"),
    [("", 101), ("identity", 101), ("gzip", 101 + OVERHEAD_BYTES)],
)
async def test_one_that_says_it_is_too_large(coding: str, length: int) -> None:
    """Is not read at all. What was compressed may have grown a little by that."""
    answer = Answer(b"x", coding=coding, length=length)
    with pytest.raises(TooManyBytesError, match="over 100 bytes"):
        [piece async for piece in whole(answer, 100)]
    assert answer.total_bytes == 0


NOISE = random.Random(7).randbytes(1000)  # grows when it is compressed
NOTHING = gzip.compress(b"")


@pytest.mark.parametrize(
    ("coding", "length", "pieces", "content"),
    [
        ("", None, [], b""),
        ("", 0, [], b""),
        ("", 4, [b"ab", b"cd"], b"abcd"),
        ("gzip", 1000 + OVERHEAD_BYTES, [gzip.compress(NOISE)], NOISE),
        ("x-gzip", None, [NOTHING, bytes(OVERHEAD_BYTES - len(NOTHING))], b""),
        (["Identity", "", " DEFLATE "], None, [zlib.compress(b"abcd")], b"abcd"),
    ],
)
async def test_as_many_bytes_as_are_allowed(
    coding: str | list[str], length: int | None, pieces: list[bytes], content: bytes
) -> None:
    """Are read; with one byte less they are too many."""
    answer = Answer(*pieces, coding=coding, length=length)
    assert b"".join([piece async for piece in whole(answer, len(content))]) == content
    if content:
        with pytest.raises(TooManyBytesError):
            [p async for p in whole(Answer(*pieces, coding=coding), len(content) - 1)]


async def test_what_comes_in_is_counted() -> None:
    """Though next to nothing comes out: one byte more than may come in is too much."""
    coming = [gzip.compress(b"x"), *[NOTHING] * ((OVERHEAD_BYTES + 1) // len(NOTHING))]
    answer = Answer(*coming, b"\0" * OVERHEAD_BYTES, gzip.compress(b"y"), coding="gzip")
    with pytest.raises(TooManyBytesError, match="over 2 bytes"):
        [piece async for piece in whole(answer, 2)]


async def test_others_run_while_a_body_is_decoded() -> None:
    """Between any two pieces, of which one chunk may become a thousand."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    seen = []
    bomb = Answer(gzip.compress(bytes(64 * PIECE_BYTES)), coding="gzip")
    async for piece in whole(bomb, 64 * PIECE_BYTES):
        assert len(piece) <= PIECE_BYTES
        seen.append(turns)
    counting.cancel()
    assert len(seen) >= 64
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    ("coding", "shown"),
    [
        ("br", "'br'"),
        (["gzip", "DEFLATE"], "'gzip, deflate'"),
        ("x" * 100, f"'{'x' * 60}'"),
    ],
)
async def test_a_coding_that_is_not_known(coding: str | list[str], shown: str) -> None:
    """Is named, as far as a name may go, before anything is read."""
    answer = Answer(b"x", coding=coding)
    with pytest.raises(CodingError) as refusal:
        [piece async for piece in whole(answer, 100)]
    assert str(refusal.value) == (f"answers in the content coding {shown}, which is not supported")
    assert answer.total_bytes == 0
