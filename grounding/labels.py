"""Parses `text_queries` into a list of labels."""

import json
import re
import unicodedata
from typing import NamedTuple

from errors import InvalidInput

MAX_LABELS = 2_000
"""More labels than any published vocabulary has classes (LVIS: 1,203)."""

# A period ends a label, as in "cat. dog." or "cat . dog .", unless it is a decimal point. So do the
# commas, semicolons and full stops of other scripts, and a slash between spaces.
_SEPARATORS = re.compile(r"[,;|•‣▪◦●■，、。；｜،؛।]|(?<!\d)\.|\.(?!\d)|\s[/·]\s")

# What begins an entry of a list: a bullet, a box to tick, a number.
_BULLET = re.compile(r"\s*(?:[-–—*+>]\s+|[•‣▪◦●■·・]\s*)?(?:\[[ xX]\]\s*)?")
_NUMBER = re.compile(
    r"\s*(?:\(?\d{1,4}[.)]\s+|\(\d{1,4}\)\s*|\d{1,4}[、．]\s*|[①-⑳]\s*|\(?[a-z]\)\s+)"
)
# "1. cat 2. dog": a list in one line, if it begins with its first number.
_FIRST_NUMBER = re.compile(r"\s*\(?1[.)]\s")
_NEXT_NUMBER = re.compile(r"\s\(?\d{1,4}[.)]\s+")

# Marks that the model reads as the end of a label ("." and "?" are tokens 1012 and 1029,
# hard-coded upstream), and the brackets of special tokens such as "[SEP]".
_MARKS = re.compile(r"[.?\[\]]")


class Label(NamedTuple):
    """One label to search for."""

    name: str
    """As the caller wrote it, except white space; the output has it."""
    text: str
    """As the model reads it: lower case, full-width letters as plain ones, without invisible
    characters and the marks that end a label."""


def parse_labels(text: str, default: str) -> list[Label]:
    """Split the input into labels.

    1. A text that starts with "[" is a JSON list of strings; each string is one label, whatever
       marks it holds.
    2. Otherwise labels end at commas, semicolons, bars, line breaks and periods, those of other
       scripts included; a period between two digits is a decimal point. Bullets and numbers in
       front of an entry are no part of it. This covers "cat, dog", one label a line, "cat . dog ."
       and "1. cat 2. dog".
    3. A blank text stands for `default`, read by the same rule.
    Labels that differ only in case, white space or marks are one label: the first stays.

    Raises InvalidInput when no label is left, there are more than MAX_LABELS, or the JSON is not
    a list of strings.

    >>> [label.name for label in parse_labels("Cat . dog. cat,1.5 litre bottle", "")]
    ['Cat', 'dog', '1.5 litre bottle']
    """
    source = text if text.strip() else default
    parts = _from_json(source) if source.lstrip().startswith("[") else _split(source)
    found: dict[str, Label] = {}
    for part in parts:
        label = Label(_tidy(part), _as_read(part))
        if any(unicodedata.category(sign)[0] not in "PZ" for sign in label.text):
            found.setdefault(label.text, label)
    if not found:
        raise InvalidInput("Cannot search: 'text_queries' must name at least one thing, got none")
    if len(found) > MAX_LABELS:
        raise InvalidInput(
            f"Cannot search: 'text_queries' must hold at most {MAX_LABELS} labels, got {len(found)}"
        )
    return list(found.values())


def _split(text: str) -> list[str]:
    parts = []
    for line in text.splitlines():
        for entry in _NEXT_NUMBER.split(line) if _FIRST_NUMBER.match(line) else [line]:
            bare = _without(_NUMBER, _without(_BULLET, entry))
            parts += [_without(_BULLET, part) for part in _SEPARATORS.split(bare)]
    return parts


def _without(beginning: re.Pattern[str], text: str) -> str:
    return text[found.end() :] if (found := beginning.match(text)) else text


def _from_json(text: str) -> list[str]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "Cannot search: 'text_queries' starts with '[' and must then be a JSON list of "
            "strings, got invalid JSON"
        ) from error
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InvalidInput(
            "Cannot search: 'text_queries' must be a JSON list of strings, "
            "got a list with something else in it"
        )
    return items


def _tidy(text: str) -> str:
    """Drop control and unpaired surrogate characters, squeeze white space."""
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return " ".join(kept.split())


def _as_read(text: str) -> str:
    visible = "".join(c for c in _tidy(text) if unicodedata.category(c) != "Cf")
    plain = unicodedata.normalize("NFKC", visible).lower()
    return " ".join(_MARKS.sub(" ", plain).split())
