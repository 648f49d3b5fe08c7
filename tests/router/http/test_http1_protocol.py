"""The protocol on a real socket, under both event loops, with an application that is nothing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from router.http.connections import Connections, Limits
from router.http.http1_protocol import SMALL_CHUNKS, HttpProtocol

pytestmark = pytest.mark.slow

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = Limits(keep_alive_s=30, head_s=30, drain_s=30, linger_s=30, unread_s=30, sweep_s=0.01)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a test on one of the loops."""

    def run_on_loop(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(test, 20))

    return run_on_loop


class App:
    """Reads a request's body and answers with its size, `/wait` when it may; keeps the scopes."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.arrived = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.arrived.set()
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 403, "headers": LENGTH_0})
            await send({"type": "http.response.body"})
            return
        body = await read(receive)
        if body is None:
            return
        self.bodies.append(body)
        if scope["path"] == "/wait":
            await self.may_answer.wait()
        size = int(scope["query_string"] or 0)
        length = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"x" * size})


LENGTH_0 = [(b"content-length", b"0")]


async def read(receive: Receive) -> bytes | None:
    """The body; None when the client has gone."""
    body = b""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


class Box:
    """A server of an App, and clients of it."""

    def __init__(self, connections: Connections, port: int, app: App) -> None:
        self.connections, self.port, self.app = connections, port, app

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which this has been sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Turns of the loop until it is so."""
        while not condition():
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(limits: Limits = QUICK, **config: Any) -> AsyncIterator[Box]:
    """The protocol on a free port."""
    app = App()
    connections = Connections(limits)
    made = uvicorn.Config(app, log_config=None, lifespan="off", **config)
    made.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    protocol = functools.partial(HttpProtocol, connections, made, state, {})
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    try:
        yield Box(connections, server.sockets[0].getsockname()[1], app)
    finally:
        app.may_answer.set()
        server.close()
        for connection in list(state.connections):
            assert connection.transport is not None
            connection.transport.abort()


