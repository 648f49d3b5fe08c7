"""Subtracts steady noise from a recording, so that a loud room adds no pauses.

Noise masks weak syllables: at a signal-to-noise ratio of 12 dB an intensity threshold finds twice
as many pauses as there are. Spectral subtraction recovers the syllables, because speech exceeds the
noise in some bands where it does not in the sum.

Source: M. Berouti, R. Schwartz & J. Makhoul (1979), "Enhancement of speech corrupted by acoustic
noise", ICASSP: more than the mean noise power is subtracted, and a floor is left, against
residual "musical" noise. Their factor is 4 - 0.15 * SNR in dB: 3 belongs to about 7 dB.
"""

from typing import Final

import numpy as np
from intensity import HOP, SAMPLE_RATE_HZ
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.ndimage import uniform_filter1d

OVERSUBTRACTION: Final = 3.0
FLOOR_DB: Final = -20.0
MIN_QUIET_S: Final = 0.2  # of noise alone, to measure its spectrum
_FFT: Final = 512  # 32 ms
_STEP: Final = 128
_OVERLAP: Final = _FFT // _STEP
_BLOCK: Final = 4096  # frames, 33 s: a bound on memory


def subtract(samples: NDArray[np.float32], quiet: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The recording without the noise that its quiet moments have.

    samples: (n,) at 16 kHz; quiet: (n // 160 + 1,), where there is no speech, at 10 ms steps.
    Unchanged if less than 0.2 s are quiet.
    """
    padded = np.pad(samples, (_FFT, _FFT + _STEP))
    frames = sliding_window_view(padded, _FFT)[::_STEP]
    middles = np.arange(len(frames)) * _STEP - _FFT // 2
    at = np.clip(np.rint(middles / HOP).astype(int), 0, len(quiet) - 1)
    alone = quiet[at] & (middles >= 0) & (middles < len(samples))
    if np.count_nonzero(alone) * _STEP < MIN_QUIET_S * SAMPLE_RATE_HZ:
        return samples
    window = np.sqrt(np.hanning(_FFT + 1)[:-1]).astype(np.float32)
    noise = OVERSUBTRACTION * _mean_power(frames[alone], window)
    made = np.zeros((len(frames) + _OVERLAP, _STEP), np.float32)
    for start in range(0, len(frames), _BLOCK):
        # One frame more on either side, for the smoothing over time.
        first, last = max(start - 1, 0), min(start + _BLOCK + 1, len(frames))
        clean = _cleaned(frames[first:last] * window, noise)
        clean = clean[start - first : start - first + _BLOCK] * window
        for part in range(_OVERLAP):
            piece = clean[:, part * _STEP : (part + 1) * _STEP]
            made[start + part : start + part + len(clean)] += piece
    made /= _OVERLAP / 2  # what four overlapping squares of the window add up to
    return made.ravel()[_FFT : _FFT + len(samples)]


def _mean_power(frames: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean power spectrum. frames: (n, 512); returns (257,)."""
    blocks = [frames[i : i + _BLOCK] for i in range(0, len(frames), _BLOCK)]
    total = sum(np.sum(np.abs(rfft(block * window)) ** 2, axis=0) for block in blocks)
    return np.asarray(total / len(frames), np.float32)


def _cleaned(frames: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windowed frames (n, 512) with the noise power (257,) subtracted in each band."""
    spectra = rfft(frames)
    power = uniform_filter1d(uniform_filter1d(np.abs(spectra) ** 2, 3, axis=0), 3, axis=1)
    kept = np.maximum(1 - noise / np.maximum(power, 1e-12), 10 ** (FLOOR_DB / 10))
    return np.asarray(irfft(spectra * np.sqrt(kept), _FFT), np.float32)
