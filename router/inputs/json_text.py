"""Reads JSON from a client. It is measured before it is parsed, then parsed once.

A parsed value takes more memory than its text: an empty list of 3 bytes takes 80. So the text has
a limit, and so has the number of values in it, which is counted without parsing.
"""

from __future__ import annotations

import re

import msgspec

from router.errors import PayloadTooLarge
from router.prediction import Json

# Limit for a whole body without its long data: URIs, and for all text parts of a form together.
MAX_TEXT_BYTES = 1 << 20
# Each takes at most about 200 bytes, when it is a member of an object and has its own name.
MAX_VALUES = 15_000
MAX_DEPTH = 100
# Python stores a text that has an emoji in it with four bytes for each of its characters.
MAX_WIDE_CHARS = 512 << 10
WIDE_ESCAPE = re.compile(rb"\\u[dD][89ABab]")
NOT_WIDE = bytes(b for b in range(256) if not 0xF0 <= b <= 0xF4)
CONTINUATION = bytes(range(0x80, 0xC0))


def load_json(text: bytes | str) -> Json:
    """Return the value. Whole numbers are exact, however large: orjson would read 2**64 as a float.

    Raises PayloadTooLarge when the text exceeds MAX_TEXT_BYTES, has over MAX_VALUES values, or has
    over MAX_WIDE_CHARS characters and one of them is wide. Raises ValueError when it is not JSON
    or is nested deeper than MAX_DEPTH.
    """
    if isinstance(text, str) and not (text.isascii() and "\\u" not in text):
        text = text.encode("utf-8", "surrogatepass")
    # A str is ASCII here. So its length is its size in bytes, it has no wide character, and no
    # copy of it is needed.
    if len(text) > MAX_TEXT_BYTES:
        raise PayloadTooLarge(f"Cannot read the JSON: it exceeds {MAX_TEXT_BYTES} bytes of text")
    if isinstance(text, bytes) and len(text) > MAX_WIDE_CHARS and wide_chars(text) > MAX_WIDE_CHARS:
        raise too_wide("the JSON")
    # Each value takes at least one character, so a short text need not be counted.
    if len(text) > MAX_VALUES and _has_too_many_values(text):
        raise PayloadTooLarge(f"Cannot read the JSON: it has over {MAX_VALUES} values")
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if len(text) > MAX_DEPTH and _count(text, "[{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    return value


def wide_chars(text: bytes | bytearray) -> int:
    """Return the number of characters, in UTF-8 or JSON, if one is beyond U+FFFF; else 0."""
    is_wide = not text.isascii() and text.translate(None, NOT_WIDE)
    if is_wide or (b"\\u" in text and WIDE_ESCAPE.search(text)):
        return len(text.translate(None, CONTINUATION))
    return 0


def too_wide(what: str) -> PayloadTooLarge:
    """Return the error for a text with too many characters, one of them beyond U+FFFF."""
    return PayloadTooLarge(
        f"Cannot read {what}: a text with emoji, or other characters beyond U+FFFF, "
        f"may have at most {MAX_WIDE_CHARS} characters"
    )


def _count(text: bytes | str, marks: str) -> int:
    if isinstance(text, str):
        return sum(text.count(mark) for mark in marks)
    return sum(text.count(mark.encode()) for mark in marks)


def _has_too_many_values(text: bytes | str) -> bool:
    return _values(text) > MAX_VALUES and _values(_outside_strings(text)) > MAX_VALUES


def _values(text: bytes | str) -> int:
    """Return the number of values or more.

    All values but the first come after a comma or an opening bracket.
    """
    return _count(text, "[{,") + 1


def _outside_strings(text: bytes | str) -> bytes:
    """Return what is outside of strings, or the whole text when it has too many strings."""
    text = text.encode() if isinstance(text, str) else text
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    quotes = len(bare) - len(bare.translate(None, b'"'))
    if quotes > 4 * MAX_VALUES:  # two for each string, and each value has at most one name
        return text
    return b"".join(bare.split(b'"')[::2])


def _depth(value: Json) -> int:
    """Return how many containers are nested within each other, without recursion."""
    depth = 0
    level = [value]
    while level := [v for v in level if isinstance(v, list | dict)]:
        depth += 1
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c)]
    return depth
