"""From a file of any kind that browsers and phones record to 16 kHz mono samples.

The kind is read off the first bytes, never off the name: a MediaRecorder's
WebM arrives as .wav. The demuxer is then fixed, so that no playlist or other
format that FFmpeg knows can be smuggled in. Length is counted in decoded
samples, because a recorded WebM has no duration in its header.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.error import FFmpegError
from errors import InvalidInput
from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 16_000
MAX_DURATION_S: Final = 600
KINDS: Final = "WAV, MP3, M4A/AAC, WebM/Opus, Ogg, FLAC or AIFF"
# Formats whose header says how long they are. The others are streams: valid wherever they end.
_SELF_MEASURING: Final = frozenset({"wav", "flac", "mp4", "aiff"})
_COMPLETE: Final = 0.98  # of the declared duration; encoders pad and trim some frames
_UNKNOWN_SIZES: Final = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFF - 36, 0xFFFFFFFF - 36})


@dataclass(frozen=True)
class Recording:
    """samples: (n,) float32 at 16 kHz, nominally in [-1, 1]. kind: FFmpeg's demuxer name."""

    samples: NDArray[np.float32]
    kind: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def sniff(head: bytes) -> str | None:
    """FFmpeg's demuxer for a file that begins with these bytes (16 are enough), or None."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] == b"ftyp":
        return "mp4"
    for magic, kind in (
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"OggS", "ogg"),
        (b"fLaC", "flac"),
        (b"ID3", "mp3"),
    ):
        if head.startswith(magic):
            return kind
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # MPEG frame sync
        return "aac" if head[1] & 0x06 == 0 else "mp3"  # layer bits 00: ADTS
    return None


def read(path: Path) -> Recording:
    """Decode a recording to mono.

    Raises:
        InvalidInput: empty, not audio, damaged, cut short, or longer than 10 minutes.
    """
    if path.stat().st_size == 0:
        raise InvalidInput("Cannot read the recording: 'audio' must not be empty, got 0 bytes")
    with path.open("rb") as file:
        kind = sniff(file.read(16))
    if kind is None:
        raise InvalidInput(f"Cannot read the recording: 'audio' must be {KINDS}, got another kind")
    if kind == "wav":
        _refuse_cut_wav(path)
    with _readable(kind):
        channels = _decode(path, kind)
    return Recording(to_mono(channels), kind)


@contextmanager
def _readable(kind: str) -> Iterator[None]:
    """Turn FFmpeg's complaints into the person's."""
    try:
        yield
    except (FFmpegError, ValueError, EOFError) as problem:
        if isinstance(problem, InvalidInput):
            raise
        raise InvalidInput(
            f"Cannot read the recording: 'audio' must be a complete {kind.upper()} file, "
            "got one that is damaged or cut short"
        ) from problem


def _decode(path: Path, kind: str) -> NDArray[np.float32]:
    """(1, n) or (2, n) float32 at 16 kHz; more channels are mixed to two."""
    limit = MAX_DURATION_S * SAMPLE_RATE_HZ
    parts: list[NDArray[np.float32]] = []
    count = 0
    with av.open(str(path), format=kind, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise InvalidInput("Cannot read the recording: 'audio' must hold sound, got none")
        stream = container.streams.audio[0]
        declared_s = _declared_duration_s(container, stream, kind)
        if declared_s is not None and declared_s > MAX_DURATION_S + 1:
            raise too_long(declared_s)
        # Not mono to stereo: FFmpeg would take 3 dB off. Not to mono: channels could cancel.
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        resampler = av.AudioResampler("fltp", layout, SAMPLE_RATE_HZ)
        for frame in _frames(container, stream):
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray())
                count += parts[-1].shape[1]
            if count > limit:
                raise too_long(None)
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    if declared_s is not None and count / SAMPLE_RATE_HZ < declared_s * _COMPLETE - 0.1:
        raise ValueError("shorter than declared")
    return np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames, then None to flush the resampler. One bad packet is skipped, not all."""
    bad, good = 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            bad += 1
            continue
        for frame in frames:
            good += 1
            yield frame
    if bad > good:
        raise ValueError("more damaged packets than sound")
    if good:
        yield None


def _declared_duration_s(container: Any, stream: Any, kind: str) -> float | None:
    if kind not in _SELF_MEASURING:
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(container.duration / av.time_base)


def too_long(duration_s: float | None) -> InvalidInput:
    """The complaint about a recording of this length (None: it was not read to its end)."""
    got = "a longer one" if duration_s is None else f"{duration_s / 60:.1f} minutes"
    minutes = MAX_DURATION_S // 60
    return InvalidInput(
        f"Cannot read the recording: 'audio' must last at most {minutes} minutes, got {got}"
    )


def _refuse_cut_wav(path: Path) -> None:
    """Compare the size of the data chunk with what is there. FFmpeg itself does not mind.

    Raises:
        InvalidInput: no format, or fewer samples than declared. A header without samples is fine.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)[:4]
        order = "big" if magic == b"RIFX" else "little"
        seen_format = False
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], order)  # type: ignore[arg-type]
            if head[:4] == b"data":
                missing = file.tell() + length - size
                streamed = length in _UNKNOWN_SIZES or magic == b"RF64"
                if seen_format and (streamed or missing <= 0):
                    return
                break
            seen_format |= head[:4] == b"fmt "
            file.seek(length + length % 2, 1)
    raise InvalidInput(
        "Cannot read the recording: 'audio' must be a complete WAV file, got one that is cut short"
    )


def to_mono(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of two channels, or the louder one where they would cancel. (1 or 2, n) to (n,)."""
    if len(channels) == 1 or channels.shape[1] == 0:
        return np.ascontiguousarray(channels[0], np.float32)
    left, right = (float(np.mean(channel**2, dtype=np.float64)) for channel in channels)
    mean = channels.mean(axis=0)
    # A microphone on one channel, or inverted wiring: the mean has lost more than half
    # of the louder channel's power beyond what averaging with silence costs (6 dB).
    if float(np.mean(mean**2, dtype=np.float64)) < 0.2 * max(left, right):
        mean = channels[0] if left >= right else channels[1]
    return np.ascontiguousarray(mean, np.float32)
