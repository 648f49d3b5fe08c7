"""The level of the speech, and a recording brought to it.

Every later threshold is relative to this level. It is measured where the VAD hears speech, because
a slam or applause is often the loudest second of a recording. A sound that the VAD takes for speech
and that stands far above the rest (a cough, a laugh) is left out too: the loudness of programmes is
gated in the same way (ITU-R BS.1770-5, annex 1), there against silence.
"""

from dataclasses import dataclass
from typing import Final

import bands
import intensity
import numpy as np
import vad as voice_activity
from intensity import ACTIVE_LEVEL_DB, HOP, HOP_S, SILENCE_DB
from numpy.typing import NDArray
from scipy.ndimage import binary_propagation
from vad import SileroVad

_ROUNDS: Final = 4  # a slam 36 dB above the speech needs two
_CLOSE_DB: Final = 1.0
# Above the level of most half-seconds of speech. In 24 recordings the loudest vowel is 5 to 13 dB
# above that of most seconds, a cough 20.
_OUTLIER_DB: Final = 14.0
_MOST: Final = 0.75
_FEW_S: Final = 4  # of speech: too little to say what most seconds are like
# Above ACTIVE_LEVEL_DB. In 24 recordings the loudest vowel is 2 to 8 dB above it.
_EVENT_DB: Final = 10.0
_EVENT_EDGE_DB: Final = 3.0
# Frames of the VAD, 0.35 s. A whisper, a falsetto or a creak is missed for longer, edges of words
# and breath in the whole band for less (24 recordings; music and noise never).
_MISSED_FRAMES: Final = 11
_HIDDEN_DB: Final = 20.0
_FRAMES_PER_S: Final = round(1 / HOP_S)
_PART_FRAMES: Final = 50  # 0.5 s: in whole seconds a cry of 1.5 s would be three parts of nine


@dataclass(frozen=True)
class Levelled:
    """samples: (n,) at 16 kHz, the speech at -20 dB; probabilities: of the VAD, (frames,).

    events: sounds that were louder than any speech, at 10 ms steps: no measure of the speech.
    """

    samples: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    events: NDArray[np.bool_]


def bring(samples: NDArray[np.float32], vad: SileroVad) -> Levelled | None:
    """The recording with its speech at -20 dB and louder sounds lowered; None if it is silent.

    Makes every later threshold independent of the gain, and of other sounds. samples: (n,) at
    16 kHz, without rumble.
    """
    contour = intensity.contour(samples)
    level = intensity.active_level_db(contour)
    if len(samples) == 0 or level < SILENCE_DB:
        return None
    probabilities = np.zeros(0, np.float32)
    for attempt in range(_ROUNDS):
        made = samples * np.float32(10 ** ((ACTIVE_LEVEL_DB - level) / 20))
        probabilities = _probabilities(made, vad)
        speech = voice_activity.at_steps(
            voice_activity.speech_mask(probabilities), len(contour), HOP_S
        )
        if not attempt and np.count_nonzero(speech) < _FEW_S * _FRAMES_PER_S:
            hidden = _hidden_db(contour, level)
            if hidden < level:
                level = hidden
                continue
        found = _speech_level_db(contour[speech]) if speech.any() else level
        is_close = abs(found - level) < _CLOSE_DB
        level = found
        if is_close:
            break
    made = samples * np.float32(10 ** ((ACTIVE_LEVEL_DB - level) / 20))
    events = _events(contour - level + ACTIVE_LEVEL_DB)
    if events.any():
        made = _lowered(made, contour - level, events)
        probabilities = _probabilities(made, vad)
    return Levelled(made, probabilities, events)


def _probabilities(samples: NDArray[np.float32], vad: SileroVad) -> NDArray[np.float32]:
    """Of speech: in the telephone band, and in the whole one where only that holds a voice."""
    telephone, whole = vad.probabilities(np.stack((bands.telephone(samples), samples)))
    missed = voice_activity.speech_mask(whole) & ~voice_activity.speech_mask(telephone)
    for start, end in voice_activity.runs(missed):
        if end - start >= _MISSED_FRAMES:
            telephone[start:end] = whole[start:end]
    return np.asarray(telephone, np.float32)


def _speech_level_db(speech_db: NDArray[np.float64]) -> float:
    """The level of the loudest second of speech, without what stands far above the rest.

    speech_db: the intensity of speech at 10 ms steps, not empty.
    """
    if len(speech_db) >= _FEW_S * _FRAMES_PER_S:
        parts = np.array_split(speech_db, len(speech_db) // _PART_FRAMES)
        most = np.quantile([10 * np.log10(np.mean(10 ** (part / 10))) for part in parts], _MOST)
        speech_db = speech_db[speech_db <= most + _OUTLIER_DB]
    return intensity.active_level_db(speech_db)


def _hidden_db(contour_db: NDArray[np.float64], level_db: float) -> float:
    """Where to look for speech that one loud sound hides so far that the VAD hears little of it."""
    most = float(np.quantile(contour_db, _MOST))
    return most if SILENCE_DB <= most < level_db - _HIDDEN_DB else level_db


def _events(level_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Steps of sounds that are louder than any speech here, up to where they are no louder.

    level_db: the intensity at 10 ms steps, the speech at -20 dB.
    """
    loud = level_db > ACTIVE_LEVEL_DB + _EVENT_DB
    around = level_db > ACTIVE_LEVEL_DB + _EVENT_EDGE_DB
    return np.asarray(binary_propagation(loud, mask=around)) if loud.any() else loud


def _lowered(
    samples: NDArray[np.float32], above_db: NDArray[np.float64], events: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The recording with each event as loud as the speech. above_db: over the speech's level."""
    steps = np.where(events, -np.maximum(above_db, 0.0), 0.0)
    gain_db = np.interp(np.arange(len(samples)), np.arange(len(steps)) * HOP, steps)
    return np.asarray(samples * 10 ** (gain_db / 20), np.float32)
