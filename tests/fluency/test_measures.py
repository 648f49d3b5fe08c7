"""Every measure against timelines worked out by hand, and the text measures."""

from dataclasses import asdict, replace
from typing import Any

import disfluency
import numpy as np
import pytest
import reading
import report
from acoustics import Acoustics
from asr import Transcript, Word
from hypothesis import given
from hypothesis import strategies as st
from measures import measure
from pauses import Interval
from pitch import Pitch
from quality import SoundQuality
from score import ScoreMap
from syllables import Peaks

# 0-2 s: 6 syllables; pause of 0.5 s; 2.5-4 s: 3; pause of 1 s; 5-6 s: 3.
SEGMENTS = [Interval(1.0, 3.0), Interval(3.5, 5.0), Interval(6.0, 7.0)]
SILENCES = [Interval(3.0, 3.5), Interval(5.0, 6.0)]
NUCLEI = [1.1, 1.4, 1.7, 2.0, 2.3, 2.8, 3.6, 4.0, 4.5, 6.1, 6.4, 6.9]
HEARD = Acoustics(
    samples=np.zeros(128_000, np.float32),
    segments=SEGMENTS,
    phrases=SEGMENTS,
    silences=SILENCES,
    standard_pauses=SILENCES,
    fillers=[Interval(3.55, 3.85)],
    nuclei_s=NUCLEI,
    peaks=Peaks(np.zeros(0), np.zeros(0)),
    pitch=Pitch(np.full(401, 120.0), np.zeros(401), np.zeros(401, bool)),
    intensity_db=np.full(801, -30.0),
    quality=SoundQuality(40.0, 8000, 0.0, 1.0),
)


def test_every_measure_of_a_timeline_worked_out_by_hand() -> None:
    """12 syllables in 6 s, of which 1.5 s are two pauses."""
    assert asdict(measure(SEGMENTS, SILENCES, NUCLEI)) == pytest.approx(
        {
            "total_time_s": 6.0,
            "phonation_time_s": 4.5,
            "pause_time_s": 1.5,
            "syllable_count": 12,
            "speech_rate": 12 / 6,
            "articulation_rate": 12 / 4.5,
            "phonation_time_ratio": 4.5 / 6,
            "mean_syllable_duration_s": 4.5 / 12,
            "mean_length_of_run": 4.0,
            "longest_run": 6,
            "silent_pause_count": 2,
            "silent_pauses_per_minute": 20.0,
            "mean_silent_pause_s": 0.75,
        }
    )


def test_without_pauses_the_rates_are_one() -> None:
    """Speech rate equals articulation rate; there is no mean pause to speak of."""
    found = measure([Interval(0.5, 2.5)], [], [0.6, 1.0, 1.5])
    assert found.speech_rate == found.articulation_rate == 1.5
    assert found.phonation_time_ratio == 1
    assert found.mean_silent_pause_s is None
    assert found.mean_length_of_run == found.longest_run == 3


def test_nothing_measured_is_none_and_not_nan() -> None:
    """No segment: counts of 0, rates undefined."""
    found = asdict(measure([], [], []))
    assert found["syllable_count"] == found["total_time_s"] == 0
    assert found["speech_rate"] is found["mean_length_of_run"] is None


def words(*timed: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, 0.9) for text, start, end in timed]


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        ("I went home.", "fff"),
        ("I I went home.", "rfff"),
        ("in the in the house", "rrfff"),
        ("Um, I went, uh, home.", "iffif"),
        ("I I um I went", "rriff"),
        ("very very good", "fff"),
        ("It was the best of times. It was the worst", "f" * 10),
        ("the hosp- hospital", "fxf"),
        ("on Monday, I mean, Tuesday", "ffxxf"),
        ("what I mean is this", "fffff"),
        ("", ""),
    ],
)
def test_disfluent_words_are_classified(said: str, kinds: str) -> None:
    """Fillers (i), repetitions (r) and repairs (x) among fluent words (f)."""
    short = {"filler": "i", "repetition": "r", "repair": "x", "fluent": "f"}
    found = disfluency.classify(said.split())
    assert "".join(short[kind] for kind in found) == kinds


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("“Don’t,", "don't"),
        ("_word_", "word"),
        ("की", "की"),
        ("(के),", "के"),
        ("e\u0301te\u0301!", "été"),
        ("___", ""),
        ("👍🏽", ""),
        ("a" + "!" * 1_000_000 + "b", "a" + "!" * 1_000_000 + "b"),  # hours, by a careless regex
    ],
    ids=range(8),
)
def test_words_are_compared_without_punctuation(word: str, plain: str) -> None:
    """Vowel signs belong to the word; nothing takes longer than the word is long."""
    assert disfluency.normalise(word) == plain


