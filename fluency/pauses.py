"""Silent pauses: silences within speech that are longer than a threshold.

Three sources are combined. The intensity is precise in time, but a noisy room stays above its
threshold, and so may a breath. The VAD separates speech from noise and breath, but bridges short
gaps and blurs edges by about 50 ms. A moment is silent when either says so; near an edge of the VAD
(96 ms) the intensity decides alone. The third source is the band above 2 kHz: what a telephone
leaves of an [s] is too quiet for the first one, but well above the noise in that band. Then `edges`
looks at how long the sounds beside a silence last.

Thresholds: 25 dB below the 99th percentile (de Jong & Wempe 2009), or 6 dB
above the room where that is higher; pauses of at least 0.25 s by default
(N. H. de Jong & H. R. Bosker 2013, "Choosing a threshold for silent pauses to
measure second language fluency", DiSS 2013). The ASR is not used: Whisper
shifts a word's start into the pause before it.
"""

from dataclasses import dataclass
from typing import Final

import bands
import intensity
import numpy as np
import vad
from intensity import HOP_S
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion
from vad import runs

FINE_PITCH_HZ: Final = 200  # a window of 32 ms: edges as sharp as 10 ms steps can show
BELOW_LOUDEST_DB: Final = -25.0  # de Jong & Wempe 2009
ABOVE_NOISE_DB: Final = 6.0
# Weak sounds lose more to the subtraction than loud ones: an [s] would become a pause.
_SUBTRACTED_DB: Final = -3.0
# Of the fricatives, below the loudest one. Set, like the 0.93, on 44 s of reading, so that its
# pauses at 8 kHz are those of its full band. Breath reaches this level, but not that probability.
FRICATIVES_BELOW_DB: Final = -30.0
_SURELY: Final = 0.93  # in three recordings breath has 0.91 at most, the weakest [s] 0.96
_NO_ROOM_DB: Final = -100.0  # no microphone is so quiet: a program inserted zeros
PAUSE_S: Final = 0.25  # de Jong & Bosker 2013
_LONG_PHRASE_S: Final = 28.0  # of Whisper's 30
MIN_SOUNDING_S: Final = 0.1  # de Jong & Wempe 2009: min. sounding interval
_BREATH_GAP_S: Final = 0.2
_SURE: Final = 0.75  # mean speech probability; phrases of the test recordings have 0.85 and more
_PHRASE_S: Final = 0.5
_EDGE_FRAMES: Final = 10  # 0.1 s, three frames of the VAD


