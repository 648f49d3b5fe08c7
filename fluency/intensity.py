"""Intensity over time, as Praat measures it, and the normalisation of a recording.

Source: Praat's manual, "Sound: To Intensity…": squared samples weighted by a
Kaiser-20 window of physical length 6.4 / minimum pitch, in dB. Written from the
manual; the tests compare it with Praat itself.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

SAMPLE_RATE_HZ: Final = 16_000
HOP: Final = 160  # samples: 10 ms
HOP_S: Final = HOP / SAMPLE_RATE_HZ
MINIMUM_PITCH_HZ: Final = 50  # de Jong & Wempe 2009: To Intensity... 50 0 yes
_KAISER_BETA: Final = 2 * np.pi**2 + 0.5  # Praat's "Kaiser-20"
FLOOR_DB: Final = -120.0

ACTIVE_LEVEL_DB: Final = -20.0  # dB re full scale; what the VAD was trained near
SILENCE_DB: Final = -65.0  # with its loudest second below this, a recording holds no speech
_ACTIVE_FRAMES: Final = 100  # the loudest second


def contour(
    samples: NDArray[np.float32], minimum_pitch_hz: float = MINIMUM_PITCH_HZ
) -> NDArray[np.float64]:
    """Intensity in dB re full scale at 10 ms steps. samples: (n,) at 16 kHz.

    Value i belongs to the time i * 0.01 s. The sound counts as zero outside the
    recording. Returns (n // 160 + 1,) values, none below -120 dB.
    """
    half = round(3.2 / minimum_pitch_hz * SAMPLE_RATE_HZ)
    window = np.kaiser(2 * half + 1, _KAISER_BETA)
    window /= window.sum()
    # Averaging to 1 ms first makes the convolution 16 times shorter; the window has 128 ms.
    step = HOP // 10
    power = samples.astype(np.float64) ** 2
    power = np.pad(power, (step // 2, step - 1))
    power = power[: len(power) // step * step].reshape(-1, step).mean(axis=1)
    smooth = fftconvolve(power, window[half % step :: step] * step, mode="same")
    count = len(samples) // HOP + 1
    values = np.maximum(smooth[::10][:count], 10 ** (FLOOR_DB / 10))
    return np.asarray(10 * np.log10(values))


def active_level_db(intensity_db: NDArray[np.float64]) -> float:
    """Mean power of the loudest second in dB: the level of the speech, if there is any.

    Unlike a percentile it does not change with silence at the ends, and unlike the peak it hardly
    changes with a click of 20 ms.
    """
    loudest = np.sort(intensity_db)[-_ACTIVE_FRAMES:]
    return float(10 * np.log10(np.mean(10 ** (loudest / 10)))) if len(loudest) else FLOOR_DB


def normalise(samples: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The recording without its DC offset, its loudest second at -20 dB; None if it is silent.

    Makes every later threshold independent of the recording gain.
    """
    if len(samples) == 0:
        return None
    centred = samples - np.float32(np.mean(samples, dtype=np.float64))
    level = active_level_db(contour(centred))
    if level < SILENCE_DB:
        return None
    return np.asarray(centred * np.float32(10 ** ((ACTIVE_LEVEL_DB - level) / 20)))
