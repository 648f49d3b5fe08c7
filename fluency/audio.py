"""Decodes every audio format that browsers and phones record to 16 kHz mono samples.

The format is detected from the first bytes, not from the name: a MediaRecorder's WebM often arrives
as .wav. FFmpeg gets that demuxer by name, so that no upload reaches another one (a playlist, for
instance). Length is counted in decoded samples, because a recorded WebM has no duration in its
header.
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
MAX_RATE_HZ: Final = 768_000  # no recorder has more, and the size of FFmpeg's filter grows with it
KINDS: Final = "WAV, MP3, M4A/AAC, WebM/Opus, Ogg, FLAC or AIFF"
# Formats with a duration in the header. The others are streams: valid wherever they end.
_SELF_MEASURING: Final = frozenset({"wav", "flac", "mp4", "aiff"})
_COMPLETE: Final = 0.98  # of the declared duration; encoders pad and trim some frames
# Programs that write a WAV into a pipe give its size as 0, or just below 2 or 4 GiB.
_NO_SIZE_FROM: Final = 0x7FFF_0000
_HEADER_SIZE: Final = 64  # bytes; some programs count the header as samples
# Containers with a time for each packet. Packets of silence may be missing (DTX), and those that a
# busy browser lost: they become silence here, as in players.
_TIMED: Final = frozenset({"matroska", "mp4", "ogg"})
_MIN_GAP_S: Final = 0.1  # smaller gaps are jitter of the browsers' timestamps
_MIXABLE: Final = 8  # FFmpeg has a default layout for up to 8 channels
_LOUDEST: Final = 1e12  # far above unscaled 32-bit integers: damaged data


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
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
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

    Raises InvalidInput when it is empty, not audio, damaged, cut short or longer than 10 minutes.
    """
    if path.stat().st_size == 0:
        raise InvalidInput("Cannot read the recording: 'audio' must not be empty, got 0 bytes")
    kind = _kind(path)
    if kind is None:
        raise InvalidInput(f"Cannot read the recording: 'audio' must be {KINDS}, got another kind")
    is_streamed = kind == "wav" and _is_streamed_wav(path)
    with _readable(kind):
        channels = _decode(path, kind, is_measured=kind in _SELF_MEASURING and not is_streamed)
    return Recording(to_mono(channels), kind)


def _kind(path: Path) -> str | None:
    """`sniff` behind an ID3 tag, if there is one: FLAC, AAC and MP3 files may have it."""
    with path.open("rb") as file:
        head = file.read(16)
        if head[:3] == b"ID3" and len(head) > 9:
            length = sum(
                byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
            )
            file.seek(10 + length)
            found = sniff(file.read(16))
            return found if found in ("flac", "aac") else "mp3"
    return sniff(head)


@contextmanager
def _readable(kind: str) -> Iterator[None]:
    """Turn FFmpeg's errors into InvalidInput."""
    try:
        yield
    except (FFmpegError, ValueError, EOFError) as problem:
        if isinstance(problem, InvalidInput):
            raise
        raise InvalidInput(
            f"Cannot read the recording: 'audio' must be a complete {kind.upper()} file, "
            "got one that is damaged or cut short"
        ) from problem


def _decode(path: Path, kind: str, *, is_measured: bool) -> NDArray[np.float32]:
    """(1, n) or (2, n) float32 at 16 kHz; more channels are mixed.

    is_measured: the header has the duration.
    """
    parts: list[NDArray[np.float32]] = []
    count = 0
    with av.open(str(path), format=kind, metadata_errors="ignore") as container:
        if not container.streams.audio:
            raise InvalidInput("Cannot read the recording: 'audio' must hold sound, got none")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise InvalidInput(
                "Cannot read the recording: 'audio' must have a known codec, got an unknown one"
            )
        declared_s = _declared_duration_s(container, stream) if is_measured else None
        if declared_s is not None and declared_s > MAX_DURATION_S + 1:
            raise too_long(declared_s)
        channels = stream.codec_context.channels
        # Mono stays mono: FFmpeg would lower it by 3 dB. Others become stereo: they could cancel.
        layout = "stereo" if 1 < channels <= _MIXABLE else "mono"
        for piece in _resampled(_frames(container, stream), layout, kind):
            parts.append(piece)
            count += piece.shape[1]
            if count > MAX_DURATION_S * SAMPLE_RATE_HZ:
                raise too_long(None)
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    if declared_s is not None and count / SAMPLE_RATE_HZ < declared_s * _COMPLETE - 0.1:
        raise ValueError("shorter than declared")
    samples[~(np.abs(samples) <= _LOUDEST)] = 0.0  # NaN and infinity too
    return samples


