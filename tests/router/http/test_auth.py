"""Keys, signatures, and the rule for a box without a key."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from router.errors import (
    MalformedRequest,
    PayloadTooLarge,
    RateLimited,
    RouterError,
    Unauthorized,
)
from router.http import signatures
from router.http.auth import AuthMiddleware, require_this_machine
from router.http.body_timeout import BodyReads
from router.http.errors import on_router_error
from router.http.signatures import CLOCK_SKEW_S, NonceCache, SignedBody, read_signature
from router.keys.key import FixedKeys, parse_keys, verifier_of
from router.shutdown import Shutdown

VECTORS = json.loads((Path(__file__).parents[2] / "edge" / "signature_vectors.json").read_text())[
    "vectors"
]
KEY = "0123456789abcdef0123456789abcdef"
BOUNDARY = "multipart/form-data; boundary=b"


def guarded(*keys: str, max_body_bytes: int = 1 << 20) -> tuple[AuthMiddleware, list[str]]:
    """A guarded application, and the list of what its handlers did."""
    done: list[str] = []

    async def reading(request: Request) -> Response:
        body = b"".join([chunk async for chunk in request.stream()])
        done.append("read")
        return PlainTextResponse(body)

    async def acting(request: Request) -> Response:
        done.append("acted")
        return PlainTextResponse("acted")

    app = Starlette(exception_handlers={RouterError: on_router_error})
    app.add_route("/health", acting, methods=["GET"])
    app.add_route("/predictions/{id}", acting, methods=["GET"])
    app.add_route("/predictions/{id}/cancel", acting, methods=["POST"])
    app.add_route("/{model}", reading, methods=["POST"])
    return AuthMiddleware(
        app, FixedKeys(parse_keys(keys)), max_body_bytes, BodyReads(Shutdown())
    ), done


def client(guard: AuthMiddleware, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client that comes from `peer`."""
    transport = httpx.ASGITransport(app=guard, client=(peer, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7777")


def signed(
    method: str, target: str, body: bytes = b"", *, key: str = KEY, **changes: str
) -> dict[str, str]:
    """The headers that sign a request as the edge function does, then `changes`."""
    timestamp = changes.get("timestamp", str(int(time.time())))
    nonce = changes.get("nonce", hashlib.sha256(f"{target}{time.time_ns()}".encode()).hexdigest())
    content_type = changes.get("content_type", BOUNDARY if body else "")
    digest = hashlib.sha256(body).hexdigest()
    text = "\n".join(["v2", timestamp, nonce, method, target, content_type, digest])
    signature = hmac.new(verifier_of(key), text.encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-callme-timestamp": timestamp,
        "x-callme-nonce": nonce,
        "x-callme-content-sha256": changes.get("digest", digest),
        "x-callme-signature": changes.get("signature", f"v2={signature}"),
    }
    return headers | ({"content-type": content_type} if body else {})


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_signatures_agree_with_the_edge_function(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors that the function's own tests use verify here, and not with another body."""
    monkeypatch.setattr(time, "time", lambda: int(vector["timestamp"]) + CLOCK_SKEW_S)
    path, _, query = vector["path"].partition("?")
    scope = {
        "method": vector["method"],
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
    }
    digest = hashlib.sha256(vector["body"].encode()).hexdigest()
    headers = {
        "x-callme-timestamp": vector["timestamp"],
        "x-callme-nonce": vector["nonce"],
        "x-callme-content-sha256": digest,
        "x-callme-signature": vector["signature"],
        "content-type": vector["content_type"],
    }
    if vector["key_id"] is not None:
        headers["x-callme-key-id"] = vector["key_id"]
    keys = parse_keys([f"{vector['key_id'] or 'web'}:{vector['key']}"])
    signed_by = read_signature(scope, Headers(headers), keys)
    assert (signed_by.key, signed_by.body_sha256) == (keys[0], digest)
    headers["x-callme-content-sha256"] = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(Unauthorized):
        read_signature(scope, Headers(headers), keys)


async def test_a_signed_request_is_served() -> None:
    """A form, a GET and a POST without a body, each with its own signature."""
    guard, done = guarded(f"web:{KEY}")
    async with client(guard) as http:
        answer = await http.post("/echo", content=b"body", headers=signed("POST", "/echo", b"body"))
        assert (answer.status_code, answer.content) == (200, b"body")
        headers = signed("GET", "/predictions/a?x=1")
        assert (await http.get("/predictions/a?x=1", headers=headers)).status_code == 200
        headers = signed("POST", "/predictions/a/cancel")
        assert (await http.post("/predictions/a/cancel", headers=headers)).status_code == 200
    assert done == ["read", "acted", "acted"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/predictions/a", b""),
        ("POST", "/predictions/a/cancel", b""),
        ("POST", "/predictions/a/cancel", b"unread"),
        ("POST", "/echo", b"body"),
        ("POST", "/no/such/route", b"body"),
        ("POST", "/nosuch", b""),
    ],
)
@pytest.mark.parametrize(
    "wrong",
    [
        {"signature": "v2=" + "0" * 64},
        {"signature": "v1=" + "0" * 64},
        {"timestamp": str(int(time.time()) - CLOCK_SKEW_S - 60)},
        {"timestamp": "soon"},
        {"timestamp": "²"},
        {"nonce": "short"},
        {"digest": ""},
        {"digest": "0" * 64},
    ],
)
async def test_a_forged_request_does_nothing(
    method: str, path: str, body: bytes, wrong: dict[str, str]
) -> None:
    """401 before any handler has acted, also where a handler never reads the body."""
    guard, done = guarded(f"web:{KEY}")
    headers = signed(method, path, body, **wrong)
    raw = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    async with client(guard) as http:
        answer = await http.request(method, path, content=body, headers=raw)
    assert answer.status_code == 401, answer.text
    assert answer.json()["error"]["code"] == "unauthorized"
    assert done == []


async def test_what_is_changed_after_signing_is_refused() -> None:
    """Another body, path, query, method, content type or key id does not verify."""
    guard, _ = guarded(f"web:{KEY}")
    async with client(guard) as http:
        good = signed("POST", "/echo", b"body")
        for path, extra in (
            ("/other", {}),
            ("/echo?x=1", {}),
            ("/echo", {"content-type": "multipart/form-data; boundary=c"}),
            ("/echo", {"x-callme-key-id": "nobody"}),
            ("/echo", {"x-callme-content-sha256": hashlib.sha256(b"altered").hexdigest()}),
        ):
            answer = await http.post(path, content=b"body", headers={**good, **extra})
            assert answer.status_code == 401, (path, extra)
        # The nonce was not spent by the failures.
        assert (await http.post("/echo", content=b"body", headers=good)).status_code == 200
        replayed = await http.post("/echo", content=b"body", headers=good)
        assert replayed.status_code == 401
        assert "seen before" in replayed.text
        again = signed("POST", "/echo", b"body")
        answer = await http.post("/echo", content=b"altered", headers=again)
        assert (answer.status_code, "not the one" in answer.text) == (401, True)


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


def test_nonces_of_one_key_are_not_anothers() -> None:
    """A key that has used up its places is told to come later, not that it repeats itself;
    another one notices nothing."""
    nonces = NonceCache(kept=2)
    nonces.claim("web", "a", 1000.0)
    nonces.claim("web", "b", 1010.0)
    with pytest.raises(RateLimited) as full:
        nonces.claim("web", "c", 1020.0)
    assert full.value.retry_after_s == 2 * CLOCK_SKEW_S - 20
    assert full.value.message == "Cannot serve more: this key has signed 2 requests in 240 s"
    with pytest.raises(RateLimited) as nearly:
        nonces.claim("web", "c", 1000.0 + 2 * CLOCK_SKEW_S - 0.5)
    assert nearly.value.retry_after_s == 1.0
    with pytest.raises(Unauthorized, match="seen before"):
        nonces.claim("web", "a", 1020.0)
    nonces.claim("app", "a", 1020.0)
    nonces.claim("web", "c", 1000.0 + 2 * CLOCK_SKEW_S + 1)


async def test_a_refusal_takes_the_place_of_the_handlers_answer() -> None:
    """A handler that answers before it has read a form: 401 all the same, and no exception."""
    guard, _ = guarded(f"web:{KEY}")
    async with client(guard) as http:
        headers = signed("POST", "/no", b"body", signature="v2=" + "0" * 64)
        answer = await http.put("/no", content=b"body", headers=headers)
        assert answer.status_code == 401
        headers = signed("POST", "/predictions", b"body", signature="v2=" + "0" * 64)
        answer = await http.post("/predictions", content=b"body", headers=headers)
        assert answer.status_code == 401


async def test_a_signed_body_is_bounded() -> None:
    """What is read before the application sees it has a limit."""
    guard, _ = guarded(f"web:{KEY}", max_body_bytes=10)
    async with client(guard) as http:
        headers = signed("POST", "/predictions/a/cancel", b"x" * 11)
        answer = await http.post("/predictions/a/cancel", content=b"x" * 11, headers=headers)
    assert answer.status_code == 413


async def test_bearer_keys() -> None:
    """Any of the configured keys, and nothing else; /health needs none."""
    guard, _ = guarded("web:first-key", "second-key")
    async with client(guard) as http:
        for key, status in (("first-key", 200), ("second-key", 200), ("web", 401), ("", 401)):
            headers = {"authorization": f"Bearer {key}"}
            assert (await http.get("/predictions/a", headers=headers)).status_code == status, key
        none = await http.get("/predictions/a")
        assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")
        assert (await http.get("/health")).status_code == 200


async def test_the_word_token_is_bearer_too() -> None:
    """`Authorization: Token <key>`, as old Replicate clients send it; no other word."""
    guard, _ = guarded(KEY)
    async with client(guard) as http:
        for word, status in (("Token", 200), ("token", 200), ("Basic", 401), ("", 401)):
            headers = {"authorization": f"{word} {KEY}"}
            assert (await http.get("/predictions/a", headers=headers)).status_code == status
        wrong = await http.get("/predictions/a", headers={"authorization": "Token nope"})
        assert wrong.status_code == 401


async def test_with_a_key_other_machines_are_served() -> None:
    """A key is enough, wherever the request comes from."""
    guard, _ = guarded("k" * 32)
    async with client(guard, "203.0.113.7") as http:
        headers = {"authorization": f"Bearer {'k' * 32}", "cf-ray": "1", "host": "x.example"}
        assert (await http.get("/predictions/a", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("127.0.0.1", {"origin": "http://localhost:3000"}, 200),
        ("192.168.1.5", {}, 403),
        ("203.0.113.7", {}, 403),
        ("127.0.0.1", {"cf-ray": "1"}, 403),
        ("127.0.0.1", {"cf-connecting-ip": "203.0.113.7"}, 403),
        ("127.0.0.1", {"x-forwarded-for": "203.0.113.7"}, 403),
        ("127.0.0.1", {"forwarded": "for=203.0.113.7"}, 403),
        ("127.0.0.1", {"origin": "https://evil.example"}, 403),
        ("127.0.0.1", {"origin": "null"}, 403),
        ("127.0.0.1", {"host": "evil.example:7777"}, 403),
        ("127.0.0.1", {"host": "[::1"}, 403),
        ("127.0.0.1", {"origin": "http://[::1"}, 403),
    ],
)
async def test_without_a_key_only_this_machine(
    peer: str, headers: dict[str, str], status: int
) -> None:
    """Not through a proxy, not from another address, not from a page of another site."""
    guard, _ = guarded()
    async with client(guard, peer) as http:
        assert (await http.get("/predictions/a", headers=headers)).status_code == status


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


async def test_a_signed_body_may_be_as_long_as_the_limit() -> None:
    """Exactly so many bytes are taken."""
    guard, done = guarded(f"web:{KEY}", max_body_bytes=10)
    async with client(guard) as http:
        headers = signed("POST", "/predictions/a/cancel", b"x" * 10)
        answer = await http.post("/predictions/a/cancel", content=b"x" * 10, headers=headers)
    assert (answer.status_code, done) == (200, ["acted"])


@pytest.mark.parametrize(("length", "status"), [(15, 401), (16, 200), (128, 200), (129, 401)])
async def test_the_length_of_a_nonce(length: int, status: int) -> None:
    """16 to 128 characters."""
    guard, _ = guarded(f"web:{KEY}")
    async with client(guard) as http:
        headers = signed("GET", "/predictions/a", nonce="n" * length)
        assert (await http.get("/predictions/a", headers=headers)).status_code == status


def test_the_oldest_nonces_are_forgotten_first() -> None:
    """Those that the clock refuses by now; the others are still known."""
    nonces = NonceCache(kept=3)
    for at, nonce in enumerate("abc"):
        nonces.claim("web", nonce, 1000.0 + 100 * at)
    nonces.claim("web", "d", 1000.0 + 2 * CLOCK_SKEW_S + 1)
    for known in "bcd":
        with pytest.raises(Unauthorized, match="seen before"):
            nonces.check("web", known)
    nonces.check("web", "a")


def test_a_nonce_is_kept_as_long_as_its_signature() -> None:
    """A timestamp may be two minutes ahead, and is accepted until it is two minutes old."""
    nonces = NonceCache()
    nonces.claim("web", "a", 1000.0)
    nonces.claim("web", "b", 1000.0 + 2 * CLOCK_SKEW_S)
    with pytest.raises(Unauthorized, match="seen before"):
        nonces.check("web", "a")


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


def test_an_old_client_names_no_host() -> None:
    """HTTP/1.0 has no Host. A program of this machine is served all the same."""
    require_this_machine({"type": "http", "client": ("127.0.0.1", 1), "headers": []})


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ("", "Cannot authenticate: send 'Authorization: Bearer <key>' or sign"),
        (f"Basic {KEY}", "Cannot authenticate: send 'Authorization: Bearer <key>' or sign"),
        ("Bearer nobody's", "Cannot authenticate: the key is not accepted"),
        (f"Bearer x {KEY}", "Cannot authenticate: the key is not accepted"),
    ],
)
async def test_what_a_refusal_says(authorization: str, said: str) -> None:
    """What to send, or that it is not accepted; never which part was right."""
    guard, _ = guarded(f"web:{KEY}")
    async with client(guard) as http:
        answer = await http.get("/predictions/a", headers={"authorization": authorization})
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, said)


