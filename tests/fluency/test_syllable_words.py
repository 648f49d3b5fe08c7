"""Signal and words together decide which peaks are syllables: by made peaks, and in an answer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import spelling
import syllable_words
from asr import Word
from conftest import Samples
from pauses import Interval
from syllables import Peaks
from vad import SileroVad

STRONG, WEAK, NO_SYLLABLE = 8.0, 0.5, 0.4


def counted(
    peaks: Sequence[tuple[float, float]],
    words: Sequence[tuple[str, float, float]],
    phrases: Sequence[tuple[float, float]] = ((0.0, 9.0),),
    language: str = "en",
) -> syllable_words.Counted:
    """peaks: (time, prominence in dB); the signal alone counts those of 0.5 and more."""
    return syllable_words.count(
        [time for time, above in peaks if above > NO_SYLLABLE],
        Peaks(np.array([time for time, _ in peaks]), np.array([above for _, above in peaks])),
        [Word(text, start, end, 0.9) for text, start, end in words],
        [Interval(*phrase) for phrase in phrases],
        language,
    )


def test_the_fading_end_of_a_vowel_is_no_syllable() -> None:
    """ "Thank" and "call" have one vowel each; the nasal and the [l] behind them are peaks too."""
    peaks = [(0.2, STRONG), (0.45, WEAK), (0.8, STRONG), (1.1, WEAK)]
    found = counted(peaks, [("Thank", 0.1, 0.6), ("call.", 0.7, 1.2)])
    assert found.times_s == [0.2, 0.8]
    assert found.share == 1


def test_syllables_that_melt_together_count() -> None:
    """ "Family" in one peak: three, in order and apart."""
    found = counted([(0.3, STRONG), (1.0, STRONG), (1.4, STRONG)], [
        ("family", 0.1, 0.7), ("wanted", 0.9, 1.5)
    ])  # fmt: skip
    assert len(found.times_s) == 5
    assert min(np.diff(found.times_s)) >= 0.05


def test_a_peak_that_the_signal_alone_would_not_count_is_taken_where_a_word_needs_it() -> None:
    """The second vowel of "water" falls by less than 2 dB."""
    found = counted([(0.2, STRONG), (0.42, NO_SYLLABLE)], [("water", 0.1, 0.55)])
    assert found.times_s == [0.2, 0.42]


def test_a_hiss_is_taken_by_no_word() -> None:
    """A peak that stands out and has no voice, between the vowels of "lesson"."""
    found = syllable_words.count(
        [0.2, 0.6],
        Peaks(np.array([0.2, 0.4, 0.6]), np.array([8.0, 5.0, 8.0])),
        [Word("lesson", 0.25, 0.5, 0.9)],
        [Interval(0.0, 1.0)],
        "en",
    )
    assert found.times_s == [0.2, 0.6]


def test_a_restart_that_the_transcript_leaves_out_counts() -> None:
    """ "I was, I was going", of which Whisper writes "I was going": six syllables stay six."""
    peaks = [(0.2 + 0.3 * index, STRONG) for index in range(6)]
    found = counted(peaks, [("I", 0.7, 1.0), ("was", 1.0, 1.25), ("going", 1.25, 1.9)])
    assert found.times_s == pytest.approx([time for time, _ in peaks])


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ([("one two three four five six seven eight nine ten", 0.0, 2.0)], "en"),  # invented
        ([("one", 0.1, 0.4)], "en"),  # most are missing
        ([("ten", 3.0, 3.2)], "en"),  # none in this phrase
        ([("eins", 0.1, 0.4), ("zwei", 0.5, 0.8)], "de"),  # no measured spelling
        ([], "en"),
    ],
)
def test_where_the_words_are_no_evidence_the_signal_decides(
    words: list[tuple[str, float, float]], language: str
) -> None:
    """Too many, too few, of another language, none."""
    peaks = [(0.2 + 0.25 * index, (STRONG, WEAK)[index % 2]) for index in range(6)]
    found = counted(peaks, words, phrases=((0.0, 2.0), (2.9, 4.0)), language=language)
    assert found.times_s == [time for time, _ in peaks]
    assert found.share == 0


def test_each_phrase_is_judged_for_itself() -> None:
    """The words of the second one are missing: its syllables are the signal's."""
    peaks = [(0.2, STRONG), (0.5, WEAK), *((2.0 + 0.3 * index, WEAK) for index in range(5))]
    found = counted(peaks, [("thank", 0.1, 0.6)], phrases=((0.0, 1.0), (1.8, 4.0)))
    assert found.times_s == [0.2, *(time for time, _ in peaks[2:])]
    assert found.share == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("something completely therefore makes times asked wishes wanted", 14),
        ("didn't handled prism being science quiet society idea create lawyer", 23),
        ("you every business different several clothes area maybe", 15),
        ("Dial 1, 21 or 2,500 in 1984.", 19),
        ("PBX www.asterisk.org they're don't", 20),
        ("Mr. Jones's wife's eyes", 6),
    ],
)
def test_english_spelling(text: str, count: int) -> None:
    """As a dictionary counts; each of these kinds was wrong once."""
    assert spelling.syllables(text.split(), "en") == count


LINES = {"austen-0870.wav": 30, "austen-0880.wav": 9, "austen-0890.wav": 20, "austen-0930.wav": 13}


def test_the_answers_count_is_that_of_people(answer_of: Callable[[str], Any]) -> None:
    """Fast reading, in which the signal alone loses up to a fifth: each line to one syllable."""
    found = {name: answer_of(name) for name in LINES}
    counts = {name: answer.syllable_count for name, answer in found.items()}
    assert counts == {name: pytest.approx(count, abs=1) for name, count in LINES.items()}
    for answer in found.values():
        assert len(answer.syllables) == answer.syllable_count
        assert answer.syllables == sorted(answer.syllables)
        assert answer.quality["syllables_by_words"] == 1


def test_every_counted_syllable_of_the_signal_is_one_of_its_peaks(
    recording: Callable[[str], Samples], vad: SileroVad
) -> None:
    """So that the words can only choose among what was measured."""
    import acoustics

    heard = acoustics.analyse(recording("austen-0870.wav"), vad, 0.25)
    assert heard is not None
    peaks = np.rint(heard.peaks.times_s * 100)
    assert np.isin(np.rint(np.array(heard.nuclei_s) * 100), peaks).all()
    assert (np.diff(peaks) > 0).all()
    assert len(peaks) > len(heard.nuclei_s)
