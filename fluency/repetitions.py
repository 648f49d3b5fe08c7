"""Whether words that stand twice are a repetition, or grammar, emphasis, a name or a number.

Most doubles that are no slip of the speaker are of few kinds, and each language has its own: German
"die, die", French "nous nous", the reduplication of Hindi, Turkish, Korean or Indonesian; "New
York, New York", spoken digits, "ja ja". What decides is the language, a pause or a filler between
the two, and the punctuation. Where that is not enough, it is no repetition: a wrong one counts
against the speaker.

Function words are doubled by hesitation far more often than others (H. H. Clark & T. Wasow 1998,
"Repeating words in spontaneous speech", Cognitive Psychology 37).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import spoken_forms

PAUSE_S: Final = 0.25  # de Jong & Bosker 2013


@dataclass(frozen=True)
class Double:
    """A phrase, and what stands between it and the same phrase again.

    plain: its words, in lower case; capitals: whether each word of the second one begins with a
    capital; gap_s: the silence between; clause_end, sentence_end: the punctuation between;
    following: the word after the second one; before: the word before the first one; both "" at an
    end.
    """

    plain: Sequence[str]
    capitals: Sequence[bool]
    gap_s: float
    has_filler: bool
    clause_end: bool
    sentence_end: bool
    before: str
    following: str


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TABLES: Final[dict[str, Any]] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
_INTENDED: Final = _words(_TABLES["intended"])
_DOUBLED: Final = {language: _words(text) for language, text in _TABLES["doubled"].items()}
_FUNCTION: Final = {language: _words(text) for language, text in _TABLES["function"].items()}
_REDUPLICATING: Final = _words(_TABLES["reduplicating"])


def is_repetition(double: Double, language: str) -> bool:
    """Whether the first of two equal phrases is a repetition. language: ISO 639-1."""
    if double.sentence_end or _are_numbers(double.plain, language):
        return False
    if double.has_filler:
        return True
    if set(double.plain) <= _INTENDED:
        return False
    if double.gap_s >= PAUSE_S and not double.clause_end:
        return True
    function = _FUNCTION.get(language, frozenset())
    repeats = _word_repeats if len(double.plain) == 1 else _phrase_repeats
    return repeats(double, language, function)


def _phrase_repeats(double: Double, language: str, function: frozenset[str]) -> bool:
    first, last = double.plain[0], double.plain[-1]
    if len(set(double.plain)) == 1:
        return False  # "धीरे धीरे धीरे धीरे": judged word by word
    if (double.following == first and last in function and first not in function) or (
        double.before == last and first in function and last not in function
    ):
        return False  # "again and again and again"
    if double.clause_end:  # "let it snow, let it snow"; but "in the, in the house"
        return last in function
    return not all(double.capitals) or language == "de"  # "New York New York"


def _word_repeats(double: Double, language: str, function: frozenset[str]) -> bool:
    word = double.plain[0]
    if word in _DOUBLED.get(language, frozenset()):
        return False
    if word in function:
        return True
    if not function or language in _REDUPLICATING or double.clause_end:
        return False
    is_name = double.capitals[0] and language != "de"  # "Bora Bora"
    return not is_name and word not in (double.before, double.following)  # "go go go"


def _are_numbers(plain: Sequence[str], language: str) -> bool:
    """Figures, names of numbers, or letters: somebody spells."""
    return all(
        word.isdigit()
        or word in _number_names(language)
        or (len(word) == 1 and word.isalpha() and word not in _FUNCTION.get(language, ()))
        for word in plain
    )


@lru_cache(maxsize=128)
def _number_names(language: str) -> frozenset[str]:
    values = [*range(21), *range(30, 101, 10)]
    return frozenset().union(*(spoken_forms.readings(str(value), language) for value in values))
