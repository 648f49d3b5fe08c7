"""HTTP/1.1 to one server on this machine: uvicorn's parser on a socket, and nothing else.

Every prediction waits for this client. A general client spends most of its time on what is not
needed here: redirects, cookies, proxies, compression, tracing (docs/architecture/cost.md has the
figures).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import httptools

HOST = "127.0.0.1"
# A body of this size or more is not copied into one buffer with its head.
LONG_BYTES = 64 << 10

OnPiece = Callable[[bytes], None]


class NotListeningError(OSError):
    """No connection could be made, so the request was not sent."""


class ConnectionLostError(OSError):
    """The connection ended before the answer was complete. The request may have had an effect."""


@dataclass(frozen=True, slots=True)
class LoopbackResponse:
    """A response. `body` is empty when its pieces were passed on as they came."""

    status: int
    content_type: str
    body: bytes


class LoopbackClient:
    """Keeps connections open for the next request. Call `close` when done."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._host = f"{HOST}:{port}"
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        stream: tuple[str, OnPiece] | None = None,
    ) -> LoopbackResponse:
        """Send one request and read its answer. When canceled, it closes the connection.

        `stream` is a content type and a function: an answer of that type is passed to the function
        piece by piece. Raises NotListeningError when no connection can be made,
        ConnectionLostError when it ends too early, and what that function raises.
        """
        head = [f"{method} {path} HTTP/1.1", f"host: {self._host}", f"content-length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = ["\r\n".join([*head, "\r\n"]).encode("latin-1"), body]
        if len(body) < LONG_BYTES:
            request = [b"".join(request)]  # one packet
        connection = await self._connection()
        try:
            answer = await connection.exchange(request, stream)
        finally:
            # A connection whose answer was not read to its end cannot be used again.
            if connection.is_idle:
                self._idle.append(connection)
            else:
                connection.hang_up()
        return answer

    async def close(self) -> None:
        """Close every connection, even in the middle of an answer."""
        for connection in list(self._all):
            connection.hang_up()

    async def _connection(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.pop()).is_idle:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: _Connection(self._all), HOST, self._port)
        except OSError as error:
            raise NotListeningError("the server does not listen") from error
        return made


class _Connection(asyncio.Protocol):
    """One connection, which serves one request at a time."""

    def __init__(self, registry: set[_Connection]) -> None:
        self._registry = registry
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[LoopbackResponse] | None = None
        self._stream: tuple[str, OnPiece] | None = None
        self._on_piece: OnPiece | None = None
        self._content_type = ""
        self._body: list[bytes] = []

    async def exchange(
        self, request: list[bytes], stream: tuple[str, OnPiece] | None
    ) -> LoopbackResponse:
        """Send the request and wait for its answer.

        Raises ConnectionLostError when the connection ends too early, and what `stream`'s
        function raises.
        """
        assert self._transport is not None  # noqa: S101 - connected before it is given out
        self._answer = asyncio.get_running_loop().create_future()
        self._stream, self._on_piece, self._content_type = stream, None, ""
        self._body.clear()
        for part in request:
            self._transport.write(part)
        return await self._answer

    @property
    def is_idle(self) -> bool:
        """Whether it is open and the last answer was read to its end."""
        if self._transport is None or self._transport.is_closing():
            return False
        return self._answer is None or (self._answer.done() and not self._answer.cancelled())

    def hang_up(self) -> None:
        """Close at once. The task that waits for an answer gets ConnectionLostError."""
        if self._transport is not None:
            self._transport.abort()

    # ---- called by the event loop --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's have another class
        self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionLostError(f"the answer is not HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._registry.discard(self)
        self._fail(ConnectionLostError("the connection was lost"))

    def _fail(self, error: BaseException) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.hang_up()

    # ---- called by the parser ------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._content_type = value.decode("latin-1").partition(";")[0].strip().lower()

    def on_headers_complete(self) -> None:
        if self._stream is not None and self._content_type == self._stream[0]:
            self._on_piece = self._stream[1]

    def on_body(self, piece: bytes) -> None:
        if self._on_piece is None:
            self._body.append(piece)
            return
        try:
            self._on_piece(piece)
        except Exception as error:  # the parser would hide the error
            self._fail(error)

    def on_message_complete(self) -> None:
        keep_alive = self._parser.should_keep_alive()
        if self._answer is None or self._answer.done():
            keep_alive = False  # an answer without a request
        else:
            body = b"".join(self._body)
            status = self._parser.get_status_code()
            self._answer.set_result(LoopbackResponse(status, self._content_type, body))
        self._body.clear()
        self._stream = self._on_piece = None
        if not keep_alive:
            self.hang_up()
