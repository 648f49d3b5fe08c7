"""Compares a reading aloud with its text: correct, omitted, inserted and substituted words.

Words correct per minute is the measure of oral reading fluency (Hasbrouck &
Tindal 2006, "Oral reading fluency norms", The Reading Teacher 59).
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import spoken_forms
from disfluency import normalise
from errors import InvalidInput
from measures import per_minute
from outputs import Reading
from spoken_forms import joined

MAX_REFERENCE_WORDS: Final = 3000  # more than anyone reads in ten minutes
_SIGNS: Final = frozenset("$€£¥₹%°&+=@")
_AROUND: Final = "\"'”’“‘»«›‹„‚」「』『】【）（)(][〉〈》《.,;:!?…。，！？؟،।*_"
# "$5 million" is said "five million dollars", "10.30 Uhr" "zehn Uhr dreißig"; "10 000" is one.
_AMOUNT: Final = re.compile(
    r"([$€£¥₹]\d[\d.,]*|\d\d?[:.]\d\d(?=\s+Uhr))\s+(million|billion|trillion|thousand|hundred|Uhr)\b"
)
_GERMAN_ORDINAL: Final = re.compile(r"\d{1,4}\.")
_GROUPED: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)")
_DASH: Final = re.compile(r"[–—](?!\d)|(?<!\d)[–—]")
_AROUND_GAP: Final = 3
_MOST_CELLS: Final = 40_000  # of a stretch that differs
_MOST_WAYS: Final = 400
_LONGEST_BLOCK: Final = 10  # "one thousand nine hundred and eighty four" has seven


def words_of(text: str) -> list[str]:
    """Words for comparison: lower case, without punctuation, split at hyphens.

    >>> words_of("Ill-disposed, he said.")
    ['ill', 'disposed', 'he', 'said']
    """
    return [plain for part in re.split(r"[\s\-–—]+", text) if (plain := normalise(part))]


def tokens_of(text: str) -> list[str]:
    """Words as they are written, for `compare`: a number, an amount or a sign is one.

    Punctuation around a word is dropped, and a word without figures is split at its hyphens.

    >>> tokens_of("Ill-disposed, he paid $5 million (50%).")
    ['Ill', 'disposed', 'he', 'paid', '$5 million', '50%']
    """
    text = _GROUPED.sub(lambda number: re.sub(r"\s", "", number[0]), _DASH.sub(" ", text))
    text = _AMOUNT.sub("\\1\u2060\\2", text)
    found = []
    for part in text.split():
        word = part.replace("\u2060", " ").lstrip(_AROUND)
        word = word if _GERMAN_ORDINAL.fullmatch(word) else word.strip(_AROUND)
        if any(character.isdigit() for character in word) or word in _SIGNS:
            found.append(word)
        else:
            pieces = (piece.strip(_AROUND) for piece in re.split(r"[\-–—]+", part))
            found += [piece for piece in pieces if normalise(piece)]
    return found


def plain(token: str) -> str:
    """What two tokens are compared by: lower case, without punctuation, with signs of money."""
    return normalise(token) if set(token).isdisjoint(_SIGNS) else token.lower()


def reference_words(text: str) -> list[str]:
    """The tokens of a reference text.

    Raises InvalidInput when it holds no word, or more than 3000.
    """
    words = tokens_of(text)
    if not any(normalise(word) for word in words):
        raise InvalidInput("Cannot compare: 'reference_text' must hold words, got none")
    if len(words) > MAX_REFERENCE_WORDS:
        raise InvalidInput(
            f"Cannot compare: 'reference_text' must have at most {MAX_REFERENCE_WORDS} words, "
            f"got {len(words)}"
        )
    return words


def align(expected: Sequence[str], said: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """The cheapest pairing of two word lists: (expected, said), None for a missing partner.

    Levenshtein distance with unit costs. Returns pairs in reading order.
    """
    rows, columns = len(expected), len(said)
    cost = np.zeros((rows + 1, columns + 1), np.int32)
    cost[0] = np.arange(columns + 1)
    spoken = np.array(said, dtype=object)
    for row in range(1, rows + 1):
        differs = (spoken != expected[row - 1]).astype(np.int32)
        best = np.minimum(cost[row - 1, :-1] + differs, cost[row - 1, 1:] + 1)
        # An insertion costs 1 per column: subtract that slope, then take the running minimum.
        line = np.concatenate(([row], best)) - np.arange(columns + 1)
        cost[row] = np.minimum.accumulate(line) + np.arange(columns + 1)
    pairs: list[tuple[str | None, str | None]] = []
    row, column = rows, columns
    while row or column:
        same = bool(row and column) and expected[row - 1] == said[column - 1]
        if row and column and cost[row, column] == cost[row - 1, column - 1] + (not same):
            row, column = row - 1, column - 1
            pairs.append((expected[row], said[column]))
        elif row and cost[row, column] == cost[row - 1, column] + 1:
            row -= 1
            pairs.append((expected[row], None))
        else:
            column -= 1
            pairs.append((None, said[column]))
    return pairs[::-1]


def compare(
    expected: Sequence[str], said: Sequence[str], total_time_s: float, language: str = "en"
) -> Reading:
    """The comparison of tokens. expected must not be empty; language: ISO 639-1."""
    pairs = same_readings(expected, said, language)
    correct = sum(a == b for a, b in pairs)
    omitted = [a for a, b in pairs if a is not None and b is None]
    inserted = [b for a, b in pairs if a is None and b is not None]
    changed = [f"{a} -> {b}" for a, b in pairs if a is not None and b is not None and a != b]
    errors = len(omitted) + len(inserted) + len(changed)
    return Reading(
        reference_words=len(expected),
        correct_words=correct,
        words_correct_per_minute=round(per_minute(correct, total_time_s) or 0.0, 1),
        accuracy=round(correct / len(expected), 4),
        word_error_rate=round(errors / len(expected), 4),
        omissions=omitted,
        insertions=inserted,
        substitutions=changed,
    )


def same_readings(
    expected: Sequence[str], said: Sequence[str], language: str
) -> list[tuple[str | None, str | None]]:
    """The alignment, in which "1984" and "nineteen eighty-four" are the same.

    Where the words differ, and three words around, stretches that can be said alike are paired:
    the pair of each of their words is the expected word twice.
    """
    pairs = align([plain(token) for token in expected], [plain(token) for token in said])
    made: list[tuple[str | None, str | None]] = []
    read = heard = 0
    for first, last, differs in _stretches([a == b for a, b in pairs]):
        part = pairs[first:last]
        rows = sum(a is not None for a, _ in part)
        columns = sum(b is not None for _, b in part)
        if differs and rows and columns and rows * columns <= _MOST_CELLS:
            some = expected[read : read + rows]
            part = _gap(some, said[heard : heard + columns], language) or part
        made += part
        read, heard = read + rows, heard + columns
    return made


def _stretches(equal: Sequence[bool]) -> Iterator[tuple[int, int, bool]]:
    """Stretches of pairs in order, (first, one past the last, whether some differ)."""
    near = np.convolve(~np.array(equal, bool), np.ones(2 * _AROUND_GAP + 1), mode="same") > 0
    edges = [0, *(np.flatnonzero(np.diff(near)) + 1).tolist(), len(near)]
    for first, last in pairwise(edges):
        if last > first:
            yield first, last, bool(near[first])


def _gap(
    expected: Sequence[str], said: Sequence[str], language: str
) -> list[tuple[str | None, str | None]] | None:
    """The cheapest alignment with blocks that can be said alike; None where there is no block."""
    blocks = _blocks(expected, said, language)
    if not blocks:
        return None
    mine, theirs = [plain(token) for token in expected], [plain(token) for token in said]
    rows, columns = len(mine), len(theirs)
    cost = np.full((rows + 1, columns + 1), rows + columns, np.int32)
    back: dict[tuple[int, int], tuple[int, int]] = {}
    cost[0, 0] = 0
    for row in range(rows + 1):
        for column in range(columns + 1):
            steps = [(row + 1, column + 1), (row + 1, column), (row, column + 1)]
            steps += blocks.get((row, column), [])
            for index, (down, across) in enumerate(steps):
                if down > rows or across > columns:
                    continue
                free = index > 2 or (index == 0 and mine[row] == theirs[column])
                price = int(cost[row, column]) + (not free)
                if price < cost[down, across] or (down, across) not in back:
                    cost[down, across] = price
                    back[down, across] = (row, column)
    pairs: list[tuple[str | None, str | None]] = []
    row, column = rows, columns
    while (row, column) != (0, 0):
        above, left = back[row, column]
        if (row, column) in blocks.get((above, left), []):
            pairs += [(word, word) for word in mine[above:row][::-1]]
        else:
            word = mine[above] if above < row else None
            pairs.append((word, theirs[left] if left < column else None))
        row, column = above, left
    return pairs[::-1]


def _blocks(
    expected: Sequence[str], said: Sequence[str], language: str
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """From where to where both sides can be said alike: (row, column) to the ends of the blocks."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    known: dict[str, list[tuple[int, int]]] = {}
    for start, end, spoken in _spans(expected, language):
        known.setdefault(spoken, []).append((start, end))
    for left, right, spoken in _spans(said, language):
        for start, end in known.get(spoken, []):
            if (end - start, right - left) != (1, 1) or expected[start] != said[left]:
                found.setdefault((start, left), []).append((end, right))
    return found


def _spans(tokens: Sequence[str], language: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, one way to say these tokens), for stretches of up to ten."""
    ways = [
        [joined(token), *spoken_forms.readings(token, language)][:_MOST_WAYS] for token in tokens
    ]
    for start in range(len(tokens)):
        spoken = [""]
        for end in range(start, min(start + _LONGEST_BLOCK, len(tokens))):
            spoken = [one + way for one in spoken for way in ways[end]]
            if len(spoken) > _MOST_WAYS:
                break
            yield from ((start, end + 1, one) for one in spoken if one)
