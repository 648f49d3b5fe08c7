"""How much is read of a body, for whom, and how long it may take."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from router.errors import (
    MalformedRequest,
    PayloadTooLarge,
    Unauthorized,
)
from router.http import signatures
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.signatures import SignedBody
from router.keys.key import FixedKeys, parse_keys
from router.shutdown import Shutdown
from tests.router.http.guarded import KEY, client, guarded, signed


def nobody_signed() -> dict[str, dict[str, str]]:
    """Heads that no holder of a key has made, by what is wrong with them."""
    good = signed("POST", "/echo", b"body")
    return {
        "short": good | {"x-callme-signature": "v2=00"},
        "another": good | {"x-callme-signature": "v2=" + "0" * 64},
        "stale": signed("POST", "/echo", b"body", timestamp=str(int(time.time()) - 999)),
        "unknown": good | {"x-callme-key-id": "nobody"},
        **{
            f"without {name}": {k: v for k, v in good.items() if k != f"x-callme-{name}"}
            for name in ("timestamp", "nonce", "content-sha256")
        },
    }


@pytest.mark.parametrize("wrong", nobody_signed())
@pytest.mark.parametrize("path", ["/echo", "/predictions/a/cancel"])
async def test_a_strangers_body_is_not_read(path: str, wrong: str) -> None:
    """Not one byte, so any number of bodies that never end keep nobody out."""
    guard, done = guarded(f"web:{KEY}")
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(k.encode(), v.encode()) for k, v in nobody_signed()[wrong].items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await guard(scope, receive, send)
    assert (sent[0]["status"], done) == (401, [])


async def test_a_trickle_for_a_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no reason to wait on, even for a head that was signed."""
    monkeypatch.setattr(signatures, "BODY_BASE_S", 0.1)

    async def trickle() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    body = SignedBody(trickle, "0" * 64, 1 << 20)
    with pytest.raises(MalformedRequest, match="too slowly"):
        async with asyncio.timeout(30):
            await body.read_ahead()


async def test_a_long_body_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come buys time for what is to come."""
    monkeypatch.setattr(signatures, "BODY_BASE_S", 60.0)
    monkeypatch.setattr(signatures, "BODY_MIN_BYTES_PER_S", 1)
    loop = asyncio.get_running_loop()
    now, real = 0.0, loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + now)
    left = [False, True, True, True]

    async def slow() -> Message:
        nonlocal now
        now += 50
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x" * 50, "more_body": left.pop()}

    body = SignedBody(slow, hashlib.sha256(b"x" * 200).hexdigest(), 1 << 20)
    await body.read_ahead()
    assert not left


async def test_a_body_that_comes_byte_by_byte_is_kept_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A message for each byte would take three hundred times the body."""
    monkeypatch.setattr(signatures, "BLOCK_BYTES", 4000)
    content = bytes(range(256)) * 30
    left = list(reversed(content))

    async def byte_by_byte() -> Message:
        await asyncio.sleep(0)  # as a socket does, so that the loop forgets old timers
        byte = bytes([left.pop()])
        return {"type": "http.request", "body": byte, "more_body": bool(left)}

    body = SignedBody(byte_by_byte, hashlib.sha256(content).hexdigest(), 1 << 20)
    await body.read_ahead()
    messages = [await body.receive(), await body.receive()]
    assert b"".join(m["body"] for m in messages) == content
    assert [len(m["body"]) for m in messages] == [4000, 3680]
    assert [m["more_body"] for m in messages] == [True, False]
    assert {m["type"] for m in messages} == {"http.request"}


async def test_a_form_to_a_model_streams_and_nothing_else_does() -> None:
    """A model's form is spooled while it comes; every other handler starts with the whole body
    checked. Whether it is a form does not depend on how its Content-Type is written."""
    for method, path, content_type, streams in (
        ("POST", "/echo", "multipart/form-data; boundary=b", True),
        ("POST", "/echo", "Multipart/Form-Data; boundary=b", True),
        ("PUT", "/echo", "multipart/form-data; boundary=b", False),
        ("POST", "/v1/files", "multipart/form-data; boundary=b", False),
        ("POST", "/echo", "application/json", False),
    ):
        pieces = iter([b"bo", b"dy"])
        left_to_read: list[int] = []

        async def receive(pieces: Iterator[bytes] = pieces) -> Message:
            piece = next(pieces)
            return {"type": "http.request", "body": piece, "more_body": piece == b"bo"}

        async def app(
            scope: Scope,
            receive: Receive,
            send: Send,
            pieces: Iterator[bytes] = pieces,
            left_to_read: list[int] = left_to_read,
        ) -> None:
            left_to_read.append(len(list(pieces)))

        async def send(message: Message) -> None:
            """Nothing is sent."""

        head = signed(method, path, b"body", content_type=content_type)
        headers = [(name.encode(), value.encode()) for name, value in head.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        guard = AuthMiddleware(
            app, FixedKeys(parse_keys([f"web:{KEY}"])), 1 << 20, BodyReads(Shutdown())
        )
        await guard(scope, receive, send)
        assert left_to_read == [2 if streams else 0], (method, path, content_type)


async def test_a_handler_that_answers_without_reading() -> None:
    """Its answer goes out only if the rest of the form is the one that was signed."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("acted")(scope, receive, send)

    guard = AuthMiddleware(app, FixedKeys(parse_keys([f"web:{KEY}"])), 10, BodyReads(Shutdown()))
    for body, status in ((b"body", 200), (b"bode", 401), (b"x" * 11, 413)):
        signed_as = body if status == 413 else b"body"
        async with client(guard) as http:
            headers = signed("POST", "/echo", signed_as)
            answer = await http.post("/echo", content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert ("acted" in answer.text) == (status == 200)


async def test_a_body_that_was_refused_stays_refused() -> None:
    """Asked again, it is not read on as if it had been checked."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    body = SignedBody(receive, "0" * 64, 10)
    for read in (body.read_ahead, body.receive, body.receive):
        with pytest.raises(Unauthorized, match="ended early"):
            await read()
    await body.drain()  # nothing is left to check


async def test_a_refused_body_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is sent at once, however much of the body is still to come."""
    monkeypatch.setattr(signatures, "BODY_BASE_S", 0.1)

    async def large() -> Message:
        return {"type": "http.request", "body": b"x" * 11, "more_body": True}

    async def slow() -> Message:
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await never

    for receive, refusal in ((large, PayloadTooLarge), (slow, MalformedRequest)):
        body = SignedBody(receive, "0" * 64, 10)
        for read in (body.read_ahead, body.receive):
            with pytest.raises(refusal):
                await read()
        await body.drain()
