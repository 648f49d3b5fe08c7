"""A strict stand-in for the GPU box: records every request and answers as a test tells it to."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from python_multipart.multipart import MultipartParser, parse_options_header

JSON = {"Content-Type": "application/json"}
STALL_S = 20.0


@dataclass
class Part:
    """One part of a multipart body, as the router's own parser reads it."""

    name: str
    filename: str | None = None
    content_type: str | None = None
    data: bytes = b""


@dataclass
class Received:
    """One request, whole."""

    method: str
    path: str
    headers: Message
    body: bytes
    connection: socket.socket

    def parts(self) -> dict[str, Part]:
        """The body's parts by name. Raises: AssertionError if a name comes twice."""
        parts = parse_parts(self.headers["Content-Type"], self.body)
        named = {part.name: part for part in parts}
        assert len(named) == len(parts), f"repeated part names: {[p.name for p in parts]}"
        return named

    def wait_for_hang_up(self, timeout_s: float) -> bool:
        """Whether the other side closes the connection within `timeout_s`."""
        readable, _, _ = select.select([self.connection], [], [], timeout_s)
        if not readable:
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except ConnectionResetError:
            return True


@dataclass
class Answer:
    """What the box says.

    `send_bytes` < len(body) breaks the answer off in the middle; with `stalls` the connection then
    stays open, and nothing more comes, until the other side hangs up.
    """

    status: int = 200
    body: bytes = b'{"ok": true}'
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    send_bytes: int | None = None
    stalls: bool = False


Behaviour = Callable[[Received], Answer]


@dataclass
class Box:
    """The running stand-in."""

    url: str
    received: list[Received] = field(default_factory=list)
    behaviour: Behaviour = lambda _: Answer()
    arrived: threading.Event = field(default_factory=threading.Event)
    hung_up: list[bool] = field(default_factory=list)
    """Of each answer that stalled: whether the other side hung up."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    box: Box


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        if self.headers["Transfer-Encoding"] == "chunked":  # as a large body comes
            self._answer(b"".join(self._chunks()))
        else:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.do_POST()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_GET(self) -> None:
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        box = cast(_Server, self.server).box
        received = Received(self.command, self.path, self.headers, body, self.connection)
        box.received.append(received)
        box.arrived.set()
        answer = box.behaviour(received)
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.send_bytes])
        if answer.stalls:
            self.wfile.flush()
            box.hung_up.append(received.wait_for_hang_up(STALL_S))
        self.close_connection = answer.send_bytes is not None

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the function hung up, as some tests want it to

    def log_message(self, *args: object) -> None:
        """Silent: a test prints what it needs."""


@contextmanager
def running_box(behaviour: Behaviour | None = None) -> Iterator[Box]:
    """A box on a free loopback port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.box = Box(f"http://127.0.0.1:{server.server_port}")
    if behaviour is not None:
        server.box.behaviour = behaviour
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.box
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def parse_parts(content_type: str, body: bytes) -> list[Part]:
    """Reads multipart/form-data with python-multipart, which FastAPI uses.

    Raises: AssertionError if the body does not end with its closing boundary.
    """
    kind, options = parse_options_header(content_type)
    assert kind == b"multipart/form-data", content_type
    parts: list[Part] = []
    header: list[bytes] = [b"", b""]
    ended: list[bool] = []

    def on_header_end() -> None:
        name, value = header
        if name.lower() == b"content-disposition":
            _, named = parse_options_header(value)
            parts[-1].name = named[b"name"].decode()
            parts[-1].filename = named[b"filename"].decode() if b"filename" in named else None
        elif name.lower() == b"content-type":
            parts[-1].content_type = value.decode()
        header[:] = [b"", b""]

    def on_field(data: bytes, start: int, end: int) -> None:
        header[0] += data[start:end]

    def on_value(data: bytes, start: int, end: int) -> None:
        header[1] += data[start:end]

    def on_data(data: bytes, start: int, end: int) -> None:
        parts[-1].data += data[start:end]

    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_part_begin": lambda: parts.append(Part("")),
            "on_part_data": on_data,
            "on_header_field": on_field,
            "on_header_value": on_value,
            "on_header_end": on_header_end,
            "on_end": lambda: ended.append(True),
        },
    )
    parser.write(body)
    parser.finalize()
    assert ended, "the multipart body has no closing boundary"
    return parts
