"""Decoding in pieces, whatever the pieces that it comes in."""

from __future__ import annotations

import gzip
import itertools
import random
import resource
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.outbound.content_coding import MAX_MEMBERS, PIECE_BYTES, CodingError, Inflater


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


@given(contents=st.lists(CONTENTS, min_size=1, max_size=4), cuts=CUTS, zeros=st.integers(0, 9))
def test_gzip(contents: list[bytes], cuts: list[int], zeros: int) -> None:
    """Of one member or many, padded with zeros or not."""
    body = b"".join(gzip.compress(c) for c in contents) + bytes(zeros)
    assert inflate("gzip", body, cuts) == b"".join(contents)


@given(content=CONTENTS, cuts=CUTS, bare=st.booleans(), more=st.binary(max_size=5))
def test_deflate(content: bytes, cuts: list[int], bare: bool, more: bytes) -> None:
    """With zlib's head or without; what follows its end is nothing."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
    body = packer.compress(content) + packer.flush() + more
    assert inflate("deflate", body, cuts) == content


@given(content=CONTENTS, cuts=CUTS, missing=st.integers(1, 8))
def test_what_ends_too_early(content: bytes, cuts: list[int], missing: int) -> None:
    """Its checksum has not come: it is not known to be whole."""
    with pytest.raises(CodingError, match="early"):
        inflate("gzip", gzip.compress(content)[:-missing], cuts)


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
