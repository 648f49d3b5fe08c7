"""Server-Sent Events as they are read: https://html.spec.whatwg.org/multipage/server-sent-events.html

Only what coglet sends: `event` and `data` fields and comments, lines ended by LF or CRLF.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[tuple[str, bytes]]:
    """Each event's name and data, as soon as it is complete; an unfinished one is dropped.

    Lines have no limit: a picture comes as one line of base64. Bytes are looked at once, so a
    long line costs no more than its length.
    """
    name = "message"
    data: list[bytes] = []
    parts: list[bytes] = []  # of a line that has not ended
    async for chunk in chunks:
        *lines, rest = chunk.split(b"\n")
        for piece in lines:
            line = b"".join([*parts, piece]).removesuffix(b"\r")
            parts.clear()
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if not line:
                if data:
                    yield name, b"\n".join(data)
                name, data = "message", []
            elif field == b"event":
                name = value.decode(errors="replace")
            elif field == b"data":
                data.append(value)
        if rest:
            parts.append(rest)
