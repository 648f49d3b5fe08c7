"""Hesitations that Whisper leaves out are put back; sounds that are none do not become any."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import disfluency
import hesitations
import made_audio
import numpy as np
import pitch
import pytest
import report
import torch
from asr import Transcript
from decoding import Decoded
from fillers import filled_pauses
from pauses import Interval
from score import ScoreMap
from test_measures import HEARD, words

# Of cold.flac, aligned by hand.
SAID_S = [
    (3.32, 3.78), (6.52, 7.11), (11.8, 12.18), (14.57, 15.16), (19.82, 20.25), (20.71, 20.9),
]  # fmt: skip
TEXTS = ["<no>", " um", " uh", " Um", ",", ".", " corpus", " I", "ly"]


class Words:
    """A tokenizer of the words above; a text that is none of them has two tokens."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [TEXTS.index(text)] if text in TEXTS else [0, 0]

    def decode(self, tokens: list[int]) -> str:
        return "".join(TEXTS[token] for token in tokens)


def test_hesitations_in_running_speech_are_found(
    answer_of: Callable[[str], Any], golden: Path
) -> None:
    """Of six that were marked by hand at least five, and none where there is none.

    The words beside them are those that Whisper wrote.
    """
    answer = answer_of("cold.flac")
    found = [(one["start"], one["end"]) for one in answer.filled_pauses]
    right = [
        any(start < end_s and start_s < end for start, end in found) for start_s, end_s in SAID_S
    ]
    assert sum(right) >= 5, found
    assert len(found) <= sum(right), found
    assert {one["text"] for one in answer.filled_pauses} <= {"um", "uh", ""}
    assert "acoustic corpus" in answer.transcript
    assert "that should be good" in answer.transcript


@pytest.mark.parametrize(
    ("text", "chances", "expected"),
    [
        (" I", {0: 0.6}, " um, I"),
        (" I", {0: 0.4}, " I"),
        (" corpus. I", {1: 0.7}, " corpus. um, I"),  # heard before the full stop
        (" corpus. I", {2: 0.7}, " corpus. um, I"),
        (" corpusly", {1: 0.9}, " corpusly"),  # inside a word
        (" I", {1: 0.9}, " I um,"),
        (" um I", {0: 0.9, 1: 0.9}, " um I"),  # one is there
        (" um, I", {2: 0.9}, " um, I"),
    ],
)
def test_a_hesitation_stands_before_the_word(
    text: str, chances: dict[int, float], expected: str
) -> None:
    """Half a chance is enough; behind punctuation, in no word, not twice."""
    tokens = []
    while text:
        token = next(k for k, known in enumerate(TEXTS) if text.startswith(known))
        tokens.append(token)
        text = text.removeprefix(TEXTS[token])
    rows = torch.zeros(len(tokens) + 1, len(TEXTS))
    for row, chance in chances.items():
        rows[row, 1] = chance
    own = Decoded(tokens, [0.9] * len(tokens), finished=True)
    made = hesitations._with_sounds(own, rows, Words(), "en")
    assert Words().decode(made.tokens) == expected
    assert len(made.probabilities) == len(made.tokens)
    assert own.tokens == tokens


def test_other_languages_stay_as_they_are() -> None:
    """A prompt in English would change them."""

    class Model:
        class generation_config:  # noqa: N801
            prev_sot_token_id = 7

    own = [Decoded([6], [0.9]), Decoded()]
    tasks = [("de", [0]), ("en", [0])]
    made = hesitations.restore(Model(), Words(), torch.zeros(2, 1, 1), tasks, own)
    assert made == own


def test_weights_without_a_token_for_a_prompt() -> None:
    """Where the tokenizer has none either: the text stays as it is."""

    class Model:
        class generation_config:  # noqa: N801
            prev_sot_token_id = None

    own = [Decoded([6], [0.9])]
    assert hesitations.restore(Model(), Words(), torch.zeros(2, 1, 1), [("en", [0])], own) == own


def test_the_end_of_a_drawn_out_word_is_no_filler() -> None:
    """ "Montreaaal": the same vowel counts when it begins by itself."""
    nuclei_s = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.2])
    held, other = made_audio.vowel(0.5), made_audio.vowel(0.3, 150.0)
    for gap_s, count in ((0.1, 1), (0.0, 0)):
        samples = np.concatenate([other, made_audio.silence(gap_s), held, made_audio.silence(0.5)])
        tone = pitch.track(samples)
        if not gap_s:  # the word's own edges are soft: its voice goes on
            tone.voiced[: int(0.8 / pitch.HOP_S)] = True
        everywhere = np.ones(len(samples) // 160 + 1, bool)
        found = filled_pauses(samples, tone, everywhere, nuclei_s)
        assert sum(one.start_s > 0.28 for one in found) == count, gap_s


@pytest.mark.parametrize(
    ("formants", "count"),
    [
        (((700, 90, 1.0), (1200, 110, 0.5), (2500, 150, 0.2)), 1),
        (((280, 60, 1.0), (2250, 150, 0.5), (2900, 200, 0.4)), 0),  # [i]
        (((480, 80, 1.0), (1900, 150, 0.4), (2600, 200, 0.2)), 1),  # [e], a filler in Spanish
    ],
)
def test_an_i_is_no_filler(formants: Any, count: int) -> None:
    """ "be" before a pause is held as long as "uh"; no language hesitates with [i]."""
    sound = made_audio.vowel(0.4, formants=formants)
    samples = np.concatenate([made_audio.silence(0.5), sound, made_audio.silence(0.5)])
    sounding = np.zeros(len(samples) // 160 + 1, bool)
    sounding[50:90] = True
    found = filled_pauses(samples, pitch.track(samples), sounding, np.array([0.6]))
    assert len(found) == count


def test_a_vowel_that_begins_in_a_word_belongs_to_it() -> None:
    """Whisper ends "be" before its vowel has ended."""
    said = words(("to", 0.0, 0.2), ("be", 0.2, 0.5), ("forced", 1.5, 1.8))
    kinds = disfluency.classify([word.text for word in said])
    assert report.merge_fillers([Interval(0.33, 0.75)], said, kinds) == []
    assert len(report.merge_fillers([Interval(0.45, 0.85)], said, kinds)) == 1


def test_where_a_pause_stands_does_not_depend_on_hesitations() -> None:
    """ "home um, (pause) to" is within a clause, although a comma stands before the pause."""
    said = words(("home", 2.0, 2.9), ("um,", 4.4, 4.9), ("to", 6.0, 6.2))
    answer = report.compose(
        HEARD,
        Transcript(said, "en", 1.0, []),
        duration_s=8.0,
        pause_threshold_s=0.25,
        reference=None,
        scores=ScoreMap.load(),
        model="hand",
    )
    assert [pause["position"] for pause in answer.pauses] == ["within", "within"]
    assert [filler["text"] for filler in answer.filled_pauses] == ["", "um"]
