"""How long a sound lasts beside a silence: what fades into it, and what rises out of it.

The threshold of `pauses` finds the loud part of a sound. Its end (a vowel that fades, a nasal, an
[s]) and its start (the [f] before a vowel) are quieter, so a gap between two words looks longer
than it is. A sound lasts

- as long as it fades, in the band that holds vowels and nasals, or rises, in any band;
- while there is an [s]: most of the sound is above 4 kHz, where breath has less than below, and the
  VAD hears speech in the whole band. The telephone band, which decides the rest, holds none of it;
- in a loud room, while the VAD hears speech: there what fades is soon as quiet as the room.
"""

from typing import Final

import bands
import intensity
import numpy as np
from intensity import HOP_S
from level import Levelled
from numpy.typing import NDArray
from pauses import FINE_PITCH_HZ, Sounding
from vad import SileroVad, runs

# Below the loudest of the same band. Without this, 21 gaps that are too short were pauses (30
# recordings marked by eye).
SILENT_DB: Final = -40.0
ABOVE_FLOOR_DB: Final = 20.0  # of the same gap, for a room may be louder than its ends
_FLOOR: Final = 0.1
_RISES_S: Final = 0.1  # of an [f] or [s]; a breath before a word is longer
SURE: Final = 0.85  # probability of speech
# So long after the end of a word the VAD falls below that: the median of 54 words that were cut off
# at 20 dB below their loudest, in noise 30 dB below it.
LATE_S: Final = 0.05


def lasting(
    mask: NDArray[np.bool_], heard: Sounding, levelled: Levelled, vad: SileroVad
) -> NDArray[np.bool_]:
    """The mask with each sound as long as it fades into the silence beside it, or out of it.

    mask: (n,), where there is sound, at 10 ms steps.
    """
    whole = levelled.samples
    telephone = bands.telephone(whole)
    parts = (telephone, bands.fricatives(whole), bands.above_telephone(whole))
    levels_db = np.stack([intensity.contour(part, FINE_PITCH_HZ) for part in parts])
    is_hiss = levels_db[2] > levels_db[0]
    levels_db -= np.quantile(levels_db[:, mask], 0.99, axis=1, keepdims=True)
    wanted = (whole, telephone) if heard.is_noisy else (whole,)
    hiss, *voice = _in_time(vad.finely(np.stack(wanted))) >= SURE
    sounds = hiss & is_hiss & (levels_db[2] >= SILENT_DB)
    for one in voice:
        sounds |= one
    first, last = np.flatnonzero(mask)[[0, -1]]
    longer = mask.copy()
    longer[first:last] |= sounds[first:last]
    for start, end in runs(~longer):
        if start == 0 or end == len(mask):
            continue
        gap_db = levels_db[:, start:end]
        floor_db = np.quantile(gap_db, _FLOOR, axis=1, keepdims=True)
        quiet = (gap_db < np.maximum(SILENT_DB, floor_db + ABOVE_FLOOR_DB)) | ~heard.near[start:end]
        fades = np.flatnonzero(quiet[0]).min(initial=end - start)
        rises = end - start - 1 - np.flatnonzero(quiet.all(axis=0)).max(initial=-1)
        longer[start : start + fades] = True
        longer[end - min(rises, round(_RISES_S / HOP_S)) : end] = True
    return longer


def _in_time(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability with each fall as early as what it follows. (k, n) at 10 ms steps."""
    late = round(LATE_S / HOP_S)
    earlier = np.pad(probability[:, late:], ((0, 0), (0, late)))
    return np.minimum(probability, earlier)
