"""Decodes every audio format that browsers and phones record to 16 kHz mono samples.

The format is detected from the first bytes, not from the name: a MediaRecorder's WebM often arrives
as .wav. FFmpeg gets that demuxer by name, so that no upload reaches another one (a playlist, for
instance). Length is counted in decoded samples, because a recorded WebM has no duration in its
header.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any, Final

import av
import container
import numpy as np
from av.error import FFmpegError
from errors import InvalidInput
from numpy.typing import NDArray
from stamps import gaps

SAMPLE_RATE_HZ: Final = 16_000
MAX_DURATION_S: Final = 600
MAX_RATE_HZ: Final = 768_000  # no recorder has more, and the size of FFmpeg's filter grows with it
KINDS: Final = "WAV, MP3, M4A/AAC, WebM/Opus, Ogg, FLAC, AIFF, AMR or CAF"
_COMPLETE: Final = 0.98  # of the declared duration; encoders pad and trim some frames
# Containers with a time for each packet. Packets of silence may be missing (DTX), and those that a
# busy browser lost: they become silence here, as in players.
_TIMED: Final = frozenset({"matroska", "mp4", "ogg"})
_MIXABLE: Final = 8  # FFmpeg has a default layout for up to 8 channels
_PADDING: Final = 8000  # samples, 0.5 s: encoders fill up their last frame
_LOUDEST: Final = 1e12  # far above unscaled 32-bit integers: damaged data


@dataclass(frozen=True)
class Recording:
    """samples: (n,) float32 at 16 kHz, nominally in [-1, 1]. kind: FFmpeg's demuxer name."""

    samples: NDArray[np.float32]
    kind: str

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def read(path: Path) -> Recording:
    """Decode a recording to mono: all parts of one that was joined.

    Raises InvalidInput when it is empty, not audio, damaged, cut short or longer than 10 minutes.
    """
    if path.stat().st_size == 0:
        raise InvalidInput("Cannot read the recording: 'audio' must not be empty, got 0 bytes")
    found = container.find(path)
    if found is None:
        raise InvalidInput(f"Cannot read the recording: 'audio' must be {KINDS}, got another kind")
    heard: list[NDArray[np.float32]] = []
    with _readable(found.kind):
        for part in found.parts:
            room = MAX_DURATION_S * SAMPLE_RATE_HZ - sum(map(len, heard))
            with part.open(path) as file:
                heard.append(to_mono(_decode(file, found.kind, room, is_measured=part.is_measured)))
    return Recording(np.concatenate(heard), found.kind)


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


def _decode(
    file: container.Range, kind: str, room: int, *, is_measured: bool
) -> NDArray[np.float32]:
    """The first track that can be decoded: (1, n) or (2, n) float32 at 16 kHz.

    room: samples that it may have at most; is_measured: the header has the duration.
    """
    track, tracks = 0, 1
    while True:
        file.seek(0)
        with av.open(file, format=kind, metadata_errors="ignore") as media:
            if not media.streams.audio:
                raise InvalidInput("Cannot read the recording: 'audio' must hold sound, got none")
            tracks = len(media.streams.audio)
            try:
                return _track(media, media.streams.audio[track], kind, room, is_measured)
            except (FFmpegError, ValueError):
                track += 1
                if track >= tracks:
                    raise


def _track(
    media: Any,
    stream: Any,
    kind: str,
    room: int,
    is_measured: bool,
) -> NDArray[np.float32]:
    """One track; more than two channels are mixed."""
    parts: list[NDArray[np.float32]] = []
    count = 0
    if stream.codec_context is None:
        raise InvalidInput(
            "Cannot read the recording: 'audio' must have a known codec, got an unknown one"
        )
    declared_s = _declared_duration_s(media, stream) if is_measured else None
    if declared_s is not None and declared_s > MAX_DURATION_S + 1:
        raise too_long(declared_s)
    channels = stream.codec_context.channels
    # Mono stays mono: FFmpeg would lower it by 3 dB. Others become stereo: they could cancel.
    layout = "stereo" if 1 < channels <= _MIXABLE else "mono"
    for piece in _resampled(_frames(media, stream), layout, kind):
        parts.append(piece)
        count += piece.shape[1]
        if count > room + _PADDING:
            raise too_long(None)
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((1, 0), np.float32)
    if declared_s is not None and count / SAMPLE_RATE_HZ < declared_s * _COMPLETE - 0.1:
        raise ValueError("shorter than declared")
    samples = samples[:, :room]  # exactly ten minutes, and an encoder's padding
    samples[~(np.abs(samples) <= _LOUDEST)] = 0.0  # NaN and infinity too
    return samples


def _resampled(frames: Iterator[Any], layout: str, kind: str) -> Iterator[NDArray[np.float32]]:
    """Frames at 16 kHz, in pieces of (channels, n); missing time becomes zeros.

    Rate and channels may change within a file: in AAC, and where files were concatenated.
    """
    resampler: Any = None
    form = None
    some, ahead = tee(frames)
    stamps = (_stamp(frame, kind) for frame in ahead)
    for frame, gap_s in zip(some, gaps(stamps), strict=True):
        if frame is None:
            continue
        if frame.format.is_packed and frame.layout.nb_channels > _MIXABLE:
            frame = _mixed(frame)  # noqa: PLW2901
        new_form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if new_form != form or gap_s > 0:
            if resampler is not None:
                yield from _arrays(resampler.resample(None))
            if gap_s > 0:
                count = round(min(gap_s, MAX_DURATION_S + 1) * SAMPLE_RATE_HZ)
                yield np.zeros((1 if layout == "mono" else 2, count), np.float32)
            if frame.sample_rate > MAX_RATE_HZ:
                raise InvalidInput(
                    f"Cannot read the recording: 'audio' must have a rate of at most {MAX_RATE_HZ} "
                    f"samples/s, got {frame.sample_rate}"
                )
            resampler, form = av.AudioResampler("fltp", layout, SAMPLE_RATE_HZ), new_form
        yield from _arrays(resampler.resample(frame))
    if resampler is not None:
        yield from _arrays(resampler.resample(None))


def _stamp(frame: Any, kind: str) -> tuple[float | None, float]:
    """When a frame begins, if that is known, and how long it lasts, in s."""
    if frame is None:  # a damaged packet is no silence
        return None, 0.0
    length_s = frame.samples / max(frame.sample_rate, 1)
    return frame.time if kind in _TIMED else None, length_s


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
