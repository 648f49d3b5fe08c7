"""Fundamental frequency by autocorrelation.

Source: P. Boersma (1993), "Accurate short-term analysis of the fundamental
frequency and the harmonics-to-noise ratio of a sampled sound", IFA Proceedings
17: the autocorrelation of a Hann-windowed frame divided by the window's own
(eq. 9), the strengths of the candidates with their octave cost, and the
cheapest path through them. Written from the paper; the tests compare it with
Praat itself, frame by frame.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 320  # samples: 20 ms, as de Jong & Wempe 2009, and the 50 Hz of the output
HOP_S: Final = HOP / SAMPLE_RATE_HZ
FLOOR_HZ: Final = 60.0
CEILING_HZ: Final = 600.0  # high enough for children
VOICED: Final = 0.45  # Praat's standard voicing threshold, for the pitch that is reported
# Praat's standard values.
_SILENCE: Final = 0.03  # of the recording's peak
_OCTAVE_COST: Final = 0.01
_OCTAVE_JUMP_COST: Final = 0.35
_VOICE_CHANGE_COST: Final = 0.14
_STEP_S: Final = 0.01  # the time step that the costs of a change are meant for
_CANDIDATES: Final = 6  # voiced ones per frame; Praat's 14 gave the same path on nine recordings
_FINER: Final = 2  # lags per sample
_LAG_RATE_HZ: Final = SAMPLE_RATE_HZ * _FINER
_FRAMES_AT_ONCE: Final = 512  # 10 s: a bound on memory, not on the result


@dataclass(frozen=True)
class Pitch:
    """One value per 20 ms; value i belongs to the time i * 0.02 s.

    frequency_hz: (n,) > 0 everywhere, meaningful where `voiced`.
    strength: (n,) in [0, 1], the normalised autocorrelation at that period.
    voiced: (n,) where the cheapest path is voiced.
    """

    frequency_hz: NDArray[np.float64]
    strength: NDArray[np.float64]
    voiced: NDArray[np.bool_]

    def strength_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Strength at given times, interpolated."""
        return np.interp(times_s, np.arange(len(self.strength)) * HOP_S, self.strength)


@dataclass(frozen=True)
class _Candidates:
    """Voiced candidates of each frame, (n, 6) all; strength 0 where there is none."""

    frequency_hz: NDArray[np.float64]
    strength: NDArray[np.float64]


def track(samples: NDArray[np.float32]) -> Pitch:
    """Pitch of a recording. samples: (n,) in [-1, 1] at 16 kHz; n // 320 + 1 values come back."""
    candidates, loudness = _listen(samples)
    octaves = np.log2(CEILING_HZ / candidates.frequency_hz)
    known = candidates.strength > 0
    voiced = np.where(known, candidates.strength - _OCTAVE_COST * octaves, -1e3)
    quiet = np.maximum(0, 2 - loudness / (_SILENCE / (1 + VOICED)))
    path = _cheapest_path((VOICED + quiet), voiced, np.log2(candidates.frequency_hz))
    rows = np.arange(len(path))
    best = np.where(path > 0, path - 1, voiced.argmax(axis=1))
    # Praat's silence threshold: quiet noise between words is unvoiced, however periodic.
    strength = np.where(loudness >= _SILENCE, candidates.strength[rows, best], 0.0)
    return Pitch(candidates.frequency_hz[rows, best], strength, path > 0)


