"""Converts form text to the type that a model's schema declares."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from router.errors import InvalidInput
from router.inputs.json_text import load_json
from router.prediction import Json

INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Possessive: otherwise a million digits before a letter would be tried in every split.
NUMBER = re.compile(r"[+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d+)?", re.ASCII)
# More digits than any double needs. Python reads no whole number of over 4300 digits.
MAX_NUMBER_CHARS = 2000
TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off"})
# For an input of several types, each type is tried in this order. Text comes last.
ORDER = ("integer", "number", "boolean", "array", "object")
SHOWN_CHARS = 80
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = SHOWN_CHARS


class Kind(NamedTuple):
    """A type of JSON schema, or `file`. `items`: the type of an array's items."""

    name: str
    items: str | None = None


def shown(value: object) -> str:
    """Return the value as a message may show it.

    A long value is cut before its repr is made, which could take ten times its memory.
    """
    return shortened(_SHORT.repr(value))


def shortened(text: str) -> str:
    """Return at most SHOWN_CHARS characters of the text."""
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def invalid(name: str, message: str) -> InvalidInput:
    """Return the error for one input."""
    name = shortened(name)
    return InvalidInput(
        f"Cannot use '{name}': {message}",
        details={"problems": [{"input": name, "message": message}]},
    )


def from_texts(name: str, kinds: tuple[Kind, ...], texts: list[str]) -> Json:
    """Return the value of one input, or None when the form left it blank.

    A list may come as repeated parts or as one JSON array. An input of several types gets the
    first type that the text fits. Raises InvalidInput when the text does not fit.
    """
    if len(kinds) == 1 and kinds[0].name != "array":
        if len(texts) > 1:
            raise invalid(name, f"must be given once, got {len(texts)}")
        return _CONVERT.get(kinds[0].name, _json)(name, texts[0])
    if len(kinds) == 1:
        return _list(name, kinds[0].items, texts)
    return _first_that_fits(name, kinds, texts)


def _list(name: str, items: str | None, texts: list[str]) -> Json:
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        return _json(name, texts[0])
    convert = _CONVERT.get(items or "string", _json)
    return [convert(name, t) for t in texts if t]


def _first_that_fits(name: str, kinds: tuple[Kind, ...], texts: list[str]) -> Json:
    names = {k.name for k in kinds}
    if not any(t.strip() for t in texts):
        return texts[0] if "string" in names else None
    for kind in sorted(kinds, key=lambda k: ORDER.index(k.name) if k.name in ORDER else len(ORDER)):
        try:
            if kind.name == "array" and (len(texts) > 1 or texts[0].lstrip().startswith("[")):
                return _list(name, kind.items, texts)
            if kind.name != "array" and len(texts) == 1:
                return _exactly(name, kind.name, texts[0])
        except InvalidInput:
            continue
    wanted = " or ".join(sorted(names))
    raise invalid(name, f"must be of type {wanted}, got {shown(texts[0])}")


def _exactly(name: str, kind: str, text: str) -> Json:
    """Convert as for an input of one type, but more strictly.

    1 or "on" is not a boolean, and a text is not an object. A number without a point is an
    integer, as in `cog run`.
    """
    if kind == "boolean" and text.strip().lower() not in ("true", "false"):
        raise invalid(name, "must be true or false")
    if kind == "number" and INTEGER.fullmatch(text.strip()):
        kind = "integer"
    value = _CONVERT.get(kind, _json)(name, text)
    if kind == "object" and not isinstance(value, dict):
        raise invalid(name, "must be an object")
    return value


def _text(name: str, text: str) -> str:
    return text


def _integer(name: str, text: str) -> int | None:
    if not (stripped := text.strip()):
        return None
    if len(stripped) > MAX_NUMBER_CHARS or not INTEGER.fullmatch(stripped):
        raise invalid(name, f"must be a whole number, got {shown(text)}")
    return int(stripped)


def _number(name: str, text: str) -> float | None:
    if not (stripped := text.strip()):
        return None
    fits = len(stripped) <= MAX_NUMBER_CHARS and NUMBER.fullmatch(stripped)
    value = float(stripped) if fits else math.nan
    if not math.isfinite(value):
        raise invalid(name, f"must be a number, got {shown(text)}")
    return value


def _boolean(name: str, text: str) -> bool | None:
    if not (stripped := text.strip().lower()):
        return None
    if stripped not in TRUE | FALSE:
        raise invalid(name, f"must be true or false, got {shown(text)}")
    return stripped in TRUE


def _json(name: str, text: str) -> Json:
    if not text.strip():
        return None
    try:
        return load_json(text)
    except ValueError as error:
        raise invalid(name, f"must be JSON, got {shown(text)}") from error


_CONVERT: Mapping[str, Callable[[str, str], Json]] = {
    "string": _text,
    "file": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
