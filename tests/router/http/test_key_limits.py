"""Limits of keys, and that nobody uses up another's."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from router.errors import RateLimited, RouterError
from router.http.auth import AuthMiddleware, KeyLimits, caller_of
from router.http.body_timeout import BodyReads
from router.http.errors import on_router_error
from router.keys.key import FixedKeys, Key, parse_keys, verifier_of
from router.shutdown import Shutdown
from tests.router.http.guarded import client, signed

WEB_KEY = "0123456789abcdef0123456789abcdef"
BEARER = {"authorization": f"Bearer {WEB_KEY}"}


def limited(gate: asyncio.Event, *keys: Key) -> AuthMiddleware:
    """A guarded application: /slow waits for the gate, POST /{model} echoes its body."""

    async def slow(request: Request) -> Response:
        await gate.wait()
        return PlainTextResponse(caller_of(request).owner)

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = Starlette(exception_handlers={RouterError: on_router_error})
    app.add_route("/slow", slow, methods=["GET"])
    app.add_route("/{model}", echo, methods=["POST"])
    return AuthMiddleware(app, FixedKeys(keys), 1 << 20, BodyReads(Shutdown()))


def opened() -> asyncio.Event:
    """A gate that stands open."""
    gate = asyncio.Event()
    gate.set()
    return gate


async def test_requests_per_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fourth of three a minute is 429 with when to come again; a minute later it is served;
    another key is served all along."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    keys = parse_keys([f"web:{WEB_KEY}", "ops:another-key-of-16-chars"], requests_per_minute=3)
    async with client(limited(opened(), *keys)) as http:
        for _ in range(3):
            assert (await http.get("/slow", headers=BEARER)).status_code == 200
        now += 20
        over = await http.get("/slow", headers=BEARER)
        assert (over.status_code, over.json()["error"]["code"]) == (429, "rate_limited")
        assert 39 <= int(over.headers["retry-after"]) <= 41
        assert "3 requests a minute" in over.json()["error"]["message"]
        other = {"authorization": "Bearer another-key-of-16-chars"}
        assert (await http.get("/slow", headers=other)).status_code == 200
        now += 61
        assert (await http.get("/slow", headers=BEARER)).status_code == 200


async def test_requests_at_a_time() -> None:
    """A third at a time is 429; one that ends makes room, also one that failed."""
    gate = asyncio.Event()
    guard = limited(gate, *parse_keys([f"web:{WEB_KEY}"], concurrent_requests=2))
    async with client(guard) as http:
        first = [asyncio.create_task(http.get("/slow", headers=BEARER)) for _ in range(2)]
        async with asyncio.timeout(30):
            while guard._limits._in_flight["web"] < 2:
                await asyncio.sleep(0)
        over = await http.get("/slow", headers=BEARER)
        assert (over.status_code, over.headers["retry-after"]) == (429, "1")
        gate.set()
        assert [(await task).text for task in first] == ["web", "web"]
        for _ in range(3):
            assert (await http.get("/nosuch", headers=BEARER)).status_code == 405
        assert (await http.get("/slow", headers=BEARER)).status_code == 200
    assert not guard._limits._in_flight


async def test_one_that_ends_frees_one_slot() -> None:
    """And no other: those that are still answered count."""
    limits = KeyLimits()
    (key,) = parse_keys([f"web:{WEB_KEY}"], concurrent_requests=3)
    for _ in range(3):
        await limits.enter(key)
    for _ in range(2):
        limits.leave(key)
        await limits.enter(key)
        with pytest.raises(RateLimited):
            await limits.enter(key)
    limits.leave(key)
    limits.leave(key)
    await limits.enter(key)
    await limits.enter(key)
    with pytest.raises(RateLimited):
        await limits.enter(key)


@pytest.mark.parametrize("path", ["/echo", "/a/b"])
async def test_a_signed_request_counts_when_it_verifies(path: str) -> None:
    """A form read as it comes and one read ahead alike; forged ones use up nothing."""
    guard = limited(opened(), *parse_keys([f"web:{WEB_KEY}"], requests_per_minute=2))
    async with client(guard) as http:

        async def post(**changes: str) -> httpx.Response:
            headers = signed("POST", path, b"body", key=WEB_KEY, **changes)
            return await http.post(path, content=b"body", headers=headers)

        for _ in range(5):
            assert (await post(signature="v2=" + "0" * 64)).status_code == 401
        served = 200 if path == "/echo" else 404
        assert [(await post()).status_code for _ in range(3)] == [served, served, 429]
        assert (await post()).json()["error"]["code"] == "rate_limited"
    assert not guard._limits._in_flight


async def test_a_request_over_its_limit_uses_up_no_nonce() -> None:
    """429 and later 200 with the same signature; a repeated one uses up no request of the key."""
    gate = asyncio.Event()
    guard = limited(gate, *parse_keys([f"web:{WEB_KEY}"], concurrent_requests=1))
    async with client(guard) as http:
        first = asyncio.create_task(http.get("/slow", headers=BEARER))
        async with asyncio.timeout(30):
            while not guard._limits._in_flight["web"]:
                await asyncio.sleep(0)
        headers = signed("GET", "/slow", key=WEB_KEY)
        assert (await http.get("/slow", headers=headers)).status_code == 429
        gate.set()
        await first
        assert (await http.get("/slow", headers=headers)).status_code == 200
        assert (await http.get("/slow", headers=headers)).status_code == 401
    guard = limited(gate, *parse_keys([f"web:{WEB_KEY}"], requests_per_minute=2))
    async with client(guard) as http:
        headers = signed("GET", "/slow", key=WEB_KEY)
        got = [(await http.get("/slow", headers=headers)).status_code for _ in range(4)]
        assert got == [200, 401, 401, 401]
        assert (await http.get("/slow", headers=BEARER)).status_code == 200


async def test_the_local_key_is_for_this_machine() -> None:
    """From here it opens; through a proxy, from elsewhere, or as a signature it does not."""
    local = Key("local", verifier_of(WEB_KEY), local=True)
    web = Key("web", verifier_of("another-key-of-16-chars"))
    guard = limited(opened(), web, local)
    async with client(guard) as http:
        assert (await http.get("/slow", headers=BEARER)).text == "local"
        proxied = await http.get("/slow", headers={**BEARER, "cf-ray": "1"})
        assert proxied.status_code == 401
        headers = signed("POST", "/echo", b"body", key=WEB_KEY)
        assert (await http.post("/echo", content=b"body", headers=headers)).status_code == 401
    async with client(guard, "192.0.2.7") as http:
        assert (await http.get("/slow", headers=BEARER)).status_code == 401
