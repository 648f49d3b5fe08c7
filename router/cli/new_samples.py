"""A small picture and a small sound, so that a new package has something to run on."""

from __future__ import annotations

import array
import io
import math
import struct
import sys
import wave
import zlib

WIDTH_PX, HEIGHT_PX = 96, 64
RATE_HZ, TONE_HZ, LENGTH_S = 16_000, 440, 0.5
QUIET = 0.05  # of full scale, so that the example has something to make louder


def picture_png() -> bytes:
    """A picture whose colours change from left to right and from top to bottom."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(WIDTH_PX) for v in (x * 255 // WIDTH_PX, y * 3, 128))
        for y in range(HEIGHT_PX)
    )
    header = struct.pack(">IIBBBBB", WIDTH_PX, HEIGHT_PX, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tone_wav() -> bytes:
    """A quiet tone: mono, 16 bits."""
    count = int(RATE_HZ * LENGTH_S)
    wave_of = (math.sin(2 * math.pi * TONE_HZ * n / RATE_HZ) for n in range(count))
    samples = array.array("h", (round(32767 * QUIET * value) for value in wave_of))
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        written.writeframes(samples.tobytes())
    return file.getvalue()
