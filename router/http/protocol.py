"""HTTP/1.1 as the router reads it: uvicorn's httptools protocol, strict and bounded.

uvicorn's own class has three faults that a public server cannot live with, all of them here
because uvicorn has no setting for them (docs/decisions.md has the measurements):

- A request that offers an upgrade (`Upgrade: h2c`, as Java's HTTP client sends) loses its body,
  and a body that comes in a later packet is run as a request of its own (Kludex/uvicorn#2722,
  MagicStack/httptools#124).
- A request head may have any size, and trailer fields are added to the head of a request that
  has been authenticated already.
- A connection that sends nothing, or half a head, stays open without end.

`Connections` (router/http/connections.py) says how many connections there may be and how long
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

from router.errors import (
    MalformedRequest,
    RequestHeadTooLarge,
    RouterError,
    TooManyConnections,
    UriTooLong,
)
from router.http.connections import Connections
from router.http.errors import render_error
from router.http.middleware import INERT

# So many chunks of a body may be small; then they must have so many bytes on average.
SMALL_CHUNKS = 8192
SMALL_CHUNK_BYTES = 32
# Request line and fields together; also what a body may have of chunk extensions and trailer
# fields between two of its bytes. A signed request's head has about 1 KiB, a browser's 4 at most.
MAX_HEAD_BYTES = 64 << 10
MAX_HEAD_FIELDS = 256
# Of the target alone: a line of the log has the path.
MAX_TARGET_BYTES = 16 << 10
HTTP_VERSIONS = frozenset({"1.0", "1.1"})
MALFORMED = "Cannot read the request: it is not valid HTTP/1.1"


class _Flow(FlowControl):
    """Reading stays paused while requests wait in the pipeline: uvicorn's handlers would resume
    it, and the pipeline could grow without a bound."""

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
    """One connection. `guard`: all of them."""

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
        # Else uvicorn collects what its access line would say and drops it.
        self.access_log = self.access_log and self.access_logger.isEnabledFor(logging.INFO)
        # When it began to wait for the client; what for, the other fields say.
        self.waiting_since = 0.0
        self.blocked_since: float | None = None  # the client does not read its answer
        self.head_open = False  # some of a head has come, not all
        self.body_open = False
        self.lingering = False  # refused and answered: only the client's end is waited for
        self.closing = False  # as the sweep has seen it
        self._refusal: RouterError | None = None
        self._running: RequestResponseCycle | None = None  # self.cycle is the newest
        self._offering = b"", ""  # method and version of a request that offers an upgrade
        self._hosts = 0
        self._piece_bytes = 0  # of the piece that is being read
        self._head_bytes = 0  # of the open head, in the pieces after the one it began in
        self._framing_bytes = 0  # since the last byte of the open body
        self._chunks = self._body_bytes = 0  # of the open body
        self._got_body = False
        self._began_in_piece = False

    @property
    def is_new(self) -> bool:
        """Whether no request has come yet."""
        return self._running is None

    @property
    def is_busy(self) -> bool:
        """Whether a request is being worked on, or waits for its turn."""
        return self._running is not None and not self._running.response_complete

    # What the event loop calls

    def connection_made(  # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Take the connection, or refuse it when there are too many."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self)
        self.waiting_since = self.loop.time()
        if not self._guard.admit(self):
            self._write_error(TooManyConnections("Cannot serve: too many connections are open"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._guard.forget(self)
        self.pipeline.clear()  # what has not had its turn

    def data_received(self, data: bytes) -> None:
        """Parse the next piece, of any size."""
        if self._refusal is not None:
            return  # nothing after a mistake can be trusted
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

    # What the parser calls

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self.head_open = self._began_in_piece = True
        self._head_bytes = self._hosts = 0
        self.waiting_since = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self.url += url
        if len(self.url) > MAX_TARGET_BYTES:
            raise UriTooLong(f"Cannot read the request: its URL exceeds {MAX_TARGET_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. One of a trailer is dropped: what has been let in by its head must
        not change it."""
        if not self.head_open:
            return
        name = name.lower()
        if name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"host":
            self._hosts += 1
        self.headers.append((name, value))
        if len(self.headers) > MAX_HEAD_FIELDS:
            raise _head_too_large()

    def on_headers_complete(self) -> None:
        """The head is whole: judge it, and start the request."""
        if self._head_bytes + self._piece_bytes > MAX_HEAD_BYTES:
            self._measure_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MalformedRequest("Cannot CONNECT: this is no proxy")
            self._offering = self.parser.get_method(), self.parser.get_http_version()
            return  # _feed parses it once more, without what it offers
        self._require_plain_framing()
        self.head_open = False
        self.body_open = True
        self._framing_bytes = self._chunks = self._body_bytes = 0
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """A chunk: one of a single byte takes as long as one of thousands."""
        if self._chunks > SMALL_CHUNKS and self._body_bytes < self._chunks * SMALL_CHUNK_BYTES:
            raise MalformedRequest(
                f"Cannot read the body: its chunks have under {SMALL_CHUNK_BYTES} bytes each"
            )
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        """A part of the body; thrown away once its request has been answered."""
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
        """The end of the request, in most cases right after its head."""
        if self.head_open:
            return  # of the first parse of a request with Upgrade
        self.body_open = False
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # What uvicorn's request calls

    def on_response_complete(self) -> None:
        """The answer has been handed over: next request, or wait for one. No timer: a sweep over
        all connections is less work for each request."""
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
        return False  # an offer, which a server may ignore (RFC 9110, 7.8)

    # Parsing

    def _feed(self, data: bytes) -> None:
        """Parse. Where a request offers an upgrade the parser stops after its head and takes the
        body for another protocol's; so its head is parsed again, without the offer, by a new
        parser, which then reads on."""
        left = memoryview(data)
        while True:
            try:
                self.parser.feed_data(left)
                return
            except httptools.HttpParserUpgrade as upgrade:
                left = left[upgrade.args[0] :]
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                # As uvicorn has it: what follows a request with `Connection: close` is ignored.
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)

    def _head_without_upgrade(self) -> bytes:
        """Of what the parser has accepted, so no value has a line's end in it."""
        method, version = self._offering
        lines = [method, b" ", self.url, f" HTTP/{version}\r\n".encode()]
        for name, value in self.headers:
            if name != b"upgrade":
                lines += [name, b": ", value, b"\r\n"]
        return b"".join([*lines, b"\r\n"])

    def _require_plain_framing(self) -> None:
        """What httptools lets through and RFC 9112 does not."""
        version = self.parser.get_http_version()
        if version not in HTTP_VERSIONS or self._hosts > 1:
            raise MalformedRequest(MALFORMED)
        for name, value in self.headers:
            if name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
                raise MalformedRequest("Cannot read the body: its Transfer-Encoding is not known")

    def _measure_head(self) -> None:
        fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) + fields > MAX_HEAD_BYTES:
            raise _head_too_large()

    def _count_head(self) -> None:
        """While a head is not whole. The piece that it began in may be full of other requests, so
        it does not count: the limit is exceeded by one piece at most (256 KiB)."""
        if not self._began_in_piece:
            self._head_bytes += self._piece_bytes
            if self._head_bytes > MAX_HEAD_BYTES:
                self.refuse(_head_too_large())

    def _count_framing(self) -> None:
        """While a body is not whole: chunk extensions and trailers are nobody's input."""
        if self._got_body or self._began_in_piece:
            self._framing_bytes = 0
            return
        self._framing_bytes += self._piece_bytes
        if self._framing_bytes > MAX_HEAD_BYTES:
            self.refuse(_head_too_large())

    # Refusing

    def refuse(self, error: RouterError) -> None:
        """Answer with the error, after all that was asked for before it, and read no more."""
        self._refusal = error
        if self.body_open:
            self._give_up_body()
        elif not self.is_busy:
            self._answer_refusal(error)
        self.head_open = self.body_open = False

    def _give_up_body(self) -> None:
        """The newest request's body cannot be read: to its handler the client has gone."""
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
        """And wait a little for the client's end: to close while unread bytes are there resets
        the connection, and the client might never see the answer."""
        self._guard.note_refusal(error)
        self._write_error(error)
        self.lingering = True
        self.waiting_since = self.loop.time()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _write_error(self, error: RouterError) -> None:
        # The path, as far as it has come, says which API is spoken.
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


def _head_too_large() -> RequestHeadTooLarge:
    return RequestHeadTooLarge(
        f"Cannot read the request: its head exceeds {MAX_HEAD_BYTES >> 10} KiB or "
        f"{MAX_HEAD_FIELDS} fields"
    )
