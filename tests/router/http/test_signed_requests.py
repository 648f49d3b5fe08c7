"""Signatures: whose is taken, what it covers, and that none serves twice."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from router.errors import (
    RateLimited,
    Unauthorized,
)
from router.http.auth import AuthMiddleware
from router.http.body_timeout import BodyReads
from router.http.signatures import CLOCK_SKEW_S, NonceCache, SignedBody, read_signature
from router.keys.key import FixedKeys, parse_keys
from router.shutdown import Shutdown
from tests.router.http.guarded import KEY, client, guarded, signed

VECTORS = json.loads((Path(__file__).parents[2] / "edge" / "signature_vectors.json").read_text())[
    "vectors"
]


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


def test_nonces_of_one_key_are_not_anothers() -> None:
    """A key that has used up its places gets a time to come again, and no word of a repetition;
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


async def test_a_signed_body_is_bounded() -> None:
    """What is read before the application sees it has a limit."""
    guard, _ = guarded(f"web:{KEY}", max_body_bytes=10)
    async with client(guard) as http:
        headers = signed("POST", "/predictions/a/cancel", b"x" * 11)
        answer = await http.post("/predictions/a/cancel", content=b"x" * 11, headers=headers)
    assert answer.status_code == 413


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