@dataclass(frozen=True)
class Interval:
    """From start_s up to end_s, in s from the start of the recording."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Sounding:
    """Where there is speech, at 10 ms steps, and the levels that it was decided by."""

    mask: NDArray[np.bool_]
    probability: NDArray[np.float32]  # the VAD's, in [0, 1]
    quiet: NDArray[np.bool_]  # where there is certainly no speech
    noise_db: float | None  # None if the recording holds no silence to measure it in
    is_noisy: bool  # the noise, not the speech, sets the threshold
    near: NDArray[np.bool_]  # speech by the VAD, or within 0.1 s of it


def sounding(
    samples: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    *,
    events: NDArray[np.bool_] | None = None,
    is_subtracted: bool = False,
) -> Sounding:
    """Where there is speech. samples: (n,) normalised, 16 kHz; probabilities: the VAD's.

    events: (n // 160 + 1,), loud sounds that say nothing of the speech's level.
    is_subtracted: steady noise was subtracted from the samples.
    """
    level_db = intensity.contour(samples, FINE_PITCH_HZ)
    speech = vad.at_steps(vad.speech_mask(probabilities), len(level_db), HOP_S)
    probability = vad.at_steps(probabilities, len(level_db), HOP_S)
    quiet = binary_erosion(~speech, iterations=_EDGE_FRAMES, border_value=1)
    quiet &= level_db > _NO_ROOM_DB
    if events is not None:  # a cough is no noise of the room
        quiet &= ~binary_dilation(events, iterations=_EDGE_FRAMES)
    if not speech.any():
        return Sounding(speech, probability, quiet, None, is_noisy=False, near=speech)
    known = speech if events is None or not (speech & ~events).any() else speech & ~events
    below_db = BELOW_LOUDEST_DB + (_SUBTRACTED_DB if is_subtracted else 0.0)
    threshold, noise = _threshold_db(level_db, known, quiet, below_db)
    hiss_db = intensity.contour(bands.fricatives(samples), FINE_PITCH_HZ)
    hiss_threshold, _ = _threshold_db(hiss_db, known, quiet, FRICATIVES_BELOW_DB)
    near = binary_dilation(speech, iterations=_EDGE_FRAMES)
    mask = (level_db >= threshold) & near
    mask |= (hiss_db >= hiss_threshold) & (probability >= _SURELY) & speech
    for start, end in runs(mask):  # a click or a lip smack is not speech
        if (end - start) * HOP_S < MIN_SOUNDING_S and not speech[start:end].any():
            mask[start:end] = False
    is_noisy = noise is not None and threshold <= noise + ABOVE_NOISE_DB
    return Sounding(mask, probability, quiet, noise, is_noisy, near)


def _threshold_db(
    level_db: NDArray[np.float64],
    speech: NDArray[np.bool_],
    quiet: NDArray[np.bool_],
    below_loudest_db: float,
) -> tuple[float, float | None]:
    """The level above which there is speech, and the noise level (None without a quiet moment)."""
    threshold = float(np.quantile(level_db[speech], 0.99)) + below_loudest_db
    if not quiet.any():
        return threshold, None
    noise = float(np.median(level_db[quiet]))
    return max(threshold, noise + ABOVE_NOISE_DB), noise


def bridged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with gaps closed that are too short for a pause: the closure of a stop consonant."""
    closed = mask.copy()
    for start, end in runs(~mask):
        if (end - start) * HOP_S < _BREATH_GAP_S and start > 0 and end < len(mask):
            closed[start:end] = True
    return closed


def without_breaths(heard: Sounding, nuclei_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The mask without stretches between two pauses that are breath or lip noise, not speech.

    Such a stretch holds no syllable, or it is short and its speech probability is low.
    """
    kept = heard.mask.copy()
    for start, end in runs(bridged(heard.mask)):
        duration_s = (end - start) * HOP_S
        doubtful = float(heard.probability[start:end].mean()) < _SURE and duration_s < _PHRASE_S
        inside = (nuclei_s >= start * HOP_S) & (nuclei_s < end * HOP_S)
        if doubtful or not inside.any():
            kept[start:end] = False
    return kept


def silent_pauses(mask: NDArray[np.bool_], threshold_s: float) -> list[Interval]:
    """Gaps of at least threshold_s between two stretches of sound, in order.

    Silence before the first sound and after the last is no pause.
    """
    return [
        Interval(float(start * HOP_S), float(end * HOP_S))
        for start, end in runs(~mask)
        if start > 0 and end < len(mask) and (end - start) * HOP_S >= threshold_s - 1e-9
    ]


def phrases(mask: NDArray[np.bool_]) -> list[Interval]:
    """The stretches between pauses of 0.25 s; one longer than 28 s between shorter gaps."""
    found: list[Interval] = []
    finer = speech_segments(mask, silent_pauses(mask, MIN_SOUNDING_S))
    for segment in speech_segments(mask, silent_pauses(mask, PAUSE_S)):
        inside = [one for one in finer if segment.start_s <= one.start_s < segment.end_s]
        found += inside if segment.duration_s > _LONG_PHRASE_S else [segment]
    return found


def speech_segments(mask: NDArray[np.bool_], silences: list[Interval]) -> list[Interval]:
    """The stretches between the pauses, from the first sound to the last."""
    sound = np.flatnonzero(mask)
    if len(sound) == 0:
        return []
    starts = [float(sound[0] * HOP_S), *(pause.end_s for pause in silences)]
    ends = [*(pause.start_s for pause in silences), float((sound[-1] + 1) * HOP_S)]
    return [Interval(start, end) for start, end in zip(starts, ends, strict=True)]
