"""Syllable nuclei (the vowels), found in the intensity without a transcript.

Source: N. H. de Jong & T. Wempe (2009), "Praat script to detect syllable nuclei
and measure speech rate automatically", Behavior Research Methods 41(2): peaks
of the intensity above a threshold, with a dip of at least 2 dB before the next
peak, that are voiced. Written from the paper; the tests compare it with the
same analysis in Praat. One thing differs: the last peak counts if the sound
falls by the dip after it (the published script drops it).
"""

from typing import Final

import numpy as np
from intensity import HOP_S
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

THRESHOLD_DB: Final = -25.0  # below the 99th percentile of the intensity
DIP_DB: Final = 2.0
# Praat's standard. The paper's 0.25 belongs to its longer window (0.1 s): in the 0.05 s of
# `pitch`, which follows fast speech better, noise reaches that by chance.
VOICING: Final = 0.45
# A whisper or a creak has no pitch for whole phrases: less than a tenth of the sound within 0.3 s
# is clearly voiced. In 20 recordings of other voices the least is 0.16.
_CLEARLY: Final = 0.6
_VOICELESS_SHARE: Final = 0.1
_PHRASE_STEPS: Final = 61  # 0.6 s
_SPEECH: Final = 0.6  # probability


def threshold_db(intensity_db: NDArray[np.float64]) -> float:
    """The level above which a peak can be a syllable. intensity_db: of speech only."""
    return float(np.quantile(intensity_db, 0.99)) + THRESHOLD_DB


def peaks(intensity_db: NDArray[np.float64], floor_db: float) -> NDArray[np.intp]:
    """Indices of the peaks above the floor that fall by 2 dB or more before the next one."""
    inner = intensity_db[1:-1]
    candidates = np.flatnonzero((inner > intensity_db[:-2]) & (inner >= intensity_db[2:])) + 1
    candidates = candidates[intensity_db[candidates] > floor_db]
    if len(candidates) == 0:
        return candidates
    dips = np.minimum.reduceat(intensity_db, candidates)  # up to the next peak, or to the end
    return candidates[intensity_db[candidates] - dips > DIP_DB]


def voiceless(
    strength: NDArray[np.float64], sounding: NDArray[np.bool_], probability: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Where somebody speaks without voice: in a whisper or a creak. All (n,) at 10 ms steps.

    strength: the voicing in [0, 1]; probability: of speech, the VAD's.
    """
    sound = uniform_filter1d(sounding.astype(float), _PHRASE_STEPS, mode="constant")
    voiced = (sounding & (strength > _CLEARLY)).astype(float)
    voice = uniform_filter1d(voiced, _PHRASE_STEPS, mode="constant")
    return np.asarray((voice < _VOICELESS_SHARE * sound) & (probability >= _SPEECH))


def nuclei(
    intensity_db: NDArray[np.float64],
    strength: NDArray[np.float64],
    sounding: NDArray[np.bool_],
    floor_db: float,
    without_voice: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Times in s of the syllable nuclei.

    intensity_db, strength, sounding, without_voice: (n,) at 10 ms steps; strength is the
    voicing in [0, 1], sounding is where there is speech, without_voice where a syllable needs no
    voice.
    """
    found = peaks(intensity_db, floor_db)
    voiced = strength[found] > VOICING
    if without_voice is not None:
        voiced |= without_voice[found]
    voiced &= sounding[found]
    return np.asarray(found[voiced] * HOP_S)