@pytest.mark.parametrize(
    ("said", "language", "kinds"),
    [
        ("um I went er home", "en", "iffif"),
        ("er ging um acht äh nach Hause", "de", "ffffiff"),
        ("um dia fui, hm, em casa", "pt", "fffiff"),
        ("em no sé", "es", "iff"),
        ("nous nous sommes euh trompés", "fr", "fffif"),
    ],
)
def test_a_filler_of_one_language_is_a_word_of_another(
    said: str, language: str, kinds: str
) -> None:
    """German "er" is "he", Portuguese "um" is "a"."""
    found = disfluency.classify(said.split(), language)
    assert ["i" if kind == "filler" else kind[0] for kind in found] == list(kinds)


def test_doubled_characters_are_no_repetition() -> None:
    """Where a script has no spaces the pieces are characters: "妈妈" is one word, 嗯 a filler."""
    kinds = disfluency.classify([*"嗯我爱妈妈"], is_spaced=False)
    assert kinds == ["filler", *["fluent"] * 4]


def test_a_repeated_phrase_counts_once() -> None:
    """Three repeated words in a row are one repetition."""
    kinds = disfluency.classify(["he", "was", "not", "he", "was", "not", "an", "ill", "man", "man"])
    assert disfluency.count(kinds, "repetition") == 2


def test_words_leave_the_pauses() -> None:
    """A word stretched over a pause is cut at its edge, on the side where more of it lies."""
    pause = [Interval(1.0, 2.0)]
    moved = report.snap(
        words(("late", 1.2, 2.4), ("early", 0.5, 1.3), ("both", 0.2, 2.1), ("in", 1.1, 1.3)), pause
    )
    assert [(w.start_s, w.end_s) for w in moved] == [(2.0, 2.4), (0.5, 1.0), (0.2, 1.0), (1.0, 1.0)]


def test_a_filler_heard_and_read_counts_once() -> None:
    """ "um" in the transcript over a steady vowel in the signal is one filled pause."""
    said = words(("I", 0.0, 0.2), ("um", 0.3, 0.8), ("went", 1.5, 1.8))
    heard = [Interval(0.35, 0.75), Interval(1.0, 1.4)]
    found = report.merge_fillers(heard, said, disfluency.classify([w.text for w in said]))
    assert [(f["source"], f["start"]) for f in found] == [("both", 0.3), ("signal", 1.0)]


