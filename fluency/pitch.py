"""Fundamental frequency by autocorrelation.

Source: P. Boersma (1993), "Accurate short-term analysis of the fundamental
frequency and the harmonics-to-noise ratio of a sampled sound", IFA Proceedings
17: the autocorrelation of a Hann-windowed frame divided by the window's own
(eq. 9), with an octave cost (eq. 26). In place of its path finder, jumps of an
octave are put right by a median over 0.2 s.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import medfilt

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 320  # samples: 20 ms, as de Jong & Wempe 2009, and the 50 Hz of the output
HOP_S: Final = HOP / SAMPLE_RATE_HZ
FLOOR_HZ: Final = 60.0
CEILING_HZ: Final = 600.0  # high enough for children
VOICED: Final = 0.45  # Praat's standard voicing threshold, for the pitch that is reported
_OCTAVE_COST: Final = 0.01  # Praat's standard
_FINER: Final = 2  # lags a sample
_LAG_RATE_HZ: Final = SAMPLE_RATE_HZ * _FINER
_FRAMES_AT_ONCE: Final = 2048  # 41 s: a bound on memory, not on the result


@dataclass(frozen=True)
class Pitch:
    """One value each 20 ms; value i belongs to the time i * 0.02 s.

    frequency_hz: (n,) > 0 everywhere, meaningful where `voiced`.
    strength: (n,) in [0, 1], the normalised autocorrelation at that period.
    """

    frequency_hz: NDArray[np.float64]
    strength: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        return np.asarray(self.strength >= VOICED)

    def strength_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Strength at given times, interpolated."""
        return np.interp(times_s, np.arange(len(self.strength)) * HOP_S, self.strength)


def track(samples: NDArray[np.float32]) -> Pitch:
    """Pitch of a recording. samples: (n,) in [-1, 1] at 16 kHz; n // 320 + 1 values come back."""
    window_length = int(3 / FLOOR_HZ * SAMPLE_RATE_HZ)
    window = np.hanning(window_length).astype(np.float32)
    longest, shortest = int(_LAG_RATE_HZ / FLOOR_HZ), int(_LAG_RATE_HZ / CEILING_HZ)
    size = next_fast_len(window_length + longest // _FINER + 2, real=True)
    window_acf = _autocorrelation(window, size)[: longest + 2]
    window_acf = (window_acf / window_acf[0]).astype(np.float32)
    half = window_length // 2
    padded = np.pad(samples, (half, half + HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length)[::HOP]
    frames = frames[: len(samples) // HOP + 1]
    peak = float(np.max(np.abs(samples), initial=0.0)) or 1.0
    frequencies, strengths = [], []
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        part = frames[start : start + _FRAMES_AT_ONCE]
        part = part - part.mean(axis=1, keepdims=True)
        loud = np.abs(part).max(axis=1) / peak
        acf = _autocorrelation(part * window, size)
        acf = acf[:, : longest + 2] / np.maximum(acf[:, :1], 1e-12) / window_acf
        frequency, strength = _best_period(acf, shortest)
        frequencies.append(frequency)
        # Praat's silence threshold, 0.03 of the global peak: noise between words is no voice.
        strengths.append(np.where(loud >= 0.03, strength, 0.0))
    return Pitch(
        _without_octave_jumps(np.concatenate(frequencies), np.concatenate(strengths)),
        np.concatenate(strengths),
    )


def _autocorrelation(frames: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Along the last axis, at lags of 1 / 32000 s: a short period falls between two samples."""
    power = np.abs(rfft(frames, size)) ** 2
    return np.asarray(irfft(power, size * _FINER), np.float32)


def _best_period(
    acf: NDArray[np.float32], shortest: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequency and strength of the best peak of each row. acf: (n, lags), 1 at lag 0."""
    lags = np.arange(acf.shape[1])
    inner = acf[:, 1:-1]
    is_peak = (inner > acf[:, :-2]) & (inner >= acf[:, 2:])
    is_peak[:, : shortest - 1] = False
    cost = _OCTAVE_COST * np.log2(FLOOR_HZ * np.maximum(lags[1:-1], 1) / _LAG_RATE_HZ)
    score = np.where(is_peak, inner - cost.astype(np.float32), -1.0)
    rows = np.arange(len(acf))
    lag = score.argmax(axis=1) + 1
    found = score[rows, lag - 1] > 0
    before, at, after = acf[rows, lag - 1], acf[rows, lag], acf[rows, lag + 1]
    bend = np.minimum(before - 2 * at + after, -1e-9)
    shift = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    strength = np.clip(at - 0.25 * (before - after) * shift, 0.0, 1.0)
    frequency = _LAG_RATE_HZ / (lag + shift)
    return frequency.astype(np.float64), np.where(found, strength, 0.0).astype(np.float64)


def _without_octave_jumps(
    frequency_hz: NDArray[np.float64], strength: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fold values that are an octave off the median of their 0.2 s back onto it."""
    voiced = np.flatnonzero(strength >= VOICED)
    if len(voiced) < 11:
        return frequency_hz
    folded = frequency_hz.copy()
    octaves = np.log2(frequency_hz[voiced] / medfilt(frequency_hz[voiced], 11))
    folded[voiced] /= 2.0 ** np.where(np.abs(np.abs(octaves) - 1) < 0.2, np.sign(octaves), 0)
    return folded
