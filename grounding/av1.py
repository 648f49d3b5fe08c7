"""The real size of the pictures in an AVIF file: from the AV1 data, not from the container.

libavif decodes what the data holds, up to 268 megapixels, and only then scales it to the size
that the container states: a file of 1 kB that claimed 64 × 64 took 4 s.

Sources: ISO/IEC 14496-12 for boxes and `iloc`, the AV1 bitstream specification, sections 4.10.5
(leb128), 5.3 (OBUs) and 5.5 (sequence header).
"""

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
_HEADER_BYTES = 64
"""Enough for a sequence header up to the size."""


def coded_pixels(data: bytes) -> int:
    """Pixels of all coded pictures of an AVIF file together.

    data: the file.

    Raises ValueError or IndexError when its structure is broken or no picture is found, and
    ValueError when it has tracks: such a file holds a film.
    """
    top = dict(_boxes(data, 0, len(data)))
    if b"moov" in top:
        raise ValueError("a file with tracks")
    start, end = top.get(b"meta", (0, 0))
    meta = dict(_boxes(data, start + 4, end))  # version and flags come first
    if b"iloc" not in meta:
        raise ValueError("a file without the location of its pictures (iloc)")
    inner = meta.get(b"idat", (0, 0))[0]
    items = _items(_Bytes(data[slice(*meta[b"iloc"])]))
    pixels = sum(_item_pixels(b"".join(_extents(data, inner, item))) for item in items)
    if pixels == 0:
        raise ValueError("a file without a picture")
    return pixels


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Type, and start and end of the content, of each box."""
    while at + 8 <= end:
        size, kind, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if size == 0:
            size = end - at
        if size < head or at + size > end:
            raise ValueError("a box larger than its parent")
        yield kind, (at + head, at + size)
        at += size


class _Bytes:
    """Reads big-endian integers one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> int:
        if self._at + size > len(self._data):
            raise ValueError("a box that ends early")
        self._at += size
        return int.from_bytes(self._data[self._at - size : self._at])


Item = tuple[bool, list[tuple[int, int]]]
"""Whether it is in `idat`, and offset and length of its extents."""


def _items(box: _Bytes) -> Iterator[Item]:
    version, _, sizes = box.take(1), box.take(3), box.take(2)
    offset_size, length_size = sizes >> 12, sizes >> 8 & 15
    base_size, index_size = sizes >> 4 & 15, sizes & 15 if version > 0 else 0
    for _ in range(box.take(4 if version == 2 else 2)):
        box.take(4 if version == 2 else 2)  # the item's number
        method = box.take(2) & 15 if version > 0 else 0
        box.take(2)
        base = box.take(base_size)
        pieces = []
        for _ in range(box.take(2)):
            box.take(index_size)
            pieces.append((base + box.take(offset_size), box.take(length_size)))
        yield method == 1, pieces


def _extents(data: bytes, inner: int, item: Item) -> Iterator[bytes]:
    in_idat, pieces = item
    for offset, length in pieces:
        start = offset + (inner if in_idat else 0)
        yield data[start : start + length] if length else data[start:]


def _item_pixels(data: bytes) -> int:
    """The largest size in an item's sequence headers; 0 if it is not AV1."""
    largest, at = 0, 0
    while at < len(data):
        head = data[at]
        kind, has_extension, has_size = head >> 3 & 15, head >> 2 & 1, head >> 1 & 1
        if head & 0x80:  # obu_forbidden_bit: not AV1
            break
        at += 1 + has_extension
        size, at = _leb128(data, at) if has_size else (len(data) - at, at)
        if kind == _SEQUENCE_HEADER:
            largest = max(largest, _sequence_pixels(_Bits(data[at : at + _HEADER_BYTES])))
        at += size
    return largest


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number that is too long")


class _Bits:
    """Reads integers of a given number of bits, most significant first; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data.ljust(_HEADER_BYTES, b"\0"))
        self._left = _HEADER_BYTES * 8

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a sequence header that ends early")
        return self._value >> self._left & ((1 << count) - 1)


def _sequence_pixels(bits: _Bits) -> int:
    """max_frame_width times max_frame_height (section 5.5.1)."""
    bits.take(4)  # seq_profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _skip_operating_points(bits, _skip_timing(bits))
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _skip_timing(bits: _Bits) -> int:
    """Skip timing_info and decoder_model_info; returns the bits of a buffer delay, 0 without."""
    if not bits.take(1):  # timing_info_present_flag
        return 0
    bits.take(64)
    if bits.take(1):  # equal_picture_interval: num_ticks_per_picture_minus_1, uvlc
        zeros = 0
        while not bits.take(1):
            zeros += 1
        bits.take(zeros)
    if not bits.take(1):  # decoder_model_info_present_flag
        return 0
    delay = bits.take(5) + 1
    bits.take(42)
    return delay


def _skip_operating_points(bits: _Bits, delay: int) -> None:
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:  # seq_level_idx: a tier follows
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