def _resampled(frames: Iterator[Any], layout: str, kind: str) -> Iterator[NDArray[np.float32]]:
    """Frames at 16 kHz, in pieces of (channels, n); missing time becomes zeros.

    Rate and channels may change within a file: in AAC, and where files were concatenated.
    """
    resampler: Any = None
    form, end_s = None, None
    for frame in frames:
        if frame is None:  # a damaged packet is no silence
            end_s = None
            continue
        if frame.format.is_packed and frame.layout.nb_channels > _MIXABLE:
            frame = _mixed(frame)  # noqa: PLW2901
        start_s = frame.time if kind in _TIMED else None
        gap_s = 0.0 if start_s is None or end_s is None else start_s - end_s
        new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if new_form != form or gap_s > _MIN_GAP_S:
            if resampler is not None:
                yield from _arrays(resampler.resample(None))
            if gap_s > _MIN_GAP_S:
                count = round(min(gap_s, MAX_DURATION_S + 1) * SAMPLE_RATE_HZ)
                yield np.zeros((1 if layout == "mono" else 2, count), np.float32)
            if frame.sample_rate > MAX_RATE_HZ:
                raise InvalidInput(
                    f"Cannot read the recording: 'audio' must have a rate of at most {MAX_RATE_HZ} "
                    f"samples/s, got {frame.sample_rate}"
                )
            resampler, form = av.AudioResampler("fltp", layout, SAMPLE_RATE_HZ), new_form
        yield from _arrays(resampler.resample(frame))
        end_s = None if start_s is None else start_s + frame.samples / frame.sample_rate
    if resampler is not None:
        yield from _arrays(resampler.resample(None))


def _arrays(pieces: list[Any]) -> Iterator[NDArray[np.float32]]:
    for piece in pieces:
        yield piece.to_ndarray()


def _mixed(frame: Any) -> Any:
    """The mean of a frame's channels: FFmpeg has no layout for so many."""
    values = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mean = values.mean(axis=1, dtype=np.float64)
    if np.issubdtype(values.dtype, np.integer):
        mean = np.rint(mean)
    made = av.AudioFrame.from_ndarray(
        mean.astype(values.dtype)[None], format=frame.format.name, layout="mono"
    )
    made.sample_rate, made.time_base, made.pts = frame.sample_rate, frame.time_base, frame.pts
    return made


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames, and None for each damaged packet: the others are still decoded."""
    bad, good = 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            bad += 1
            yield None
            continue
        good += len(frames)
        yield from frames
    if bad > good:
        raise ValueError("more damaged packets than sound")


def _declared_duration_s(container: Any, stream: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else float(container.duration / av.time_base)


def too_long(duration_s: float | None) -> InvalidInput:
    """The error for a recording of this length (None: it was not read to its end)."""
    got = "a longer one" if duration_s is None else f"{duration_s / 60:.1f} minutes"
    minutes = MAX_DURATION_S // 60
    return InvalidInput(
        f"Cannot read the recording: 'audio' must last at most {minutes} minutes, got {got}"
    )


def _is_streamed_wav(path: Path) -> bool:
    """Whether a WAV was written before its length was known.

    Compares the size of the data chunk with the file, which FFmpeg does not.

    Raises InvalidInput when it has no format chunk or fewer samples than declared. A header without
    samples is valid.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)[:4]
        seen_format = False
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                missing = file.tell() + length - size
                if seen_format and (length == 0 or length >= _NO_SIZE_FROM):
                    return magic != b"RF64"  # its length is in another chunk
                if seen_format and missing <= max(_HEADER_SIZE, length * (1 - _COMPLETE)):
                    return False
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
    # A microphone on one channel, or inverted wiring: the mean has lost clearly more than the
    # 6 dB that averaging with a silent channel costs.
    if float(np.mean(mean**2, dtype=np.float64)) < 0.2 * max(left, right):
        mean = channels[0] if left >= right else channels[1]
    return np.ascontiguousarray(mean, np.float32)
