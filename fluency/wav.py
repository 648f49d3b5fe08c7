"""Finds the sound in a WAV whose header is odd, and gives FFmpeg a plain header for it.

Recorders write headers that FFmpeg refuses or believes too much: sizes of 0 or 100 MB, a fact chunk
of the wrong length, 24 valid bits in 32, a chunk of odd length without its pad byte, a second WAV
behind the first one. The samples themselves are sound.

Source: Microsoft, "Multiple Channel Audio Data and WAVE Files" (valid bits are the upper ones of
their container); EBU Tech 3306 (RF64) and ITU-R BS.2088 (BW64): the same chunks, 64-bit sizes.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

MAGICS: Final = (b"RIFF", b"RF64", b"BW64")
_PCM, _EXTENSIBLE = 1, 0xFFFE
# Programs that write into a pipe give a size of 0, or just below 2 or 4 GiB.
_NO_SIZE_FROM: Final = 0x7FFF_0000
_LARGEST: Final = 0xFFFF_FFFF
_FAR_TOO_MUCH: Final = 4
_FORMAT: Final = 16  # bytes of the shortest format chunk
_MOST_BITS: Final = 64  # of a container; a damaged header has up to 524,280
_HEADER: Final = 64  # bytes; some programs count the header as samples


@dataclass(frozen=True)
class Part:
    """One WAV of a file: its format chunk, and where its samples are.

    declared: bytes that the header says there are; None if it does not know.
    """

    format: bytes
    start: int
    length: int
    declared: int | None


def parts(path: Path, start: int = 0) -> list[Part]:
    """Every WAV in a file, one behind another; none if there is no format chunk before samples."""
    size = path.stat().st_size
    found: list[Part] = []
    with path.open("rb") as file:
        while is_wav(_at(file, start, 12)):
            part = _part(file, start, size)
            if part is None:
                break
            found.append(part)
            start = _next_wav(file, part.start + part.length, size)
    return found


def is_wav(head: bytes) -> bool:
    """Whether a WAV begins with these twelve bytes."""
    return head[:4] in MAGICS and head[8:12] == b"WAVE"


def header(part: Part) -> bytes:
    """A plain WAV header for a part: its format with the container's bits, then its samples."""
    body = b"WAVEfmt " + struct.pack("<I", len(part.format)) + _whole_bits(part.format)
    if len(part.format) % 2:
        body += b"\0"
    body += b"data" + struct.pack("<I", min(part.length, _LARGEST))
    return b"RIFF" + struct.pack("<I", min(len(body) + part.length, _LARGEST)) + body


def _whole_bits(form: bytes) -> bytes:
    """The format chunk with as many bits to a sample as its container has."""
    code, channels, _, _, block, bits = struct.unpack("<HHIIHH", form[:16])
    is_pcm = code == _PCM or (code == _EXTENSIBLE and form[24:26] == struct.pack("<H", _PCM))
    whole_bits = block // channels * 8 if channels else 0
    if (
        not is_pcm
        or not channels
        or not bits
        or block % channels
        or bits == whole_bits
        or whole_bits > _MOST_BITS
    ):
        return form if code != _EXTENSIBLE or not is_pcm else form[:18] + form[14:16] + form[20:]
    whole = struct.pack("<H", whole_bits)
    changed = form[:14] + whole + form[16:]
    return changed[:18] + whole + changed[20:] if code == _EXTENSIBLE else changed


def _next_wav(file: BinaryIO, at: int, size: int) -> int:
    """Where the next WAV begins behind the chunks that follow the samples, or the file's size."""
    while at < size:
        at = _after(file, at)
        head = _at(file, at, 12)
        if len(head) < 12 or is_wav(head) or not _is_name(head[:4]):
            break
        at += 8 + int.from_bytes(head[4:8], "little")
    return at


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _part(file: BinaryIO, start: int, size: int) -> Part | None:
    """The WAV that begins at `start`, or None if it has no samples after a format chunk."""
    at, form, large = start + 12, b"", 0
    while len(head := _at(file, at, 8)) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"ds64":
            large = int.from_bytes(_at(file, at + 16, 8), "little")
        elif name == b"fmt " and length >= _FORMAT and not form:
            form = _at(file, at + 8, min(length, 1024))
        elif name == b"data" and form:
            if length == _LARGEST and large:
                length = large
            return _samples(file, (start, at + 8), length, form, size)
        at = _after(file, at + 8 + length)
    return None


def _samples(
    file: BinaryIO, starts: tuple[int, int], declared: int, form: bytes, size: int
) -> Part:
    """The samples: as many as declared, or all to the end where that is wrong.

    starts: of the WAV and of its samples.
    """
    start = starts[1]
    rest = size - start
    slack = max(_HEADER, declared // 50)
    if declared == 0 or declared >= _NO_SIZE_FROM:
        return Part(form, start, rest, None)
    if declared > rest + slack:
        riff = int.from_bytes(_at(file, starts[0] + 4, 4), "little")
        # Some programs write any large number, and correct only the size in front.
        is_placeholder = starts[0] + 8 + riff == size and declared > _FAR_TOO_MUCH * rest
        return Part(form, start, rest, None if is_placeholder else declared)
    if rest - declared > slack and not _continues(file, start + declared, size):
        return Part(form, start, rest, None)  # appended to, with the header of the first part
    return Part(form, start, min(declared, rest), declared)


def _continues(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a chunk, a tag or another WAV begins at `at`, or one byte on."""
    for offset in (at, at + 1):
        head = _at(file, offset, 12)
        length = int.from_bytes(head[4:8], "little")
        if is_wav(head) or head[:3] in (b"ID3", b"TAG"):
            return True
        if _is_name(head[:4]) and offset + 8 + length <= size + 1:
            return True
    return False


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name) and name.strip() != b""


def _after(file: BinaryIO, end: int) -> int:
    """Where the next chunk begins: behind a pad byte, which some programs leave out."""
    if end % 2 == 0 or _is_name(_at(file, end, 4)):
        return end
    return end + 1
