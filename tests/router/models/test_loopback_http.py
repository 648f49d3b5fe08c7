"""The client that speaks to models' servers, against servers that say anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from router.models.loopback_http import (
    ConnectionLostError,
    LoopbackClient,
    LoopbackResponse,
    NotListeningError,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"content-length: 4\r\ncontent-type: text/plain; charset=utf-8\r\n\r\ngood"
LIMIT_S = 60


class Server:
    """Counts connections and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.connections = 0
        self.hung_up = asyncio.Event()

    async def next(self, reader: asyncio.StreamReader) -> bytes:
        """The next request on a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        request = head + await reader.readexactly(length)
        self.asked.append(request)
        return request


@contextlib.asynccontextmanager
async def serving(server: Server, answer: Serve) -> AsyncIterator[LoopbackClient]:
    """A client of a server whose connections are served by `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            server.hung_up.set()
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = LoopbackClient(listening.sockets[0].getsockname()[1])
    try:
        async with asyncio.timeout(LIMIT_S):
            yield client
    finally:
        await client.close()
        listening.close()


def always(server: Server, answer: bytes) -> Serve:
    """Every request gets this answer, its connection stays open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.next(reader)
            writer.write(answer)
            await writer.drain()

    return serve


async def test_one_after_the_other_share_a_connection() -> None:
    """And the server gets what was meant for it."""
    server = Server()
    async with serving(server, always(server, GOOD)) as client:
        for number in range(5):
            sent = await client.request("POST", "/p", headers={"x-n": str(number)}, body=b"{}")
            assert sent == LoopbackResponse(200, "text/plain", b"good")
    assert server.connections == 1
    assert server.asked[3].startswith(b"POST /p HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-n: 3\r\n" in server.asked[3]
    assert server.asked[3].endswith(b"\r\n\r\n{}")


async def test_many_at_once_have_one_each() -> None:
    """Answers do not get mixed up, and the connections are used again."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            body = (await server.next(reader)).rpartition(b"\r\n\r\n")[2]
            await asyncio.sleep(0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(server, serve) as client:
        for _ in range(2):
            asked = [client.request("POST", "/", body=b"%d" % n) for n in range(16)]
            answers = await asyncio.gather(*asked)
            assert [a.body for a in answers] == [b"%d" % n for n in range(16)]
    assert server.connections == 16


async def test_chunks_and_pieces() -> None:
    """However an answer is cut, by the server or on its way."""
    whole = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size in range(1, 8):
            await server.next(reader)
            for start in range(0, len(whole), size):
                writer.write(whole[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)

    async with serving(server, serve) as client:
        for _ in range(1, 8):
            assert await client.request("GET", "/") == LoopbackResponse(200, "", b"abcde")
    assert server.connections == 1


async def test_a_stream_is_handed_out_as_it_comes() -> None:
    """Each piece before the next is sent; an answer of another type is not a stream."""
    server, go_on, pieces = Server(), asyncio.Event(), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.next(reader)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 6\r\n\r\n"
        writer.write(head + b"one")
        await go_on.wait()
        writer.write(b"two")
        await always(server, GOOD)(reader, writer)

    def hear(piece: bytes) -> None:
        pieces.append(piece)
        go_on.set()

    async with serving(server, serve) as client:
        stream = ("text/event-stream", hear)
        assert await client.request("GET", "/", stream=stream) == LoopbackResponse(
            200, stream[0], b""
        )
        assert pieces == [b"one", b"two"]
        assert (await client.request("GET", "/", stream=stream)).body == b"good"
        assert (await client.request("GET", "/")).body == b"good"
    assert (pieces, server.connections) == ([b"one", b"two"], 1)


async def test_what_the_listener_raises_is_raised() -> None:
    """And the connection, in the middle of an answer, is not used again."""
    server = Server()

    def hear(piece: bytes) -> None:
        raise ZeroDivisionError

    async with serving(server, always(server, GOOD)) as client:
        with pytest.raises(ZeroDivisionError):
            await client.request("GET", "/", stream=("text/plain", hear))
        assert (await client.request("GET", "/")).body == b"good"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-len",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngo",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
    ],
)
async def test_half_an_answer(answer: bytes) -> None:
    """The request may have been heeded: that is told, and never half a body."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.next(reader)
        writer.write(answer)
        await writer.drain()

    async with serving(server, serve) as client:
        with pytest.raises(ConnectionLostError):
            await client.request("POST", "/")


async def test_nobody_listens() -> None:
    """The request was certainly not heeded."""
    server = Server()
    async with serving(server, always(server, GOOD)) as client:
        await client.request("GET", "/")
    with pytest.raises(NotListeningError):
        await client.request("POST", "/")


async def test_a_connection_that_the_server_closes_is_not_used_again() -> None:
    """Whether it says so or not."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.next(reader)
        says_so = b"\r\nconnection: close" if server.connections % 2 else b""
        writer.write(GOOD.replace(b"\r\n", says_so + b"\r\n", 1))
        await writer.drain()

    async with serving(server, serve) as client:
        for number in range(1, 7):
            assert (await client.request("GET", "/")).body == b"good"
            assert server.connections == number
            for _ in range(20):  # the end of the connection is on its way
                await asyncio.sleep(0)


async def test_an_answer_that_nobody_asked_for() -> None:
    """It is not taken for the answer to the next request."""
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.next(reader)
            writer.write(
                GOOD + (GOOD.replace(b"good", b"evil") if server.connections == 1 else b"")
            )

    async with serving(server, serve) as client:
        assert (await client.request("GET", "/")).body == b"good"
        assert (await client.request("GET", "/")).body == b"good"
    assert server.connections == 2


@contextlib.asynccontextmanager
async def unanswered(
    server: Server,
) -> AsyncIterator[tuple[LoopbackClient, asyncio.Task[LoopbackResponse]]]:
    """A client, and a request of its that has arrived and gets no answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.next(reader)
        await reader.readexactly(1)

    async with serving(server, serve) as client:
        waiting = asyncio.create_task(client.request("POST", "/"))
        while not server.asked:
            await asyncio.sleep(0.01)
        yield client, waiting


async def test_whoever_no_longer_waits_hangs_up() -> None:
    """The server hears of it, and the connection is not used again."""
    server = Server()
    async with unanswered(server) as (_, waiting):
        waiting.cancel()
        await server.hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_closed_in_the_middle() -> None:
    """The waiting request fails with an error."""
    async with unanswered(Server()) as (client, waiting):
        await client.close()
        with pytest.raises(ConnectionLostError):
            await waiting
