"""Reads a JSON body, and keeps its long `data:` strings apart from the rest, which is text.

A JSON body may hold a file of 20 MB, but not 20 MB of other JSON: parsed, that would take a
hundred times the memory. So the long strings are cut out before anything is parsed. In JSON, a
quote without a backslash before it and with `data:` after it can only begin a string.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from starlette.requests import Request

from router.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from router.http.context import context_of
from router.http.headers import header
from router.inputs.data_uris import LONG_BYTES, LongString
from router.inputs.json_text import MAX_TEXT_BYTES, load_json
from router.prediction import Json

# A string below either length stays in the text: to look at each would cost more than it saves.
SHORTEST_SEEN_CHARS = 100
SHORTEST_CUT_BYTES = 4 << 10
MAX_LONG_STRINGS = 256
OPENING = re.compile(
    rb'[^\\]"(?=[dD][aA][tT][aA]:(?:[^"\\]|\\.){%d})' % SHORTEST_SEEN_CHARS, re.DOTALL
)
OPENING_BYTES = len(b'x"data:') + 2 * SHORTEST_SEEN_CHARS  # an escaped character has two
WINDOW_BYTES = 16 << 10


class JsonBody:
    """Collects the pieces of a body. Call `load` when it has them all."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._carry = b""  # the last bytes, which may still begin a string
        self._string: bytearray | None = None  # the string that is being read
        self._strings: list[LongString] = []
        # Random, so that no client can write a string that looks like one that was cut out.
        self._mark = ""

    def take(self, piece: bytes) -> None:
        """Add the next piece.

        Raises PayloadTooLarge as soon as there is too much text or there are too many strings.
        """
        if not self._mark:
            if len(self._text) + len(piece) <= LONG_BYTES:
                self._text += piece
                return
            self._mark = secrets.token_hex(16)
            piece = bytes(self._text) + piece
            self._text.clear()
        data = self._carry + piece
        self._carry = b""
        at = 0
        while at < len(data):
            at = self._text_from(data, at) if self._string is None else self._string_from(data, at)
        if len(self._text) > MAX_TEXT_BYTES:
            raise PayloadTooLarge(
                f"Cannot read the body: it has over {MAX_TEXT_BYTES} bytes besides data: URIs"
            )

    @property
    def is_long(self) -> bool:
        """Whether there is so much text that `load` takes a noticeable time."""
        return len(self._text) > LONG_BYTES

    def load(self) -> Json:
        """Return the value, with a LongString for each long data: string.

        Raises ValueError when the body is not JSON, and PayloadTooLarge when its text is too
        large to be parsed.
        """
        self._text += self._carry
        text = bytes(self._text)
        self._text.clear()
        if self._string is not None:
            raise ValueError("it ends within a string")
        value = load_json(text)
        return self._with_strings(value) if self._strings else value

    def _text_from(self, data: bytes, start: int) -> int:
        found = OPENING.search(data, start)
        if found is None:
            end = max(start, len(data) - OPENING_BYTES + 1)
            self._text += data[start:end]
            self._carry = data[end:]
            return len(data)
        self._text += data[start : found.end()]
        self._string = bytearray()
        return found.end()

    def _string_from(self, data: bytes, start: int) -> int:
        assert self._string is not None  # noqa: S101 - it is being read
        window = data[start : start + WINDOW_BYTES]
        masked = window.replace(rb"\\", b"..").replace(rb"\"", b"..")
        quote = masked.find(b'"')
        end = quote if quote >= 0 else len(window) - masked.endswith(b"\\")
        self._string += window[:end]
        if quote >= 0:
            self._end_string(self._string)
        elif end == 0:  # only a backslash: the character that it escapes is still to come
            self._carry = window
            return len(data)
        return start + end

    def _end_string(self, raw: bytearray) -> None:
        self._string = None
        if len(raw) < SHORTEST_CUT_BYTES:
            self._text += raw
            return
        if len(self._strings) == MAX_LONG_STRINGS:
            raise PayloadTooLarge(
                f"Cannot read the body: it has over {MAX_LONG_STRINGS} long data: URIs"
            )
        self._text += f"{self._mark}{len(self._strings)}".encode()
        self._strings.append(LongString(raw))

    def _with_strings(self, value: Json) -> Json:
        """Return the value with the strings in their places.

        The recursion is bounded: `load_json` allows no deeper value.
        """
        if isinstance(value, str):
            cut = value.startswith(self._mark)
            return self._strings[int(value[len(self._mark) :])] if cut else value
        if isinstance(value, list):
            return [self._with_strings(v) for v in value]
        if isinstance(value, dict):
            if any(k.startswith(self._mark) for k in value):
                raise ValueError("the name of a value must not be a data: URI")
            return {k: self._with_strings(v) for k, v in value.items()}
        return value


async def read_body(request: Request, max_bytes: int, take: Callable[[bytes], object]) -> None:
    """Pass the body to `take`, piece by piece.

    Raises PayloadTooLarge as soon as it is known to exceed `max_bytes`, MalformedRequest when the
    client disconnects before its end, and UnsupportedMediaType when it is compressed: 25 MB could
    become gigabytes, and no client of ours compresses.
    """
    encoding = header(request.scope, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Cannot read the body: Content-Encoding must be identity")
    too_large = PayloadTooLarge(f"Cannot read the body: it exceeds {max_bytes} bytes")
    declared = header(request.scope, b"content-length") or ""
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    size = 0
    more = True
    # Not `request.stream()`: it runs two generators for each piece.
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("Cannot read the body: it ends early")
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            size += len(piece)
            if size > max_bytes:
                raise too_large
            take(piece)


def media_type(request: Request) -> str:
    """Return the Content-Type in lower case, without its parameters."""
    return (header(request.scope, b"content-type") or "").partition(";")[0].strip().lower()


async def read_json(request: Request, max_bytes: int) -> dict[str, Json]:
    """Return the body, a JSON object, with a LongString for each long data: string.

    Raises UnsupportedMediaType when the body is not application/json, PayloadTooLarge when it is
    too large, and MalformedRequest when it is not a JSON object.
    """
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("Cannot read the body: Content-Type must be application/json")
    body = JsonBody()
    await read_body(request, max_bytes, body.take)
    try:
        if body.is_long:
            value = await context_of(request).request_inputs.turns.take(body.load)
        else:
            value = body.load()
    except ValueError as error:
        raise MalformedRequest(f"Cannot read the body: {error}") from error
    if not isinstance(value, dict):
        raise MalformedRequest("Cannot read the body: it must be a JSON object")
    return value
