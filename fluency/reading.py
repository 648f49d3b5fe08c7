"""Compares a reading aloud with its text: correct, omitted, inserted and substituted words.

Words correct per minute is the measure of oral reading fluency (Hasbrouck &
Tindal 2006, "Oral reading fluency norms", The Reading Teacher 59).
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from disfluency import normalise
from errors import InvalidInput
from measures import per_minute
from outputs import Reading

MAX_REFERENCE_WORDS: Final = 3000  # more than anyone reads in ten minutes


def words_of(text: str) -> list[str]:
    """Words for comparison: lower case, without punctuation, split at hyphens.

    >>> words_of("Ill-disposed, he said.")
    ['ill', 'disposed', 'he', 'said']
    """
    return [plain for part in re.split(r"[\s\-–—]+", text) if (plain := normalise(part))]


def reference_words(text: str) -> list[str]:
    """The words of a reference text.

    Raises InvalidInput when it holds no word, or more than 3000.
    """
    words = words_of(text)
    if not words:
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


def compare(expected: Sequence[str], said: Sequence[str], total_time_s: float) -> Reading:
    """The comparison. expected must not be empty."""
    pairs = align(expected, said)
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
