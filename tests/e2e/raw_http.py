"""Requests as bytes, as an attacker writes them, and the answers that come back."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LAST_ID = b"the-last-one"
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: " + LAST_ID
LAST += b"\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Raw:
    """One connection to the service on this machine."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def send(self, piece: bytes) -> None:
        """Send it, and return when the server has read it: a later request, on another
        connection, has been answered, and the server is one loop."""
        self.socket.sendall(piece)
        with connected(self.port) as other:
            other.socket.sendall(LAST)
            assert other.answer() is not None

    def answer(self) -> Answer | None:
        """The next one; None when the server has closed the connection."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", 0))
        while len(self._got) < length:
            assert self._more(), "the body of an answer ends early"
        body, self._got = self._got[:length], self._got[length:]
        return Answer(int(first.split()[1]), headers, body)

    def answers(self) -> list[Answer]:
        """All until the server closes the connection."""
        return list(iter(self.answer, None))

    def _until(self, end: bytes) -> bytes | None:
        while end not in self._got:
            if not self._more():
                assert not self._got, f"an answer ends early: {self._got[:200]!r}"
                return None
        found, _, self._got = self._got.partition(end)
        return found

    def _more(self) -> bool:
        try:
            piece = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._got += piece
        return bool(piece)


@contextlib.contextmanager
def connected(port: int, timeout_s: float = 30.0) -> Iterator[Raw]:
    """A connection, closed at the end."""
    raw = Raw(port, timeout_s)
    try:
        yield raw
    finally:
        raw.socket.close()


def exchange(port: int, *pieces: bytes) -> list[Answer]:
    """The answers to what these pieces, each read before the next is sent, ask for. A last request
    of our own on the same connection shows that nothing else comes; its answer is left out."""
    with connected(port) as raw, contextlib.suppress(BrokenPipeError):
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                raw.send(piece)
            raw.socket.sendall(LAST)
        found = raw.answers()
    return [a for a in found if a.headers.get("x-request-id") != LAST_ID.decode()]


def post(path: str, body: bytes, *fields: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A POST of JSON with these fields besides."""
    lines = [
        b"POST " + path.encode() + b" " + version,
        b"Host: localhost",
        b"Content-Type: application/json",
        *fields,
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
