"""Which peaks of the intensity are syllables, where the words are known.

The signal alone counts the fading end of a slow vowel or nasal as one more syllable, and misses
those that melt together in fast speech. The words say how many there are, but not those of restarts
and fillers that Whisper leaves out. So both are aligned: each syllable of the words takes the peak
that fits its time. A peak that stands out on both sides stays without a word, a weak one does not,
and a syllable of the words without a peak counts.

The alignment is an edit distance (R. A. Wagner & M. J. Fischer 1974, "The string-to-string
correction problem", Journal of the ACM 21).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import spelling
from numpy.typing import NDArray
from pauses import Interval
from syllables import Peaks

LANGUAGES: Final = frozenset({"en"})  # whose spelling was measured against phonemes
STANDS_OUT_DB: Final = 2.0
# A peak that the signal does not count may be a syllable: no ripple, and none that stands out
# without a voice, for that is a hiss.
_POSSIBLE_DB: Final = (0.3, STANDS_OUT_DB)
_SHORTEST_S: Final = 0.05  # between two syllables: half of one in the fastest speech
_TIME_S: Final = 0.15  # how far Whisper's times are off
# Costs, in halves of a squared standard deviation of the time.
_NO_PEAK: Final = 2.0
_STRONG_WITHOUT_WORD: Final = 3.0
_WEAK_WITHOUT_WORD: Final = 0.3
_NOT_COUNTED: Final = 1.0  # a peak that the signal alone would not count
# The words of a phrase are trusted if they have between so many of its syllables, and one more.
_SHARE: Final = (0.6, 1.4)


class TimedWord(Protocol):
    """A word of the transcript."""

    @property
    def text(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def end_s(self) -> float: ...


@dataclass(frozen=True)
class Counted:
    """times_s: of each syllable, in order; share: of them, those that the words decided, [0, 1]."""

    times_s: list[float]
    share: float


def count(
    nuclei_s: Sequence[float],
    peaks: Peaks,
    words: Sequence[TimedWord],
    phrases: Sequence[Interval],
    language: str,
) -> Counted:
    """The syllables by signal and words.

    nuclei_s: those of the signal alone, of which the peaks hold each; words: outside pauses;
    phrases: the speech between pauses; language: ISO 639-1.
    """
    alone = np.asarray(nuclei_s, np.float64)
    expected = _expected_s(words, language) if language in LANGUAGES else np.zeros(0)
    if len(expected) == 0 or len(peaks.times_s) == 0:
        return Counted(alone.tolist(), 0.0)
    is_counted = np.isin(np.rint(peaks.times_s * 100), np.rint(alone * 100))
    least, most = _POSSIBLE_DB
    is_possible = (peaks.prominence_db >= least) & (peaks.prominence_db < most)
    is_peak = is_counted | is_possible
    peaks_s, is_counted = peaks.times_s[is_peak], is_counted[is_peak]
    is_strong = is_counted & (peaks.prominence_db[is_peak] >= STANDS_OUT_DB)
    taken = _aligned(expected, peaks_s, is_counted, is_strong)
    with_word = np.zeros(len(peaks_s), bool)
    with_word[taken[taken >= 0]] = True
    kept_s = peaks_s[with_word | is_strong]
    starts = [one.start_s for one in phrases]
    made: list[float] = []
    by_words = 0
    place = [np.searchsorted(starts, times, side="right") for times in (alone, expected, kept_s)]
    for index, phrase in enumerate(phrases, start=1):
        signal, spoken = alone[place[0] == index], taken[place[1] == index]
        few, many = (share * len(signal) for share in _SHARE)
        if len(spoken) == 0 or not few - 1 <= len(spoken) <= many + 1 or len(signal) == 0:
            made += signal.tolist()
            continue
        times = kept_s[place[2] == index].tolist()
        for time_s in _melted_s(spoken, peaks_s, phrase):
            if min((abs(time_s - one) for one in times), default=1.0) >= _SHORTEST_S:
                times.append(time_s)
        times.sort()
        made += times
        by_words += len(times)
    return Counted(made, by_words / max(len(made), 1))


def _melted_s(
    taken: NDArray[np.intp], peaks_s: NDArray[np.float64], phrase: Interval
) -> list[float]:
    """When the syllables without a peak sound: evenly between those beside them.

    Whisper's own times are less exact. taken: the peak of each syllable of the phrase, or -1.
    """
    known = np.flatnonzero(taken >= 0)
    times = np.clip(peaks_s[taken[known]], phrase.start_s, phrase.end_s)
    missing = np.flatnonzero(taken < 0)
    places = [-1, *known.tolist(), len(taken)]
    return [
        float(time)
        for time in np.interp(missing, places, [phrase.start_s, *times.tolist(), phrase.end_s])
    ]


def _expected_s(words: Sequence[TimedWord], language: str) -> NDArray[np.float64]:
    """When each syllable of the words should sound: evenly within its word."""
    times: list[float] = []
    for word in words:
        many = round(spelling.of_word(word.text, language) or 0)
        step_s = (word.end_s - word.start_s) / max(many, 1)
        times += [word.start_s + (index + 0.5) * step_s for index in range(many)]
    return np.sort(np.array(times, np.float64))


def _aligned(
    expected_s: NDArray[np.float64],
    peaks_s: NDArray[np.float64],
    is_counted: NDArray[np.bool_],
    is_strong: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """The index of the peak that each expected syllable takes; -1 for none. In order, (n,)."""
    without = np.where(is_strong, _STRONG_WITHOUT_WORD, np.where(is_counted, _WEAK_WITHOUT_WORD, 0))
    passed = np.concatenate(([0.0], np.cumsum(without)))
    own = np.where(is_counted, 0.0, _NOT_COUNTED)
    before = passed
    takes = np.zeros((len(expected_s), len(passed)), bool)  # whether the last peak is taken here
    skips = np.zeros_like(takes)  # whether it is passed over after this syllable
    for row, time_s in enumerate(expected_s):
        taking = np.full(len(passed), np.inf)
        taking[1:] = before[:-1] + own + 0.5 * ((peaks_s - time_s) / _TIME_S) ** 2
        leaving = before + _NO_PEAK
        takes[row] = taking < leaving
        ending = np.minimum(taking, leaving)
        before = passed + np.minimum.accumulate(ending - passed)
        skips[row] = before < ending - 1e-9
    taken = np.full(len(expected_s), -1, np.intp)
    column = len(passed) - 1
    for row in range(len(expected_s) - 1, -1, -1):
        while skips[row, column]:
            column -= 1
        if takes[row, column]:
            column -= 1
            taken[row] = column
    return taken