def test_every_field_of_an_answer_worked_out_by_hand() -> None:
    """The timeline above with eight words, a filler heard and read, and a text that was to be read.

    Total 6 s. Struck: the first "I" (the nucleus at 1.1 s) and the filler (3.6 s). Score:
    articulation 2.667/s is 45 points, 20 pauses a minute 90, 0.75 s each 65, 20 repairs 20.
    """
    said = words(
        ("I", 1.0, 1.2),
        ("I", 1.3, 1.5),
        ("went", 1.6, 1.9),
        ("home,", 2.0, 2.9),
        ("um", 3.5, 3.9),
        ("and", 3.95, 4.3),
        ("ate", 4.4, 4.9),
        ("bread.", 6.0, 6.9),
    )
    answer = report.compose(
        HEARD,
        Transcript(said, "en", 1.0, []),
        duration_s=8.0,
        pause_threshold_s=0.25,
        reference=["i", "went", "home", "and", "ate", "the", "bread"],
        scores=ScoreMap.load(),
        model="hand",
    )
    expected = {
        "speech_rate": 2.0,
        "articulation_rate": 2.667,
        "pruned_speech_rate": 1.667,
        "words_per_minute": 70.0,
        "silent_pauses_per_minute": 20.0,
        "pauses_within_clauses_per_minute": 10.0,
        "filled_pause_count": 1,
        "filled_pauses_per_minute": 10.0,
        "repetition_count": 1,
        "repair_count": 0,
        "repairs_per_minute": 20.0,
        "speed_score": 45.0,
        "breakdown_score": 79.0,
        "repair_score": 20.0,
        "fluency_score": 61.4,
        "transcript": "I I went home, um and ate bread.",
    }
    assert {name: getattr(answer, name) for name in expected} == expected
    assert [pause["position"] for pause in answer.pauses] == ["between", "within"]
    assert [filler["source"] for filler in answer.filled_pauses] == ["both"]
    assert [word["kind"] for word in answer.words if word["kind"] != "fluent"] == [
        "repetition",
        "filler",
    ]
    assert answer.reading is not None
    assert answer.reading["words_correct_per_minute"] == 60.0
    assert answer.reading["omissions"] == ["the"]
    assert answer.reading["insertions"] == ["i", "um"]


@pytest.mark.parametrize("threshold_s", [0.1, 0.25, 1.5])
def test_the_score_does_not_depend_on_the_threshold(threshold_s: float) -> None:
    """The list shows pauses of 1.5 s, of which there are none: the score knows those of 0.25 s."""
    long = [pause for pause in SILENCES if pause.duration_s >= threshold_s]
    heard = replace(HEARD, silences=long, segments=SEGMENTS if long else [Interval(1.0, 7.0)])
    answer = report.compose(
        heard,
        None,
        duration_s=8.0,
        pause_threshold_s=threshold_s,
        reference=None,
        scores=ScoreMap.load(),
        model=None,
    )
    assert answer.silent_pause_count == len(long)
    assert (answer.speed_score, answer.breakdown_score) == (45.0, 79.0)


def test_a_script_without_spaces_has_no_word_measures() -> None:
    """Neither words per minute nor repetitions, repairs or a reading: null, and said so."""
    answer = report.compose(
        HEARD,
        Transcript(words(("妈", 1.0, 1.2), ("妈", 1.3, 1.5), ("嗯", 3.5, 3.9)), "zh", 1.0, []),
        duration_s=8.0,
        pause_threshold_s=0.25,
        reference=["妈妈"],
        scores=ScoreMap.load(),
        model="hand",
    )
    assert answer.transcript == "妈妈嗯"
    assert answer.filled_pause_count == 1
    for name in ("words_per_minute", "repetition_count", "repair_count", "repairs_per_minute"):
        assert getattr(answer, name) is None, name
    assert answer.reading is None
    assert any("reading was not compared" in warning for warning in answer.warnings)


def test_words_of_a_guessed_language_count_for_nothing() -> None:
    """Arabic taken for Hungarian at 0.17: the words are shown, with a warning, and not scored."""
    said = words(("a", 1.0, 1.2), ("a", 1.3, 1.5), ("hm", 3.55, 3.85), ("és,", 4.0, 4.9))
    scores = ScoreMap.load()
    measured: dict[str, Any] = {"duration_s": 8.0, "pause_threshold_s": 0.25, "scores": scores}
    answer, signal = (
        report.compose(HEARD, understood, reference=["a"], model="hand", **measured)
        for understood in (Transcript(said, "hu", 0.17, []), None)
    )
    assert [word["kind"] for word in answer.words] == ["fluent"] * 4
    assert answer.transcript == "a a hm és,"
    for name in ("words_per_minute", "repetition_count", "repairs_per_minute", "reading"):
        assert getattr(answer, name) is None, name
    for name in ("pauses", "filled_pauses", "pruned_speech_rate", "fluency_score"):
        assert getattr(answer, name) == getattr(signal, name), name
    assert any("language is a guess (hu, 17 %)" in warning for warning in answer.warnings)


