"""A sentence said over and over: its words stay, and where they do not, the answer says so."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import beam_search
import decoding
import made_audio
import numpy as np
import pauses
import pytest
import spelling
from conftest import Samples
from decoding import Decoded

TIMES = 7


def drill(samples: Samples) -> Samples:
    """The sentence seven times, with 0.6 s of silence after each."""
    return np.concatenate([samples, made_audio.silence(0.6)] * TIMES)


@pytest.mark.parametrize("name", ["mary.wav", "bobby.wav", "austen-0930.wav"])
def test_a_drill_keeps_its_words(
    recording: Callable[[str], Samples],
    measure: Callable[..., Any],
    tmp_path: Path,
    name: str,
    transcripts: dict[str, str],
) -> None:
    """Of seven times the same sentence at least nine tenths of the words are in the transcript."""
    path = made_audio.write_wav(tmp_path / "drill.wav", drill(recording(name)))
    answer = measure(path, language="en")
    expected = TIMES * len(transcripts[name].split())
    assert 0.9 * expected <= len(answer.words) <= 1.1 * expected, answer.transcript
    assert answer.warnings == []


def test_lost_words_are_said(
    recording: Callable[[str], Samples],
    measure: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """A recogniser that writes a window's first words only: the answer has a warning."""

    def lazy(real: Callable[..., list[Decoded]], *given: Any, **options: Any) -> list[Decoded]:
        made = real(*given, **options)
        for one in made:
            del one.tokens[3:], one.probabilities[3:]
        return made

    monkeypatch.setattr(decoding, "decode", partial(lazy, decoding.decode))
    monkeypatch.setattr(beam_search, "search", partial(lazy, beam_search.search))
    path = made_audio.write_wav(tmp_path / "drill.wav", drill(recording("austen-0930.wav")))
    assert any("some are missing" in warning for warning in measure(path, language="en").warnings)


def test_room_for_a_phrase_as_often_as_it_is_heard() -> None:
    """Forty syllables have room for a phrase of three tokens, twenty times; not for a hundred."""
    result = Decoded(room=decoding.room_for(40))
    for token in [1, 2, 3] * 20:
        decoding._take(result, token, 0.9, end=9)
    assert not result.looped
    assert len(result.tokens) == 60
    for token in [1, 2, 3] * 80:
        decoding._take(result, token, 0.9, end=9)
    assert result.looped
    assert result.tokens == [1, 2, 3]


def test_phrases_do_not_depend_on_the_pause_threshold() -> None:
    """Cut at 0.25 s; a stretch of more than 28 s at the shorter gaps in it, too."""
    mask = np.ones(4_000, bool)
    mask[100:124] = False  # 0.24 s
    mask[200:230] = False
    found = pauses.phrases(mask)
    assert [one.start_s for one in found] == pytest.approx([0.0, 2.3])
    assert found[1].end_s == pytest.approx(40.0)
    mask[1_500:1_515] = False
    assert [one.start_s for one in pauses.phrases(mask)] == pytest.approx([0.0, 2.3, 15.15])


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("Mary had a little lamb", "en", 7),
        ("the table moved and wanted more apples", "en", 10),
        ("Je mange une pomme avec elles", "fr", 7),
        ("Вчера вечером он уехал", "ru", 9),
        ("안녕하세요", "ko", 5),
        ("今日は", "ja", 3),
        ("你好", "zh", 2),
        ("שלום", "he", None),
        ("1984", "en", 5),
        ("1984", "xx", 6),
    ],
)
def test_syllables_by_spelling(text: str, language: str, count: int | None) -> None:
    """As a speaker counts them; unknown where the script does not write its vowels."""
    assert spelling.syllables(text.split(), language) == count


def test_spelling_agrees_with_a_count_by_hand(transcripts: dict[str, str]) -> None:
    """99 syllables in the five LibriVox clips, within 5 %."""
    words = [
        word
        for name, text in transcripts.items()
        if name.startswith("austen")
        for word in text.split()
    ]
    assert spelling.syllables(words, "en") == pytest.approx(99, rel=0.05)
