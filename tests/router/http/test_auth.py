"""Keys, signatures, and the rule for a box without a key."""

from __future__ import annotations

import pytest

from router.http.auth import require_this_machine
from tests.router.http.guarded import KEY, client, guarded, signed


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
