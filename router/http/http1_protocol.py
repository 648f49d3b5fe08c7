"""HTTP/1.1 as the router reads it: uvicorn's httptools protocol, strict and with limits.

uvicorn's own class has three faults that a public server cannot accept. uvicorn has no setting
for any of them, so they are fixed here (docs/decisions/http-server.md has the measurements):

- A request that offers an upgrade (`Upgrade: h2c`, as Java's HTTP client sends) loses its body,
  and a body that arrives in a later packet is run as a separate request (Kludex/uvicorn#2722,
  MagicStack/httptools#124).
- A request head may have any size, and trailer fields are added to the head of a request that
  has already been authenticated.
- A connection that sends nothing, or half a head, stays open indefinitely.

`Connections` (router/http/connections.py) limits how many connections there may be and how long
each may wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from router.errors import MalformedRequest, RouterError, TooManyConnections, UriTooLong
from router.http.connections import Connections
from router.http.errors import render_error
from router.http.middleware import INERT
from router.http.request_head import (
    MALFORMED,
    MAX_HEAD_BYTES,
    MAX_HEAD_FIELDS,
    MAX_TARGET_BYTES,
    head_too_large,
    require_plain_framing,
    require_size,
    without_upgrade,
)

# After SMALL_CHUNKS chunks, a body's chunks must have SMALL_CHUNK_BYTES bytes on average.
SMALL_CHUNKS = 8192
SMALL_CHUNK_BYTES = 32


class _Flow(FlowControl):
    """Keeps reading paused while requests wait in the pipeline.

    uvicorn's handlers would resume it, and the pipeline could grow without a limit.
    """

    def __init__(self, transport: asyncio.Transport, protocol: HttpProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if self.read_paused and not self._protocol.pipeline:
            super().resume_reading()

    def pause_writing(self) -> None:
        self._protocol.blocked_since = self._protocol.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._protocol.blocked_since = None
        super().resume_writing()


class HttpProtocol(HttpToolsProtocol):
    """One connection. `guard`: all connections of the server."""

    def __init__(
        self,
        guard: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._guard = guard
        self.url = b""
        # Otherwise uvicorn would build the text of its access log line and drop it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        # When the wait for the client began. The other fields show what it waits for.
        self.waiting_since = 0.0
        self.blocked_since: float | None = None  # since then the client does not read its response
        self.head_open = False  # a part of a head has arrived, but not all of it
        self.body_open = False
        self.lingering = False  # refused and answered; waits only for the client to close
        self.closing = False  # set by the sweep when it finds the transport closing
        self._refusal: RouterError | None = None
        self._running: RequestResponseCycle | None = None  # self.cycle is the newest one
        self._offering = b"", ""  # method and version of a request that offers an upgrade
        self._hosts = 0
        self._piece_bytes = 0  # size of the piece that is being read
        self._head_bytes = 0  # size of the open head, without the piece that it began in
        self._framing_bytes = 0  # received since the last byte of the open body
        self._chunks = self._body_bytes = 0  # of the open body
        self._got_body = False
        self._began_in_piece = False

    @property
    def is_new(self) -> bool:
        """Whether no request has arrived yet."""
        return self._running is None

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress."""
        return self._running is not None and not self._running.response_complete

    # Called by the event loop

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Accept the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self.waiting_since = self.loop.time()
        if not self._guard.admit(self):
            self._write_error(TooManyConnections("Cannot serve: too many connections are open"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        super().connection_lost(exc)
        self._guard.forget(self)
        self.pipeline.clear()  # the requests that have not begun

    def data_received(self, data: bytes) -> None:
        """Parse the next piece, of any size."""
        if self._refusal is not None:
            return  # after an error no further data can be trusted
        self._piece_bytes = len(data)
        self._began_in_piece = self._got_body = False
        try:
            self._feed(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, RouterError) else MalformedRequest(MALFORMED))
        except httptools.HttpParserError:
            self.refuse(MalformedRequest(MALFORMED))
        else:
            if self.head_open:
                self._count_head()
            elif self.body_open:
                self._count_framing()

    # Called by the parser

    def on_message_begin(self) -> None:
        """Called at the first byte of a head."""
        self.head_open = self._began_in_piece = True
        self._head_bytes = self._hosts = 0
        self.waiting_since = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Called with a piece of the target. Raises UriTooLong when the target is too long."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise UriTooLong(f"Cannot read the request: its URL exceeds {MAX_TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called with a field of the head or of a trailer.

        A trailer field is dropped: it must not change a head that has already been
        authenticated. Raises RequestHeadTooLarge when there are over MAX_HEAD_FIELDS fields.
        """
        if not self.head_open:
            return
        name = name.lower()
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"host":
            self._hosts += 1
        self.headers.append((name, value))
        if len(self.headers) > MAX_HEAD_FIELDS:
            raise head_too_large()

    def on_headers_complete(self) -> None:
        """Called when the head is complete. Check it, and start the request.

        Raises RequestHeadTooLarge when the head is too large, and MalformedRequest when it is not
        allowed.
        """
        if self._head_bytes + self._piece_bytes > MAX_HEAD_BYTES:
            require_size(self.url, self.headers)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MalformedRequest("Cannot CONNECT: this server is not a proxy")
            self._offering = self.parser.get_method(), self.parser.get_http_version()
            return  # _feed parses the head again, without its Upgrade field
        require_plain_framing(self.parser.get_http_version(), self._hosts, self.headers)
        self.head_open = False
        self.body_open = True
        self._framing_bytes = self._chunks = self._body_bytes = 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Called at the start of a chunk.

        A chunk of one byte takes as long as one of thousands. Raises MalformedRequest when too
        many chunks are small.
        """
        if self._chunks > SMALL_CHUNKS and self._body_bytes < self._chunks * SMALL_CHUNK_BYTES:
            raise MalformedRequest(
                f"Cannot read the body: its chunks have under {SMALL_CHUNK_BYTES} bytes each"
            )
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """Called with a piece of the body. It is dropped when its request has been answered."""
        self._got_body = True
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Called at the end of the request, in most cases right after its head."""
        if self.head_open:
            return  # this is the first parse of a request with Upgrade
        self.body_open = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # Called by uvicorn's request

    def on_response_complete(self) -> None:
        """Called when the response is complete. Start the next request, or wait for one.

        There is no timer: a sweep over all connections is less work for each request.
        """
        self.server_state.total_requests += 1
        self.waiting_since = self.loop.time()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        return False  # a server may ignore the offer (RFC 9110, 7.8)

    # Parsing

    def _feed(self, data: bytes) -> None:
        """Parse the data.

        When a request offers an upgrade, the parser stops after the head and treats the body as
        data of another protocol. So a new parser parses the head again, without the offer, and
        then reads on.
        """
        left = memoryview(data)
        while True:
            try:
                self.parser.feed_data(left)
                return
            except httptools.HttpParserUpgrade as upgrade:
                left = left[upgrade.args[0] :]
                head = without_upgrade(*self._offering, self.url, self.headers)
                self.parser = httptools.HttpRequestParser(self)
                # As in uvicorn, data after a request with `Connection: close` is ignored.
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)

    def _count_head(self) -> None:
        """Count the bytes of a head that is not complete.

        The piece that it began in may be full of other requests, so that piece does not count.
        The limit can be exceeded by one piece (256 KiB) at most.
        """
        if not self._began_in_piece:
            self._head_bytes += self._piece_bytes
            if self._head_bytes > MAX_HEAD_BYTES:
                self.refuse(head_too_large())

    def _count_framing(self) -> None:
        """Count the bytes of an incomplete body that are chunk extensions or trailers."""
        if self._got_body or self._began_in_piece:
            self._framing_bytes = 0
            return
        self._framing_bytes += self._piece_bytes
        if self._framing_bytes > MAX_HEAD_BYTES:
            self.refuse(head_too_large())

    # Refusing

    def refuse(self, error: RouterError) -> None:
        """Answer with the error, after the answers to all earlier requests, and read no more."""
        self._refusal = error
        if self.body_open:
            self._give_up_body()
        elif not self.is_busy:
            self._answer_refusal(error)
        self.head_open = self.body_open = False

    def _give_up_body(self) -> None:
        """Give up the newest request, whose body cannot be read.

        Its handler sees a client that has disconnected.
        """
        cycle = self.cycle
        if cycle.response_complete:
            self.transport.close()
        elif cycle is not self._running:
            self.pipeline.popleft()
            self.cycle = cast("RequestResponseCycle", self._running)
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
            else:
                cycle.response_complete = True
                self._answer_refusal(cast("RouterError", self._refusal))

    def _answer_refusal(self, error: RouterError) -> None:
        """Send the error, then wait a short time for the client to close.

        To close while there are unread bytes resets the connection, and the client might never
        see the answer.
        """
        self._guard.note_refusal(error)
        self._write_error(error)
        self.lingering = True
        self.waiting_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _write_error(self, error: RouterError) -> None:
        # The part of the path that has arrived selects the error shape of its API.
        response = render_error({"path": self.url.decode("latin-1")}, error)
        headers = [
            *self.server_state.default_headers,
            *INERT,
            *response.raw_headers,
            (b"connection", b"close"),
            (b"x-request-id", secrets.token_hex(16).encode()),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", response.body]))
