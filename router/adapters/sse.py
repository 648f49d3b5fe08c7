"""Server-Sent Events as they are read: https://html.spec.whatwg.org/multipage/server-sent-events.html

Only what coglet sends: `event` and `data` fields and comments, lines ended by LF or CRLF.
"""

from __future__ import annotations

from collections.abc import Iterator

from router.adapters.answer_body import MAX_BODY_BYTES, BodyTooLargeError

# The last event has all of the output and all of the log once more.
MAX_LINE_BYTES = 2 * MAX_BODY_BYTES


class EventReader:
    """Fed with pieces of a stream, however they are cut."""

    def __init__(self) -> None:
        self._name = "message"
        self._data: list[bytes] = []
        self._parts: list[bytes] = []  # of a line that has not ended
        self._parts_bytes = 0

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Each event's name and data, as soon as it is complete.

        A line may be long, up to MAX_LINE_BYTES: a picture comes as one line of base64. Bytes are
        looked at once, so a long line costs no more than its length. Raises BodyTooLargeError.
        """
        *lines, rest = piece.split(b"\n")
        for end in lines:
            line = b"".join([*self._parts, end]).removesuffix(b"\r")
            self._parts.clear()
            self._parts_bytes = 0
            if not line:
                if self._data:
                    yield self._name, b"\n".join(self._data)
                self._name, self._data = "message", []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value.decode(errors="replace")
            elif field == b"data":
                self._data.append(value)
        if rest:
            self._parts.append(rest)
            self._parts_bytes += len(rest)
            if self._parts_bytes > MAX_LINE_BYTES:
                raise BodyTooLargeError("an event is too large")