async def test_a_path_is_signed_as_it_is_sent() -> None:
    """Two paths that decode to the same one are different for a signature."""
    guard, _ = guarded(f"web:{KEY}")
    async with client(guard) as http:
        for target, status in (("/predictions/a%2eb", 200), ("/predictions/a.b", 401)):
            headers = signed("GET", target)
            answer = await http.get("/predictions/a%2eb", headers=headers)
            assert answer.status_code == status, target


async def test_a_message_may_leave_out_what_it_does_not_need() -> None:
    """ASGI: no `body` is an empty one, and no `more_body` is the last message."""
    for last in ({}, {"body": b""}, {"more_body": False}):
        left: list[Message] = [last, {"more_body": True}, {"body": b"ab", "more_body": True}]

        async def receive(left: list[Message] = left) -> Message:
            return {"type": "http.request", **left.pop()}

        body = SignedBody(receive, hashlib.sha256(b"ab").hexdigest(), 2)
        await body.read_ahead()
        assert not left
        message = await body.receive()
        assert (message["body"], message["more_body"]) == (b"ab", False)


async def test_what_is_not_signed_is_passed_on_as_it_came() -> None:
    """The lifespan of the application, and the body of a request with a key or without."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope["type"], receive, send))

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        raise AssertionError("nothing is sent")

    guard = AuthMiddleware(app, FixedKeys(parse_keys([KEY])), 1, BodyReads(Shutdown()))
    await guard({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan", receive, send]
    for keys in ((), (KEY,)):
        guard, _ = guarded(*keys)
        async with client(guard) as http:
            headers = {"authorization": f"Bearer {KEY}"}
            assert (await http.post("/echo", content=b"body", headers=headers)).content == b"body"
