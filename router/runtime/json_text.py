"""JSON that a client wrote: measured before it is parsed, then parsed once.

A parsed value takes more memory than its text: an empty list of 3 bytes takes 80. So the text is
bounded, and so is the number of values in it, which is counted without parsing.
"""

from __future__ import annotations

import msgspec

from router.domain.errors import PayloadTooLarge
from router.domain.prediction import Json

# Of a whole body without its long data: URIs, and of all text parts of a form together.
MAX_TEXT_BYTES = 1 << 20
# Each takes at most some 200 bytes, as a member of an object with a name of its own.
MAX_VALUES = 15_000
MAX_DEPTH = 100


def load_json(text: bytes | str) -> Json:
    """The value. Whole numbers are exact, however large: orjson would read 2**64 as a float.

    Raises PayloadTooLarge for a text over MAX_TEXT_BYTES or with over MAX_VALUES values, and
    ValueError for what is not JSON or is nested deeper than MAX_DEPTH.
    """
    encoded = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(encoded) > MAX_TEXT_BYTES:
        raise PayloadTooLarge(f"Cannot read the JSON: it exceeds {MAX_TEXT_BYTES} bytes of text")
    containers, commas = _count(encoded)
    if containers + commas >= MAX_VALUES:
        containers, commas = _count(_outside_strings(encoded))
        if containers + commas >= MAX_VALUES:
            raise PayloadTooLarge(f"Cannot read the JSON: it has over {MAX_VALUES} values")
    try:
        value = msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if containers > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    return value


def _count(text: bytes) -> tuple[int, int]:
    """How many brackets that open, and how many commas: with one more, no fewer than values."""
    return text.count(b"[") + text.count(b"{"), text.count(b",")


def _outside_strings(text: bytes) -> bytes:
    """What is not within a string; the text as it is where there are too many strings to look."""
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * MAX_VALUES:  # two for each string, and each value has one name
        return text
    return b"".join(bare.split(b'"')[::2])


def _depth(value: Json) -> int:
    """How many containers lie within each other at most. Without recursion."""
    depth = 0
    level = [value]
    while level := [v for v in level if isinstance(v, list | dict)]:
        depth += 1
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c)]
    return depth
