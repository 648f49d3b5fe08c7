"""Tells a creak from noise: pulses of the voice so far apart that no pitch is found.

Source: C. T. Ishi, K.-I. Sakakibara, H. Ishiguro & N. Hagita (2008), "A method for automatic
detection of vocal fry", IEEE Transactions on Audio, Speech, and Language Processing 16(1): in the
power of 4 ms, between 100 and 1500 Hz, each pulse is a peak that stands 7 dB above its sides, and
looks like the pulse before it, because the mouth has hardly moved.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

SAMPLE_RATE_HZ: Final = 16_000
_BAND: Final = butter(2, (100, 1500), "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
_AROUND_S: Final = 0.15
_HOP: Final = 32  # samples: 2 ms
_FRAME: Final = 64
_SIDE: Final = 5  # hops: 10 ms
_STANDS_OUT_DB: Final = 7.0
_ALIKE: Final = 0.5  # correlation
_HALF: Final = 80  # samples on either side of a pulse that are compared
_SHIFT: Final = 40
_APART_S: Final = (0.016, 0.1)  # below 62 Hz; closer ones have a pitch
_PULSES: Final = 3  # the burst of a stop may be followed by one that looks like it


def is_creak(samples: NDArray[np.float32], time_s: float) -> bool:
    """Whether at least three alike pulses in a row lie around a time. samples: (n,) at 16 kHz."""
    middle, around = round(time_s * SAMPLE_RATE_HZ), round(_AROUND_S * SAMPLE_RATE_HZ)
    part = samples[max(middle - around, 0) : middle + around]
    if len(part) < around:
        return False
    wave = sosfiltfilt(_BAND, part.astype(np.float64))
    pulses = _pulses(wave)
    here = min(middle, around)
    start = 0
    for index in range(1, len(pulses) + 1):
        if index < len(pulses) and _is_next(wave, pulses[index - 1], pulses[index]):
            continue
        chain = pulses[start:index]
        if len(chain) >= _PULSES and chain[0] - _HALF <= here <= chain[-1] + _HALF:
            return True
        start = index
    return False


def _pulses(wave: NDArray[np.float64]) -> list[int]:
    """The sample of each pulse, in order."""
    power = np.convolve(wave**2, np.ones(_FRAME) / _FRAME, mode="same")[::_HOP]
    level_db = 10 * np.log10(power + 1e-9)
    inner = level_db[1:-1]
    peaks = np.flatnonzero((inner > level_db[:-2]) & (inner >= level_db[2:])) + 1
    found: list[int] = []
    for peak in map(int, peaks):
        before = level_db[max(peak - _SIDE, 0) : peak].min()
        after = level_db[peak + 1 : peak + 1 + _SIDE].min()
        if level_db[peak] - max(before, after) > _STANDS_OUT_DB:
            first = max(peak * _HOP - _FRAME, 0)
            nearby = np.abs(wave[first : first + 2 * _FRAME])
            found.append(first + int(nearby.argmax()))
    return found


def _is_next(wave: NDArray[np.float64], one: int, other: int) -> bool:
    """Whether the second pulse follows the first in a creak: neither soon nor late, and alike."""
    if not _APART_S[0] <= (other - one) / SAMPLE_RATE_HZ <= _APART_S[1]:
        return False
    reach = _HALF + _SHIFT
    if one < reach or other > len(wave) - reach:
        return False
    first = wave[one - _HALF : one + _HALF]
    return any(
        _correlation(first, wave[other + shift - _HALF : other + shift + _HALF]) > _ALIKE
        for shift in range(-_SHIFT, _SHIFT + 1, 4)
    )


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other) + 1e-20))
