"""Which of COCO's 80 classes a label means; classes.json is the whole knowledge.

A label is read as one class by its name or a synonym ("sofa" is couch), as a wider class than was
asked ("puppy" is dog: any dog answers), or as several classes ("vehicle"). Anything else is not
known, adjectives included: the detector cannot tell a red car from a blue one.
"""

import json
import re
from pathlib import Path

_TABLE = json.loads((Path(__file__).parent / "classes.json").read_text())

NAMES: tuple[str, ...] = tuple(_TABLE["names"])
"""In COCO's order."""

_SMALL_WORDS = re.compile(
    r"^(?:(?:an?|the|some|any|all|every|each|this|that|these|those|my|your|his|her|our|their|"
    r"one|two|three|four|five|several|many) )+"
)

# "cat/dog" and "cats and dogs" are either.
_OR = re.compile(r"[/&+]|\b(?:and|or)\b")

# An ending and what it becomes in the singular, the longest first.
_PLURALS = (
    ("ives", "ife"),
    ("ves", "f"),
    ("ies", "y"),
    ("men", "man"),
    ("mice", "mouse"),
    ("es", ""),
    ("s", ""),
)


def _key(text: str) -> str:
    """Letters and digits only, without small words in front: "hot-dog" and "a hotdog" are one."""
    text = re.sub(r"[\W_]+", " ", text.lower().replace("'s ", " ")).strip()
    return _SMALL_WORDS.sub("", text).replace(" ", "")


def _index() -> dict[str, tuple[int, ...]]:
    """Key to classes. A name or a synonym counts before a kind, a kind before a group."""
    found: dict[str, tuple[int, ...]] = {}
    for name, words in _TABLE["same"].items():
        for word in (name, *words):
            found[_key(word)] = (NAMES.index(name),)
    for name, words in _TABLE["kinds"].items():
        for word in words:
            found.setdefault(_key(word), (NAMES.index(name),))
    for word, names in _TABLE["groups"].items():
        found.setdefault(_key(word), tuple(sorted(map(NAMES.index, names))))
    return found


_INDEX = _index()
_NEVER = frozenset(map(_key, _TABLE["never"]))
"""Plurals that are another thing than their singular."""


def classes_of(label: str) -> tuple[int, ...]:
    """Indices into NAMES of the classes that a label means; none if the label is not known.

    >>> [NAMES[index] for index in classes_of("a Sofa")]
    ['couch']
    >>> [NAMES[index] for index in classes_of("cat or dog")]
    ['cat', 'dog']
    >>> classes_of("red car")
    ()
    """
    if key := _key(label):
        found = _classes_of_key(key)
        alternatives = [text for text in _OR.split(label.lower()) if text.strip()]
        if found or len(alternatives) < 2:
            return found
        parts = [classes_of(text) for text in alternatives]
        return tuple(sorted(set().union(*parts))) if all(parts) else ()
    return ()


def _classes_of_key(key: str) -> tuple[int, ...]:
    if key in _NEVER:
        return ()
    if key in _INDEX:
        return _INDEX[key]
    for ending, singular in _PLURALS:
        stem = key.removesuffix(ending) + singular
        if key.endswith(ending) and len(stem) > 1 and stem in _INDEX:
            return _INDEX[stem]
    return ()
