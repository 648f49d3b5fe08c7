"""Syllable nuclei (the vowels), found in the intensity without a transcript.

Source: N. H. de Jong & T. Wempe (2009), "Praat script to detect syllable nuclei
and measure speech rate automatically", Behavior Research Methods 41(2): peaks
of the intensity above a threshold, with a dip of at least 2 dB before the next
peak, that are voiced. Written from the paper; the tests compare it with the
same analysis in Praat. What differs: the last peak counts if the sound
falls by the dip after it (the published script drops it), a creak counts as
voice, in a whisper none is needed, and an [s] that is periodic by chance is
no syllable.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from intensity import HOP_S
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import peak_prominences

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
_APART_STEPS: Final = 15  # 0.15 s: nearer to another syllable, a peak is a pulse of its creak
# Of an [s] or [tʃ] hardly anything lies below 2 kHz: 0.2 dB of it are lost above. Of the other 1592
# syllables in 30 recordings 1.3 dB and more.
_FRICATIVE_DB: Final = -1.0


@dataclass(frozen=True)
class Peaks:
    """Every peak of the intensity above the threshold, whether it is a syllable or not; (n,) each.

    prominence_db: how far the intensity falls on both sides before a higher peak.
    """

    times_s: NDArray[np.float64]
    prominence_db: NDArray[np.float64]


def threshold_db(intensity_db: NDArray[np.float64]) -> float:
    """The level above which a peak can be a syllable. intensity_db: of speech only."""
    return float(np.quantile(intensity_db, 0.99)) + THRESHOLD_DB


def candidates(
    intensity_db: NDArray[np.float64], sounding: NDArray[np.bool_], floor_db: float
) -> Peaks:
    """All peaks above the floor where there is speech: at 10 ms steps, see `nuclei`."""
    found = _above(intensity_db, floor_db)
    found = found[sounding[found]]
    return Peaks(np.asarray(found * HOP_S), np.asarray(peak_prominences(intensity_db, found)[0]))


def _above(intensity_db: NDArray[np.float64], floor_db: float) -> NDArray[np.intp]:
    inner = intensity_db[1:-1]
    found = np.flatnonzero((inner > intensity_db[:-2]) & (inner >= intensity_db[2:])) + 1
    return found[intensity_db[found] > floor_db]


def peaks(intensity_db: NDArray[np.float64], floor_db: float) -> NDArray[np.intp]:
    """Indices of the peaks above the floor that fall by 2 dB or more before the next one."""
    found = _above(intensity_db, floor_db)
    if len(found) == 0:
        return found
    dips = np.minimum.reduceat(intensity_db, found)  # up to the next peak, or to the end
    return found[intensity_db[found] - dips > DIP_DB]


def voiceless(strength: NDArray[np.float64], sounding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where hardly anything is clearly voiced around: in a whisper or a creak.

    strength: the voicing in [0, 1]; sounding: where there is sound. Both (n,) at 10 ms steps.
    """
    sound = uniform_filter1d(sounding.astype(float), _PHRASE_STEPS, mode="constant")
    voiced = (sounding & (strength > _CLEARLY)).astype(float)
    voice = uniform_filter1d(voiced, _PHRASE_STEPS, mode="constant")
    return np.asarray(voice < _VOICELESS_SHARE * sound)


def fricative(
    intensity_db: NDArray[np.float64],
    above_2_khz_db: NDArray[np.float64],
    above_4_khz_db: NDArray[np.float64],
    without_voice: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Where the sound is an [s] and its like: a hiss that a vowel of that voicing has not.

    All (n,) at 10 ms steps; intensity_db and above_2_khz_db are of the telephone band.
    """
    hissing = above_2_khz_db - intensity_db > _FRICATIVE_DB
    # A whispered [i] may hiss as much there, but no vowel has most of its sound above 4 kHz.
    return np.where(without_voice, above_4_khz_db > intensity_db, hissing)


def nuclei(
    intensity_db: NDArray[np.float64],
    strength: NDArray[np.float64],
    sounding: NDArray[np.bool_],
    floor_db: float,
    *,
    whisper: NDArray[np.bool_] | None = None,
    probability: NDArray[np.float32] | None = None,
    hiss: NDArray[np.bool_] | None = None,
    creaks: Callable[[float], bool] = lambda time_s: False,
) -> NDArray[np.float64]:
    """Times in s of the syllable nuclei.

    All arrays are (n,) at 10 ms steps; strength is the voicing in [0, 1], sounding is where there
    is speech. whisper: where a voice is no evidence, and a syllable needs the VAD's probability of
    speech or, by chance, some voicing, and must rise by 2 dB: a whisper fades away unevenly. hiss:
    where a syllable must be clearly voiced. creaks: whether there is a creak at a time, which has
    no pitch but is voice.
    """
    found = peaks(intensity_db, floor_db)
    found = found[sounding[found]]
    kept = strength[found] > VOICING
    for index in np.flatnonzero(~kept):
        apart = np.abs(found[kept] - found[index]).min(initial=_APART_STEPS)
        kept[index] = apart >= _APART_STEPS and creaks(float(found[index] * HOP_S))
    if whisper is not None and probability is not None:
        kept |= whisper[found] & (probability[found] >= _SPEECH)
        kept &= ~whisper[found] | (_rises_db(intensity_db, found) > DIP_DB)
    if hiss is not None:
        kept &= ~hiss[found] | (strength[found] > _CLEARLY)
    return np.asarray(found[kept] * HOP_S)


def _rises_db(intensity_db: NDArray[np.float64], found: NDArray[np.intp]) -> NDArray[np.float64]:
    """How far each peak stands above the lowest point since the one before."""
    if len(found) == 0:
        return np.zeros(0)
    starts = np.concatenate(([0], found[:-1]))
    lows = np.minimum.reduceat(intensity_db[: found[-1] + 1], starts)
    return np.asarray(intensity_db[found] - lows)
