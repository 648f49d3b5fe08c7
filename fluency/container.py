"""Finds out what a file is, from its content, and where in it each recording begins.

Several recordings may stand one behind another (two WAVs or two MP4s joined by hand), tags in
front, and an MP3 may begin in the middle of a frame.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import wav
from errors import InvalidInput

# Formats with a duration in the header. The others are streams: valid wherever they end.
_SELF_MEASURING: Final = frozenset({"flac", "mp4", "aiff", "caf"})
_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_INDEX: Final = 1 << 20  # bytes at the end in which a MOV of ten minutes has its index
_QUICKTIME: Final = b"\0\0\0\x14ftypqt  \0\0\2\0qt  "
_SEARCHED: Final = 8192  # bytes in which an MP3 or AAC that was cut must begin: some frames


_MOST_PARTS: Final = 1000  # one each second from a browser; opening a part takes a millisecond


@dataclass(frozen=True)
class Part:
    """One recording in a file: bytes that FFmpeg gets in front, and a range of the file."""

    head: bytes
    start: int
    end: int
    is_measured: bool

    @contextmanager
    def open(self, path: Path) -> Iterator["Range"]:
        """A readable file of this part alone."""
        with path.open("rb") as file:
            yield Range(file, self)


@dataclass(frozen=True)
class Found:
    """kind: FFmpeg's demuxer; parts: at least one."""

    kind: str
    parts: list[Part]


class Range(io.RawIOBase):
    """A part of a file, with other bytes in front."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        super().__init__()
        self._file, self._part, self._at = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; fewer only at the end."""
        head, part = self._part.head, self._part
        total = len(head) + part.end - part.start
        count = max(0, total - self._at if size < 0 else min(size, total - self._at))
        made = head[self._at : self._at + count]
        if len(made) < count:
            self._file.seek(part.start + self._at + len(made) - len(head))
            made += self._file.read(count - len(made))
        self._at += len(made)
        return made

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        total = len(self._part.head) + self._part.end - self._part.start
        self._at = max(0, offset + {0: 0, 1: self._at, 2: total}[whence])
        return self._at

    def tell(self) -> int:
        """As of a file."""
        return self._at


def sniff(head: bytes) -> str | None:
    """FFmpeg's demuxer for a file that begins with these bytes (16 are enough), or None."""
    if wav.is_wav(head):
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in _BOXES:
        return "mp4"
    for magic, kind in (
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"OggS", "ogg"),
        (b"fLaC", "flac"),
        (b"caff", "caf"),
        (b"#!AMR", "amr"),
        (b"ID3", "mp3"),
    ):
        if head.startswith(magic):
            return kind
    return _frame_kind(head)


def _frame_kind(head: bytes) -> str | None:
    """MP3 or AAC, if a frame of theirs begins here."""
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # MPEG frame sync
        return "aac" if head[1] & 0x06 == 0 else "mp3"  # layer bits 00: ADTS
    return None


def find(path: Path) -> Found | None:
    """What the file is, and its parts; None if it is no recording.

    Raises InvalidInput when a WAV is cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = _behind_tags(file)
        file.seek(start)
        head = file.read(_SEARCHED)
        kind = sniff(head)
        if kind is None and (cut := _first_frame(head)) is not None:
            start += cut
            kind = _frame_kind(head[cut:])
        if kind is None and start:
            kind, start = "mp3", 0
        if kind is None:
            return None
        if kind == "wav":
            return Found(kind, _wav_parts(path, start))
        starts = _starts(file, kind, start, size)
        front = _lost_front(file, head, size) if kind == "mp4" else b""
    is_measured = kind in _SELF_MEASURING
    if len(starts) > _MOST_PARTS:
        raise _too_many(len(starts))
    ends = [*starts[1:], size]
    return Found(kind, [Part(front, a, b, is_measured) for a, b in zip(starts, ends, strict=True)])


def _behind_tags(file: BinaryIO) -> int:
    """Where the recording begins behind ID3 tags, of which there may be several."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        sizes = zip(head[6:10], (21, 14, 7, 0), strict=True)
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)


def _wav_parts(path: Path, start: int) -> list[Part]:
    found = wav.parts(path, start)
    if not found or any(
        one.declared is not None and one.declared > one.length + max(64, one.declared // 50)
        for one in found
    ):
        raise InvalidInput(
            "Cannot read the recording: 'audio' must be a complete WAV file, "
            "got one that is cut short"
        )
    if len(found) > _MOST_PARTS:
        raise _too_many(len(found))
    return [
        Part(wav.header(one), one.start, one.start + one.length, one.declared is not None)
        for one in found
    ]


def _too_many(count: int) -> InvalidInput:
    return InvalidInput(
        f"Cannot read the recording: 'audio' must be joined of at most {_MOST_PARTS} files, "
        f"got {count}"
    )


def _starts(file: BinaryIO, kind: str, start: int, size: int) -> list[int]:
    """Where each of several joined recordings begins."""
    starts = [start]
    if kind == "mp4":
        at = start
        while at + 8 <= size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if head[4:8] == b"ftyp" and at > start:
                starts.append(at)
            if length < 8:
                break
            at += length
    elif kind == "aiff":
        at = start
        while at + 12 <= size:
            file.seek(at)
            head = file.read(12)
            if head[:4] != b"FORM" or head[8:12] not in (b"AIFF", b"AIFC"):
                break
            if at > start:
                starts.append(at)
            length = int.from_bytes(head[4:8], "big")
            at += 8 + length + length % 2
    return starts


def _lost_front(file: BinaryIO, head: bytes, size: int) -> bytes:
    """The box that a program cut off the front of a MOV; its samples moved up by its length.

    An old MOV has none either, but its chunks lie where it says.
    """
    if head[4:8] == b"ftyp":
        return b""
    samples = head.find(b"mdat") + 4
    file.seek(max(0, size - _INDEX))
    index = file.read(_INDEX)
    at = index.find(b"stco")
    if samples < 4 or at < 0:
        return b""
    first = int.from_bytes(index[at + 12 : at + 16], "big")
    return _QUICKTIME if first == samples + len(_QUICKTIME) else b""


def _first_frame(head: bytes) -> int | None:
    """Where the first of two MP3 frames in a row begins, in a file that begins inside one."""
    for at in range(len(head) - 4):
        length = _mp3_length(head[at : at + 4])
        if length and _mp3_length(head[at + length : at + length + 4]):
            return at
    return None


def _mp3_length(head: bytes) -> int:
    """Bytes of the layer III frame with this header, 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0
    version, rate_at, bits_at = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or rate_at == 3 or bits_at in (0, 15):
        return 0
    is_first = version == 3
    kilobits = (_MPEG1 if is_first else _MPEG2)[bits_at - 1]
    rate = (44_100, 48_000, 32_000)[rate_at] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if is_first else 72) * kilobits * 1000 // rate + (head[2] >> 1 & 1)


_MPEG1: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2: Final = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
