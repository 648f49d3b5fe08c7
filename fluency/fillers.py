"""Filled pauses heard in the signal: a voice that holds one vowel at one pitch.

Source: M. Goto, K. Itou & S. Hayamizu (1999), "A real-time filled pause
detection system for spontaneous speech recognition", Eurospeech: a filled pause
shows little movement of the pitch and little deformation of the spectral
envelope. The limits below were set on 100 s of read and telephone speech without
fillers (one false alarm) and on synthetic ones put into it (found); nothing here
was validated on real second-language speech.
"""

from typing import Final

import numpy as np
from librosa.filters import mel
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pauses import Interval, runs
from pitch import HOP, HOP_S, SAMPLE_RATE_HZ, Pitch
from scipy.signal import get_window

MIN_DURATION_S: Final = 0.28  # longer than a stressed vowel in running speech
MAX_PITCH_SLOPE: Final = 12.0  # semitones per s: a filler is level or falls slowly
MAX_FLUX_DB: Final = 2.0  # root mean square change of the mel spectrum between 20 ms steps
_BANDS: Final = 24
_FFT: Final = 1024  # samples at 16 kHz
_WINDOW: Final = 640
_BLOCK: Final = 2048  # frames at a time: ten minutes at once would take 0.5 GB
_SMOOTH: Final = 5  # frames: 0.1 s, over which the slope of the pitch is taken


def envelope_db(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mel spectrum in dB at 20 ms steps. Returns (n // 320 + 1, 24).

    The same as librosa's `melspectrogram`, whose module compiles for 15 s when it is first
    imported in a new environment, which every cold start in a container is.
    """
    window = np.pad(get_window("hann", _WINDOW), (_FFT - _WINDOW) // 2)
    weights = mel(sr=SAMPLE_RATE_HZ, n_fft=_FFT, n_mels=_BANDS, fmin=100, fmax=5000).T
    frames = sliding_window_view(np.pad(samples, _FFT // 2), _FFT)[::HOP]
    blocks = [
        np.square(np.abs(np.fft.rfft(frames[i : i + _BLOCK] * window))) @ weights
        for i in range(0, len(frames), _BLOCK)
    ]
    return np.asarray(10 * np.log10(np.maximum(np.concatenate(blocks), 1e-9)), np.float64)


def filled_pauses(samples: NDArray[np.float32], pitch: Pitch) -> list[Interval]:
    """Stretches of at least 0.28 s with a steady pitch and a steady spectrum.

    samples: (n,) normalised, 16 kHz; pitch: of the same samples.
    """
    count = len(pitch.strength)
    if count < _SMOOTH + 1 or len(samples) < 1024:
        return []
    steady = pitch.voiced & (_flux_db(samples)[:count] < MAX_FLUX_DB)
    steady &= np.abs(_slope(pitch)) < MAX_PITCH_SLOPE
    return [
        Interval(start * HOP_S, end * HOP_S)
        for start, end in runs(steady)
        if (end - start) * HOP_S >= MIN_DURATION_S
    ]


def _flux_db(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Change of the spectral envelope at each step, its overall level left out."""
    shape = envelope_db(samples)
    shape = np.maximum(shape, shape.max(axis=1, keepdims=True) - 35)  # what is heard, not noise
    shape -= shape.mean(axis=1, keepdims=True)
    change = np.sqrt(np.mean(np.diff(shape, axis=0, prepend=shape[:1]) ** 2, axis=1))
    return np.convolve(change, np.ones(3) / 3, mode="same")


def _slope(pitch: Pitch) -> NDArray[np.float64]:
    """Slope of the pitch in semitones per s, over 0.1 s."""
    semitones = 12 * np.log2(pitch.frequency_hz)
    half = _SMOOTH // 2
    padded = np.pad(semitones, half, mode="edge")
    return np.asarray((padded[2 * half :] - padded[: -2 * half]) / (2 * half * HOP_S))
