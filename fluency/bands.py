"""The bands in which every recording is measured, whatever device made it.

A telephone passes 300 to 3400 Hz (ITU-T G.712), a headset twice as much and more. Pauses and
syllables measured in the full band would depend on the device: at 8 kHz an [s] is as quiet as a
pause. So everything but the transcript is measured below 3400 Hz, and fricatives in a band of their
own, 2 to 3.4 kHz. Below 60 Hz there is no speech, but the rumble of a fan, wind, steps, a drifting
offset: they are removed before anything is measured.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, firwin, oaconvolve, sosfilt, sosfilt_zi

SAMPLE_RATE_HZ: Final = 16_000
_EDGE_HZ: Final = 3450  # -6 dB; -60 dB from 3.65 kHz, below what 8 kHz recordings lose
_FRICATIVE_HZ: Final = 2000  # above the first two formants of most vowels
# -6 dB; mains of 50 Hz lose 49 dB, of 60 Hz 30, a deep voice's second harmonic nothing.
_RUMBLE_HZ: Final = 80
_TAPS: Final = 161  # 10 ms, symmetric: no delay
_WINDOW: Final = ("kaiser", 6.0)
_LOW: Final = firwin(_TAPS, _EDGE_HZ, window=_WINDOW, fs=SAMPLE_RATE_HZ).astype(np.float32)
_HIGH: Final = firwin(
    _TAPS, [_FRICATIVE_HZ, _EDGE_HZ], window=_WINDOW, pass_zero=False, fs=SAMPLE_RATE_HZ
).astype(np.float32)
_HISS_HZ: Final = 4000  # what a recording at 8 kHz does not have
_HISS: Final = firwin(_TAPS, _HISS_HZ, window=_WINDOW, pass_zero=False, fs=SAMPLE_RATE_HZ).astype(
    np.float32
)
_SPEECH: Final = butter(6, _RUMBLE_HZ, "highpass", fs=SAMPLE_RATE_HZ, output="sos")
_SETTLED: Final = sosfilt_zi(_SPEECH)
_EDGE: Final = 4000  # samples, 0.25 s: a swing that an end cuts off must not become a click


def without_rumble(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The recording without what lies below 60 Hz, without delay. (n,) at 16 kHz.

    Each end is continued by its mirror image turned by half a turn, as in scipy's `sosfiltfilt`;
    one array of doubles is used instead of its five.
    """
    edge = min(_EDGE, len(samples) - 1)
    if edge < 0:
        return samples
    whole = np.pad(samples.astype(np.float64), edge, mode="reflect", reflect_type="odd")
    for _ in range(2):  # forwards, then backwards: the delays cancel
        whole, _ = sosfilt(_SPEECH, whole, zi=_SETTLED * whole[0])
        whole = whole[::-1]
    return np.ascontiguousarray(whole[edge : edge + len(samples)], np.float32)


def telephone(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The telephone band, up to 3.4 kHz. (n,) at 16 kHz to (n,), without delay."""
    return _filtered(samples, _LOW)


def fricatives(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The band from 2 to 3.4 kHz. (n,) at 16 kHz to (n,), without delay."""
    return _filtered(samples, _HIGH)


def above_telephone(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The band from 4 to 8 kHz. (n,) at 16 kHz to (n,), without delay."""
    return _filtered(samples, _HISS)


def _filtered(samples: NDArray[np.float32], taps: NDArray[np.float32]) -> NDArray[np.float32]:
    whole = oaconvolve(samples, taps)  # "same" would give the length of the longer of the two
    return np.ascontiguousarray(whole[_TAPS // 2 : _TAPS // 2 + len(samples)], np.float32)