@given(
    st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12)
)
def test_the_alignment_is_the_cheapest(expected: list[str], said: list[str]) -> None:
    """Both word lists come back whole, in order, at the Levenshtein distance."""
    pairs = reading.align(expected, said)
    assert [a for a, _ in pairs if a is not None] == expected
    assert [b for _, b in pairs if b is not None] == said
    row = list(range(len(said) + 1))
    for i, a in enumerate(expected, 1):
        row_before, row = row, [i]
        for j, b in enumerate(said, 1):
            row.append(min(row_before[j - 1] + (a != b), row_before[j] + 1, row[-1] + 1))
    assert sum(a != b for a, b in pairs) == row[-1]


def test_a_reading_report_worked_out_by_hand() -> None:
    """Five words in 30 s, one left out, one changed, one put in."""
    found = reading.compare([*"abcde"], [*"aabxd"], 30.0)
    assert found["correct_words"] == 3
    assert found["words_correct_per_minute"] == 6.0
    assert found["accuracy"] == 0.6
    assert found["word_error_rate"] == 0.6
    assert found["omissions"] == ["e"]
    assert found["insertions"] == ["a"]
    assert found["substitutions"] == ["c -> x"]


BEST = {
    "articulation_rate": 6.0,
    "silent_pauses_per_minute": 5.0,
    "mean_silent_pause_s": 0.25,
    "repairs_per_minute": 0.0,
}
WORST = {
    "articulation_rate": 0.5,
    "silent_pauses_per_minute": 90.0,
    "mean_silent_pause_s": 4.0,
    "repairs_per_minute": 60.0,
}


def test_the_score_runs_from_0_to_100() -> None:
    """The best of everything is 100, the worst 0, in each sub-score too."""
    scores = ScoreMap.load()
    assert asdict(scores.score(BEST)) == dict.fromkeys(
        ("fluency", "speed", "breakdown", "repair"), 100.0
    )
    assert asdict(scores.score(WORST)) == dict.fromkeys(
        ("fluency", "speed", "breakdown", "repair"), 0.0
    )


@given(
    st.fixed_dictionaries({name: st.floats(0, 100) for name in BEST}),
    st.sampled_from(sorted(BEST)),
    st.floats(0, 50),
)
def test_the_score_is_monotonic(values: dict[str, float], name: str, more: float) -> None:
    """More speed never costs, more pauses or repairs never pay."""
    scores = ScoreMap.load()
    before, after = scores.score(values), scores.score({**values, name: values[name] + more})
    assert before.fluency is not None
    assert after.fluency is not None
    if name == "articulation_rate":
        assert after.fluency >= before.fluency
    else:
        assert after.fluency <= before.fluency


def test_what_is_unknown_is_left_out_of_the_score() -> None:
    """A missing measure does not count as 0; nothing at all has no score."""
    scores = ScoreMap.load()
    partial: dict[str, Any] = {**BEST, "repairs_per_minute": None}
    assert scores.score(partial).fluency == 100
    assert scores.score(partial).repair is None
    assert scores.score({}).fluency is None


def test_the_map_weights_by_published_correlations() -> None:
    """Speed and pause frequency about .6, pause duration .46, repair .20, each with its source."""
    measures = ScoreMap.load().measures
    weights = {name: entry["weight"] for name, entry in measures.items()}
    assert 0.59 <= weights["articulation_rate"] <= 0.62
    assert 0.59 <= weights["silent_pauses_per_minute"] <= 0.62
    assert weights["mean_silent_pause_s"] == 0.46
    assert weights["repairs_per_minute"] == 0.20
    for entry in measures.values():
        xs = [x for x, _ in entry["points"]]
        assert xs == sorted(xs)
        assert entry["source"]


def test_a_value_beyond_the_map_is_held() -> None:
    """The first and the last point hold beyond the ends."""
    assert ScoreMap.load().points("articulation_rate", 0.0) == 0
    assert ScoreMap.load().points("articulation_rate", 99.0) == 100
