"""Prompts longer than a text encoder takes: in pieces, and cut where even those are too many."""

import copy
import re
from collections.abc import Callable
from typing import TypeVar

MOST_PIECES = 8
"""Pieces of 75 tokens that a ControlNet preset is given: 600 tokens, about 450 English words. Every
piece makes each step slower."""

Tokenizer = TypeVar("Tokenizer")


def for_counting(tokenizer: Tokenizer) -> Tokenizer:
    """A copy to count tokens with while another thread encodes with the original.

    transformers sets padding and truncation on the tokenizer and then encodes, in two steps without
    a lock: a count between them takes the padding away, and the prompt gets a wrong embedding.
    """
    return copy.deepcopy(tokenizer)


def pieces(text: str, tokens: Callable[[str], int], room: int) -> list[str]:
    """`text` in pieces of at most `room` tokens, cut between words if possible; at least one.

    tokens: how many tokens a text has. Words are tokenised independently of each other.
    """
    found, used = [""], 0
    for word in re.findall(r"\s*\S+", text):
        for part in _parts(word, tokens, room):
            needed = tokens(part)
            if used + needed > room:
                found.append("")
                used = 0
            found[-1] += part
            used += needed
    return [piece.strip() for piece in found]


def _parts(word: str, tokens: Callable[[str], int], room: int) -> list[str]:
    """`word` whole if it fits, else in halves that do: a text without spaces, a row of emoji."""
    if len(word) < 2 or tokens(word) <= room:
        return [word]
    middle = len(word) // 2
    return _parts(word[:middle], tokens, room) + _parts(word[middle:], tokens, room)


def longest_start(text: str, fits: Callable[[str], bool]) -> str:
    """The longest start of `text` that fits, cut between words if it has any."""
    if fits(text):
        return text
    low, high = 0, len(text)  # text[:low] fits, text[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle)
    start = text[:low]
    whole_words, space, _ = start.rpartition(" ")
    return (whole_words if space and not text[low].isspace() else start).strip()
