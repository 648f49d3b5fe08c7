"""Speech of a known text at known speeds: every rate moves as it should."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import acoustics
import made_audio
import numpy as np
import pytest
from conftest import Samples
from vad import SileroVad

Measure = Callable[..., Any]
PARTS = (
    "Yesterday I went to the market with my brother",
    "and we bought some bread",
    "some cheese and a bag of apples",
    "then we came home along the river",
    "because the weather was warm",
)


def spoken(
    words_per_minute: int, gap_s: float = 0.0, filler: str = "", count: int = len(PARTS)
) -> Samples:
    """The five parts; after the first `count` of them silence, or a filler within silence."""
    pieces = []
    for index, part in enumerate(PARTS):
        pieces.append(made_audio.trimmed(made_audio.say(part, words_per_minute)))
        if index < count:
            pieces.append(made_audio.silence(gap_s))
            if filler:
                said = made_audio.trimmed(made_audio.say(filler, words_per_minute))
                pieces += [said, made_audio.silence(gap_s)]
    return np.concatenate([made_audio.silence(0.5), *pieces, made_audio.silence(0.5)])


def measured(measure: Measure, tmp_path: Path, samples: Samples) -> Any:
    return measure(made_audio.write_wav(tmp_path / "a.wav", samples), transcribe=False)


@pytest.mark.parametrize("gap_s", [0.0, 0.5])
def test_faster_speech_has_higher_rates(measure: Measure, tmp_path: Path, gap_s: float) -> None:
    """From 90 to 210 words a minute: both rates and the speed score rise, the syllables shorten.

    The score rises too where there are no pauses. Pauses that stay as long come more often in
    faster speech, per minute of it.
    """
    speeds = (90, 120, 150, 180, 210)
    found = [measured(measure, tmp_path, spoken(speed, gap_s)) for speed in speeds]
    for slow, fast in pairwise(found):
        assert fast.articulation_rate > slow.articulation_rate
        assert fast.speech_rate > slow.speech_rate
        assert fast.mean_syllable_duration_s < slow.mean_syllable_duration_s
        assert fast.speed_score >= slow.speed_score
        assert fast.fluency_score >= slow.fluency_score or gap_s > 0
    assert found[-1].fluency_score > found[0].fluency_score


def test_longer_pauses_cost(measure: Measure, tmp_path: Path) -> None:
    """Gaps of 0.3 to 2 s: the articulation rate stays, speech rate, ratio and score fall."""
    found = [measured(measure, tmp_path, spoken(150, gap)) for gap in (0.3, 0.6, 1.0, 2.0)]
    assert [answer.silent_pause_count for answer in found] == [4] * 4
    for short, long in pairwise(found):
        assert long.articulation_rate == pytest.approx(short.articulation_rate, rel=0.05)
        assert long.speech_rate < short.speech_rate
        assert long.phonation_time_ratio < short.phonation_time_ratio
        assert long.mean_silent_pause_s > short.mean_silent_pause_s
        assert long.breakdown_score < short.breakdown_score
        assert long.fluency_score < short.fluency_score


def test_more_pauses_cost(measure: Measure, tmp_path: Path) -> None:
    """None to four pauses of 1 s: frequency up, length of run, speech rate and score down."""
    found = [measured(measure, tmp_path, spoken(150, 1.0, count=count)) for count in range(5)]
    assert [answer.silent_pause_count for answer in found] == [0, 1, 2, 3, 4]
    for few, many in pairwise(found):
        assert many.silent_pauses_per_minute > few.silent_pauses_per_minute
        assert many.mean_length_of_run < few.mean_length_of_run
        assert many.phonation_time_ratio < few.phonation_time_ratio
        assert many.speech_rate < few.speech_rate
        assert many.fluency_score < few.fluency_score
    assert found[4].breakdown_score < found[0].breakdown_score


@pytest.mark.parametrize("filler", ["um", "er"])
def test_fillers_are_counted_and_cost(measure: Measure, tmp_path: Path, filler: str) -> None:
    """None to four of them, each between two silences: each found; repair and score fall."""
    found = []
    for count in range(5):
        found.append(measured(measure, tmp_path, spoken(140, 0.4, filler, count)))
    assert [answer.filled_pause_count for answer in found] == [0, 1, 2, 3, 4]
    for few, many in pairwise(found):
        assert many.filled_pauses_per_minute > few.filled_pauses_per_minute
        assert many.repair_score < few.repair_score
        assert many.fluency_score < few.fluency_score
        assert many.pruned_speech_rate < many.speech_rate
    assert {one["source"] for one in found[4].filled_pauses} == {"signal"}


@pytest.mark.parametrize("words_per_minute", [110, 130, 150])
@pytest.mark.parametrize("filler", ["um", "uh", "er", "erm"])
def test_a_spoken_filler_is_heard(vad: SileroVad, filler: str, words_per_minute: int) -> None:
    """What a synthesiser says for "um" between two silences: found from end to end, once."""
    gap = made_audio.silence(0.35)
    before, voice, after = (
        made_audio.trimmed(made_audio.say(text, words_per_minute))
        for text in (PARTS[0], filler, PARTS[3])
    )
    heard = acoustics.analyse(np.concatenate([gap, before, gap, voice, gap, after, gap]), vad, 0.25)
    assert heard is not None
    start = 0.7 + len(before) / 16_000
    assert [(f.start_s, f.end_s) for f in heard.fillers] == [
        pytest.approx((start, start + len(voice) / 16_000), abs=0.05)
    ]


@pytest.mark.parametrize("word", ["well", "now", "way", "yes", "rain", "talk"])
def test_a_word_that_stands_alone_is_no_filler(vad: SileroVad, word: str) -> None:
    """A glide, a diphthong or a consonant moves too much."""
    gap = made_audio.silence(0.35)
    parts = [made_audio.trimmed(made_audio.say(text, 150)) for text in (PARTS[0], word, PARTS[3])]
    sound = np.concatenate([piece for part in parts for piece in (gap, part)] + [gap])
    heard = acoustics.analyse(sound, vad, 0.25)
    assert heard is not None
    assert heard.fillers == []


def test_no_filler_is_heard_in_fluent_reading(
    recording: Callable[[str], Samples], vad: SileroVad, golden: Path
) -> None:
    """One false alarm at most in the 70 s of read speech."""
    found = 0
    for path in [*golden.glob("*.wav"), golden / "two_cities.flac"]:
        heard = acoustics.analyse(recording(path.name), vad, 0.25)
        assert heard is not None
        found += len(heard.fillers)
    assert found <= 1