def _listen(samples: NDArray[np.float32]) -> tuple[_Candidates, NDArray[np.float64]]:
    """Candidates of each frame, and its peak relative to the recording's."""
    window_length = int(3 / FLOOR_HZ * SAMPLE_RATE_HZ)
    window = np.hanning(window_length).astype(np.float32)
    longest = int(_LAG_RATE_HZ / FLOOR_HZ)
    size = next_fast_len(window_length + longest // _FINER + 2, real=True)
    window_acf = _autocorrelation(window, size)[: longest + 2]
    window_acf = (window_acf / window_acf[0]).astype(np.float32)
    half = window_length // 2
    padded = np.pad(samples, (half, half + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)[::HOP]
    frames = frames[: len(samples) // HOP + 1]
    peak = float(np.max(np.abs(samples), initial=0.0)) or 1.0
    inner = slice(half - half // 3, half + half // 3)  # a period to either side, as Praat
    found, loudness = [], []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = frames[start : start + _FRAMES_AT_ONCE]
        part = part - part.mean(axis=1, keepdims=True)
        loudness.append(np.abs(part[:, inner]).max(axis=1) / peak)
        acf = _autocorrelation(part * window, size)
        acf = acf[:, : longest + 2] / np.maximum(acf[:, :1], 1e-12) / window_acf
        found.append(_peaks(acf))
    candidates = _Candidates(
        np.concatenate([part.frequency_hz for part in found]),
        np.concatenate([part.strength for part in found]),
    )
    return candidates, np.concatenate(loudness).astype(np.float64)


def _autocorrelation(frames: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Along the last axis, at lags of 1 / 32000 s: a short period may fall between two samples."""
    power = np.abs(rfft(frames, size)) ** 2
    return np.asarray(irfft(power, size * _FINER), np.float32)


def _peaks(acf: NDArray[np.float32]) -> _Candidates:
    """The best six peaks of each row. acf: (n, lags), 1 at lag 0."""
    shortest = int(_LAG_RATE_HZ / CEILING_HZ)
    inner = acf[:, shortest - 1 : -1]
    is_peak = (inner > acf[:, shortest - 2 : -2]) & (inner >= acf[:, shortest:])
    lags = np.arange(shortest - 1, acf.shape[1] - 1)
    # Long periods have a cost: otherwise twice the period would sometimes win by little.
    cost = (_OCTAVE_COST * np.log2(CEILING_HZ * lags / _LAG_RATE_HZ)).astype(np.float32)
    score = np.where(is_peak, inner - cost, np.float32(-9))
    top = np.argpartition(-score, _CANDIDATES, axis=1)[:, :_CANDIDATES]
    rows, lag = np.arange(len(acf))[:, None], lags[top]
    before, at, after = acf[rows, lag - 1], acf[rows, lag], acf[rows, lag + 1]
    bend = np.minimum(before - 2 * at + after, -1e-9)
    shift = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    strength = np.maximum(at - 0.25 * (before - after) * shift, 1e-9)
    strength = np.minimum(strength, 1 / strength)  # above 1 only by the parabola's error
    frequency = _LAG_RATE_HZ / (lag + shift).astype(np.float64)
    usable = is_peak[rows, top] & (frequency <= CEILING_HZ)
    return _Candidates(frequency, np.where(usable, strength, 0.0).astype(np.float64))


def _cheapest_path(
    unvoiced: NDArray[np.float64], voiced: NDArray[np.float64], octave: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The candidate of each frame: 0 for unvoiced, else 1 + the column of the voiced one.

    unvoiced: (n,) and voiced: (n, k), their strengths; octave: (n, k), log2 of the frequencies.
    """
    scale = _STEP_S / HOP_S
    worth = np.concatenate([unvoiced[:, None], voiced], axis=1)
    jump = np.full((len(worth) - 1, worth.shape[1], worth.shape[1]), _VOICE_CHANGE_COST * scale)
    jump[:, 1:, 1:] = np.abs(octave[:-1, :, None] - octave[1:, None, :])
    jump[:, 1:, 1:] *= _OCTAVE_JUMP_COST * scale
    jump[:, 0, 0] = 0.0
    came_from = np.zeros(worth.shape, np.int8)
    total, columns = worth[0], np.arange(worth.shape[1])
    for frame, cost in enumerate(jump, start=1):
        sums = total[:, None] - cost
        best = sums.argmax(axis=0)
        came_from[frame] = best
        total = sums[best, columns] + worth[frame]
    path = np.zeros(len(worth), np.intp)
    path[-1] = total.argmax()
    for frame in range(len(worth) - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path