async def status_of(reader: asyncio.StreamReader) -> int:
    """The status of the next answer; 0 when the connection is closed instead."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return 0
    lines = head.lower().split(b"\r\n")
    length = sum(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head.split()[1])


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_fields_after_the_body_are_no_headers(run: Run) -> None:
    """A trailer would change what has been let in by its head."""

    async def test() -> None:
        async with serving() as box:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            tail = b"1\r\nx\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: b\r\n\r\n"
            reader, _ = await box.connect(head + tail)
            assert await status_of(reader) == 200
            names = [name for name, _ in box.app.scopes[0]["headers"]]
            assert names == [b"host", b"transfer-encoding"]

    run(test())


def test_no_websocket_whatever_is_installed(run: Run) -> None:
    """An offer of a websocket is ignored, though uvicorn would know how to take it."""

    class Never(asyncio.Protocol):
        def __init__(self, **given: Any) -> None:
            raise AssertionError("upgraded")

    async def test() -> None:
        async with serving(ws=Never) as box:
            offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            reader, _ = await box.connect(GET[:-2] + offer)
            assert await status_of(reader) == 200
            assert box.app.scopes[0]["type"] == "http"

    run(test())


def test_a_head_that_stays(run: Run) -> None:
    """Half a head is answered 408, no head at all by a closed connection; a request that is being
    worked on is left alone."""

    async def test() -> None:
        limits = Limits(head_s=0.5, keep_alive_s=30, linger_s=30, sweep_s=0.01)
        async with serving(limits) as box:
            silent, half = await box.connect(), await box.connect(b"GET / HTTP/1.1\r\nHo")
            blank, busy = await box.connect(b"\r\n" * 8), await box.connect(b"GET /wait" + GET[5:])
            assert [await status_of(r) for r, _ in (silent, half, blank)] == [0, 408, 0]
            box.app.may_answer.set()
            assert await status_of(busy[0]) == 200

    run(test())


def test_a_head_that_drips(run: Run) -> None:
    """The limit is one of the whole head, not of its pieces."""

    async def test() -> None:
        async with serving(Limits(head_s=0.2, sweep_s=0.01)) as box:
            reader, writer = await box.connect(b"GET / HTTP/1.1\r\n")
            answer = asyncio.ensure_future(status_of(reader))
            while not answer.done():
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.02)
            assert await answer == 408

    run(test())


def test_an_idle_connection(run: Run) -> None:
    """Is closed once its time is over; that of the answer before does not count."""

    async def test() -> None:
        async with serving(Limits(keep_alive_s=1.0, head_s=30, sweep_s=0.01)) as box:
            reader, writer = await box.connect(GET)
            assert await status_of(reader) == 200
            writer.write(GET)
            assert await status_of(reader) == 200
            assert await status_of(reader) == 0

    run(test())


def test_a_body_after_its_answer(run: Run) -> None:
    """A request may be answered before its body has come; the rest is waited for, up to a limit."""

    async def test() -> None:
        head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
        async with serving(Limits(drain_s=1.0, head_s=30, keep_alive_s=30, sweep_s=0.01)) as box:
            reader, writer = await box.connect(head)
            assert await status_of(reader) == 403
            writer.write(b"123456789" + GET)
            assert await status_of(reader) == 200
            writer.write(head + b"1234")
            assert [await status_of(reader), await status_of(reader)] == [403, 0]

    run(test())


def test_an_answer_that_is_not_read(run: Run) -> None:
    """A client that asks for much and reads nothing is left."""

    async def test() -> None:
        async with serving(Limits(unread_s=0.1, sweep_s=0.01)) as box:
            _, writer = await box.connect(GET.replace(b"/ ", b"/?50000000 "))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await box.until(lambda: len(box.connections) == 1)
            await box.until(lambda: len(box.connections) == 0)

    run(test())


def test_more_connections_than_may_be(run: Run) -> None:
    """The connection that waits longest makes room; one that is worked on never does."""

    async def test() -> None:
        async with serving(Limits(max_connections=3)) as box:
            busy = await box.connect(b"GET /wait" + GET[5:])
            await box.app.arrived.wait()
            first, _ = await box.connect()
            await box.until(lambda: len(box.connections) == 2)
            now = asyncio.get_running_loop().time  # uvloop's goes by milliseconds
            later = now() + 0.002
            await box.until(lambda: now() > later)
            await box.connect()
            await box.until(lambda: len(box.connections) == 3)
            late, _ = await box.connect(GET)
            assert await status_of(late) == 200
            assert await status_of(first) == 0
            box.app.may_answer.set()
            assert await status_of(busy[0]) == 200

    run(test())


def test_all_connections_are_at_work(run: Run) -> None:
    """One more is answered 503 and closed; once one has ended there is room."""

    async def test() -> None:
        async with serving(Limits(max_connections=2)) as box:
            busy = [await box.connect(b"GET /wait" + GET[5:]) for _ in range(2)]
            await box.until(lambda: len(box.app.bodies) == 2)
            late, _ = await box.connect()
            assert [await status_of(late), await status_of(late)] == [503, 0]
            for _, writer in busy:
                writer.close()
            await box.until(lambda: len(box.connections) == 0)
            reader, _ = await box.connect(GET)
            assert await status_of(reader) == 200

    run(test())


def test_the_pipeline_is_bounded(run: Run) -> None:
    """What is sent ahead stays in the socket while a request is worked on."""

    async def test() -> None:
        async with serving() as box:
            _, writer = await box.connect(b"GET /wait" + GET[5:] + GET)
            await box.app.arrived.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while True:
                        writer.write(GET * 2000)
                        await writer.drain()
            (connection,) = box.connections
            assert isinstance(connection, HttpProtocol)
            assert len(connection.pipeline) < 20_000
            assert writer.transport.get_write_buffer_size() > 0
            writer.transport.abort()

    run(test())


def test_a_body_that_breaks(run: Run) -> None:
    """Its handler sees that the client has gone; the client sees one answer, 400."""

    async def test() -> None:
        async with serving() as box:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            reader, writer = await box.connect(head)
            await box.app.arrived.wait()
            writer.write(b"nonsense\r\n")
            assert [await status_of(reader), await status_of(reader)] == [400, 0]
            assert box.app.bodies == []

    run(test())


def test_a_body_that_breaks_while_it_waits_for_its_turn(run: Run) -> None:
    """The request before it is answered first; its own never reaches the application."""

    async def test() -> None:
        async with serving() as box:
            broken = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
            reader, _ = await box.connect(b"GET /wait" + GET[5:] + broken + GET)
            await box.app.arrived.wait()
            box.app.may_answer.set()
            assert [await status_of(reader) for _ in range(3)] == [200, 400, 0]
            assert len(box.app.scopes) == 1

    run(test())


@pytest.mark.parametrize(
    ("count", "chunk", "status"),
    [
        (SMALL_CHUNKS, b"1\r\nx\r\n", 200),
        (SMALL_CHUNKS + 1, b"1\r\nx\r\n", 400),
        (SMALL_CHUNKS * 3, b"20\r\n%s\r\n" % (b"x" * 32), 200),
        (SMALL_CHUNKS * 3, b"1f\r\n%s\r\n" % (b"x" * 31), 400),
    ],
)
def test_very_many_small_chunks(run: Run, count: int, chunk: bytes, status: int) -> None:
    """Each costs what a large one costs: a megabyte byte by byte would hold the event loop."""

    async def test() -> None:
        async with serving() as box:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            reader, _ = await box.connect(head + chunk * count + b"0\r\n\r\n")
            assert await status_of(reader) == status
            assert len(box.app.bodies) == (status == 200)

    run(test())


def test_many_refusals_are_one_line(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A log that grows with each refused request fills the disk for anybody."""

    async def test() -> None:
        async with serving() as box:
            for _ in range(50):
                reader, writer = await box.connect(b"nonsense\r\n\r\n")
                assert await status_of(reader) == 400
                writer.close()

    run(test())
    assert len(caplog.records) == 1
