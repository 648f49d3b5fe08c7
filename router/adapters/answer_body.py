"""The body of an answer of coglet's while it comes in, less a log that is too long.

coglet keeps all that a model prints and gives it back with the answer, and the log of the set-up
with each health check. That may be hundreds of MB, which nobody wants: what a prediction prints
is read, and bounded, while it runs.
"""

from __future__ import annotations

import re

# No log that the router keeps is half as long, even with every character escaped.
MAX_LOG_BYTES = 8 << 20
# Of the answer without its log: what a model's output may take, base64 included.
MAX_BODY_BYTES = 256 << 20

LOGS = b'"logs":"'
# What a JSON string goes on with: up to its end, or to an escape that is cut in two.
IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class BodyTooLargeError(OSError):
    """The answer is larger than MAX_BODY_BYTES."""


class AnswerBody:
    """Fed with the pieces of a body. The log is looked for only when there is too much."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._cut_at: int | None = MAX_LOG_BYTES  # None when the log has been passed
        self._in_log: _LongLog | None = None

    def feed(self, piece: bytes) -> None:
        """Add a piece. Raises BodyTooLargeError."""
        if self._in_log is not None:
            rest = self._in_log.feed(piece)
            if rest is None:
                return
            piece, self._in_log = self._in_log.gap_line() + rest, None
        self._pieces.append(piece)
        self._size += len(piece)
        if self._cut_at is not None and self._size > self._cut_at:
            self._look_for_log()
        if self._size > MAX_BODY_BYTES:
            raise BodyTooLargeError("the model's output is too large")

    def whole(self) -> bytes:
        """The body as it is now."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _look_for_log(self) -> None:
        body = b"".join(self._pieces)
        at = body.find(LOGS)
        if at < 0:
            # It stands before what may be long too: there is none to come.
            self._cut_at = None
            self._pieces = [body]
            return
        self._cut_at = None
        start = at + len(LOGS)
        log = _LongLog()
        rest = log.feed(body[start:])
        if rest is None:
            self._pieces, self._in_log = [body[:start]], log
        elif len(body) - start - len(rest) > MAX_LOG_BYTES:
            self._pieces = [body[:start], log.gap_line(), rest]
        else:
            self._pieces = [body]
        self._size = sum(map(len, self._pieces))


class _LongLog:
    """A JSON string that is counted and left out."""

    def __init__(self) -> None:
        self._lines = 0
        self._size = 0
        self._escape = b""  # a backslash that a piece ended with

    def feed(self, piece: bytes) -> bytes | None:
        """None while the string goes on; at its end what comes behind it, its quote first."""
        piece = self._escape + piece
        found = IN_STRING.match(piece)
        end = found.end() if found else 0
        self._lines += piece.count(b"\\n", 0, end)
        self._size += end
        if end < len(piece) and piece[end : end + 1] == b'"':
            return piece[end:]
        self._escape = piece[end:]
        return None

    def gap_line(self) -> bytes:
        """What stands in its place, as `router.runtime.prediction_log` has it."""
        return b"[callme left out %d lines, %d bytes]\\n" % (self._lines, self._size)


def without_long_log(body: bytes) -> bytes:
    """A body that came in one piece. Raises BodyTooLargeError."""
    if len(body) <= MAX_LOG_BYTES:
        return body
    answer = AnswerBody()
    answer.feed(body)
    return answer.whole()
