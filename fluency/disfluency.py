"""Finds fillers, repetitions and repairs in a transcript.

Source of the categories: W. J. M. Levelt (1983), "Monitoring and self-repair in speech", Cognition
14: reparandum, editing term, repair. Whisper leaves out most fillers and many restarts, so these
counts are a lower bound.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from repetitions import Double, is_repetition


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FLUENT, FILLER, REPETITION, REPAIR = "fluent", "filler", "repetition", "repair"

# Hesitation vowels and nasals in the languages of Clark & Fox Tree (2002), table 1, as Whisper
# spells them; words that are also answers or nouns ("ah", "este", "so") are left out.
FILLERS: Final = _words(
    """
    uh uhh uhm umm ummm err erm eh ehm hm hmm hmmm mm mmm mhm euh heu äh ähm öh öhm
    ehh ええと えっと えーと えー 嗯 呃 э ээ эм
    """
)
# Fillers that are ordinary words in other languages: German "er" and "um", Portuguese "um", "em".
FILLERS_OF: Final = {"en": _words("um er em"), "es": _words("em")}
EDITING_TERMS: Final = (
    ("i", "mean"),
    ("or", "rather"),
    ("sorry",),
    ("no", "wait"),
    ("let", "me", "rephrase"),
)
_LONGEST_PHRASE: Final = 4  # words
# Closing quotes and brackets, behind which a full stop or comma may hide. German closes with “ and
# «, Swedish with ”, Japanese with 」 and 』.
_CLOSERS: Final = "\"'”’“‘»«›‹」』】）)]〉》"
# Beyond Latin: Chinese and Japanese, Devanagari, Arabic, Urdu, Greek, Armenian, Ethiopic, Burmese,
# Khmer, Tibetan.
_SENTENCE_ENDS: Final = ".!?;:…" + "。．｡！？；：।॥؟؛۔·։።፧፤။។៕།"
_CLAUSE_ENDS: Final = _SENTENCE_ENDS + "," + "、､，،፣၊՝"


def normalise(word: str) -> str:
    """Lower case, without punctuation at the ends; inner apostrophes and hyphens stay.

    >>> normalise("“Don’t,")
    "don't"
    """
    plain = unicodedata.normalize("NFKC", word).replace("’", "'").lower()
    inside = [index for index, character in enumerate(plain) if character.isalnum()]
    if not inside:
        return ""
    end = inside[-1] + 1
    while end < len(plain) and unicodedata.category(plain[end]).startswith("M"):
        end += 1  # a vowel sign: "की" and "के" are two words
    return plain[inside[0] : end]


def is_cut_off(word: str) -> bool:
    """Whether a word is cut off, as transcripts write it: "hosp-" or "hosp—"."""
    return bool(re.search(r"\w[-–—]$", word.strip()))


def classify(
    words: Sequence[str],
    language: str = "en",
    *,
    is_spaced: bool = True,
    gaps_s: Sequence[float] = (),
) -> list[str]:
    """The kind of each word. Of two equal phrases the first is the repetition.

    language: ISO 639-1; it decides what is a filler and which doubles are grammar. gaps_s: the
    silence after each word, if it is known. Without spaces between words (is_spaced false) only
    fillers are found: the pieces of a transcript are characters there, and "妈妈" is one word.

    >>> classify(["I", "I", "went", "um", "home"])
    ['repetition', 'fluent', 'fluent', 'filler', 'fluent']
    """
    fillers = FILLERS | FILLERS_OF.get(language, frozenset())
    kinds = [FILLER if normalise(word) in fillers else FLUENT for word in words]
    if not is_spaced:
        return kinds
    kept = [index for index, kind in enumerate(kinds) if kind == FLUENT]
    plain = [normalise(words[index]) for index in kept]
    for index in kept:
        if is_cut_off(words[index]):
            kinds[index] = REPAIR
    for position in range(len(kept)):
        size = _repeated_at(words, kept, position, language, gaps_s)
        for index in kept[position : position + size]:
            if kinds[index] == FLUENT:
                kinds[index] = REPETITION
    for position in range(1, len(kept)):
        for term in EDITING_TERMS:
            if tuple(plain[position : position + len(term)]) == term and position + len(term) < len(
                kept
            ):
                if not _stands_apart(words, kept, position):
                    continue
                for index in kept[position : position + len(term)]:
                    kinds[index] = REPAIR
    return kinds


def _repeated_at(
    words: Sequence[str],
    kept: Sequence[int],
    position: int,
    language: str,
    gaps_s: Sequence[float],
) -> int:
    """How many of the kept words from this position on are repeated directly after; 0 for none."""
    nearby = range(max(position - 1, 0), min(position + 2 * _LONGEST_PHRASE + 1, len(kept)))
    plain = {index: normalise(words[kept[index]]) for index in nearby}
    for size in range(_LONGEST_PHRASE, 0, -1):
        middle, end = position + size, position + 2 * size
        if end > len(kept) or any(
            plain[index] != plain[index + size] for index in range(position, middle)
        ):
            continue
        last, following = kept[middle - 1], kept[middle]
        double = Double(
            plain=[plain[index] for index in range(position, middle)],
            capitals=[_is_capital(words[index]) for index in kept[middle:end]],
            gap_s=sum(gaps_s[last:following]),
            has_filler=following - last > 1,
            clause_end=_ends_with(words[last], _CLAUSE_ENDS + "–—"),
            # "I… I went": a hesitation, as Whisper writes it.
            sentence_end=_ends_with(words[last], _SENTENCE_ENDS)
            and not words[last].endswith(("…", "...")),
            before=plain.get(position - 1, ""),
            following=plain.get(end, ""),
        )
        if is_repetition(double, language):
            return size
    return 0


def _is_capital(word: str) -> bool:
    return next((character.isupper() for character in word if character.isalpha()), False)


def _stands_apart(words: Sequence[str], kept: Sequence[int], position: int) -> bool:
    """Whether punctuation separates the word from the one before, as for an editing term."""
    return _ends_with(words[kept[position - 1]], _CLAUSE_ENDS + "–—-")


def _ends_with(word: str, marks: str) -> bool:
    """Whether a word ends with one of these marks, or has one before its closing quotes."""
    return word.rstrip(_CLOSERS)[-1:] in set(marks)


def count(kinds: Sequence[str], wanted: str) -> int:
    """How many stretches of a kind there are: a repeated phrase of three words counts once."""
    return sum(
        1
        for index, kind in enumerate(kinds)
        if kind == wanted and (index == 0 or kinds[index - 1] != wanted)
    )


# Words that start a clause in English: a pause before one is between two clauses.
CLAUSE_OPENERS: Final = _words(
    """
    and but or so because although though while whereas if unless until when whenever where
    which who whom whose since after before as than then that whether
    """
)


def pause_position(before: str, after: str, language: str = "en") -> str:
    """Whether a pause between two words is "between" clauses or "within" one.

    Between, if the word before ends with punctuation or, in English, the word after starts a
    clause. It approximates the clause (AS-unit) boundaries that the literature marks by hand
    (Kahng 2018), and depends on Whisper's punctuation.
    """
    closes = _ends_with(before, _CLAUSE_ENDS)
    opens = language == "en" and normalise(after) in CLAUSE_OPENERS
    return "between" if closes or opens else "within"
