"""Webhooks over real HTTP: signed, bounded, and never to private places."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from router.errors import InvalidInput
from router.predictions.webhook_sender import ANSWER_BYTES, HttpWebhookSender, load_secret

SECRET = "whsec_" + "QUJD" * 8


@dataclass
class Receiver:
    """A server that keeps what it is sent."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    redirected: int = 0


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """It answers 204 at /hook, 503 at /down and a redirect at /moved."""
    kept = Receiver()

    async def hook(request: web.Request) -> web.Response:
        kept.got.append((dict(request.headers), await request.read()))
        return web.Response(status=204)

    async def down(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound("/hook")

    app = web.Application()
    app.router.add_post("/hook", hook)
    app.router.add_get("/hook", hook)
    app.router.add_post("/down", down)
    app.router.add_post("/moved", moved)
    app.router.add_put("/hook", hook)

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (ANSWER_BYTES + 1))

    async def short(request: web.Request) -> web.Response:
        return web.json_response({"uploads": {}})

    app.router.add_post("/large", large)
    app.router.add_post("/short", short)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kept.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield kept
    await runner.cleanup()


@pytest.fixture
async def sender() -> AsyncIterator[HttpWebhookSender]:
    """One that may call this machine."""
    sender = HttpWebhookSender(SECRET, allow_private=True)
    yield sender
    await sender.close()


async def test_it_arrives_signed(receiver: Receiver, sender: HttpWebhookSender) -> None:
    """The body as it was, with headers that Standard Webhooks' own library verifies."""
    body = '{"id":"a","text":"é"}'.encode()
    assert await sender.send(f"{receiver.url}/hook", "msg_1", body) == 204
    headers, got = receiver.got[0]
    assert got == body
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == "msg_1"
    assert Webhook(SECRET).verify(got, headers) == {"id": "a", "text": "é"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(got + b" ", headers)


async def test_answers_are_read_up_to_a_limit(
    receiver: Receiver, sender: HttpWebhookSender
) -> None:
    """A larger one is as none, and its status still counts."""
    assert await sender.ask(f"{receiver.url}/short", "msg_1", b"{}") == (200, b'{"uploads": {}}')
    assert await sender.ask(f"{receiver.url}/large", "msg_1", b"{}") == (200, b"")
    assert await sender.ask("http://127.0.0.1:1/", "msg_1", b"{}") == (0, b"")


async def test_a_file_is_put(receiver: Receiver, sender: HttpWebhookSender, tmp_path: Path) -> None:
    """With its type and length, unsigned: the URL is all that a storage service asks for."""
    path = tmp_path / "picture"
    path.write_bytes(b"png" * 100_000)
    assert await sender.put(f"{receiver.url}/hook", path, "image/png") == 204
    headers, got = receiver.got[0]
    assert got == path.read_bytes()
    assert (headers["Content-Type"], headers["Content-Length"]) == ("image/png", "300000")
    assert "webhook-signature" not in headers
    await sender.put(f"{receiver.url}/hook", path, "no type\r\nX-Injected: 1")
    assert receiver.got[1][0]["Content-Type"] == "application/octet-stream"
    public = HttpWebhookSender(SECRET, allow_private=False)
    assert await public.put(f"{receiver.url}/hook", path, "image/png") == 0
    await public.close()
    with pytest.raises(FileNotFoundError):
        await sender.put(f"{receiver.url}/hook", tmp_path / "none", "image/png")


async def test_what_does_not_arrive(receiver: Receiver, sender: HttpWebhookSender) -> None:
    """An error's status, a redirect's (not followed), 0 where nobody answers."""
    assert await sender.send(f"{receiver.url}/down", "m", b"{}") == 503
    assert await sender.send(f"{receiver.url}/moved", "m", b"{}") == 302
    assert await sender.send("http://127.0.0.1:1/", "m", b"{}") == 0
    assert await sender.send("http://nosuch.invalid/", "m", b"{}") == 0
    assert receiver.got == []


async def test_private_places_are_not_called(receiver: Receiver) -> None:
    """Neither by address nor by name, when it is created and when it is sent."""
    sender = HttpWebhookSender(SECRET, allow_private=False)
    by_name = receiver.url.replace("127.0.0.1", "localhost")
    for url in (receiver.url, "http://169.254.169.254/", "http://[::1]/"):
        with pytest.raises(InvalidInput, match="public internet"):
            sender.check(url)
        assert await sender.send(f"{url}/hook", "m", b"{}") == 0
    assert await sender.send(f"{by_name}/hook", "m", b"{}") == 0
    for url in ("ftp://a.example/", "file:///etc/passwd", "x", "", "http://", "http://[/"):
        with pytest.raises(InvalidInput, match="http"):
            sender.check(url)
    with pytest.raises(InvalidInput):
        sender.check("https://a.example/" + "x" * 3000)
    sender.check("https://a.example/hook?x=1")
    assert receiver.got == []
    await sender.close()


SPELLINGS = [
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "𝟏𝟐𝟕.𝟎.𝟎.𝟏",
    "127.0.0.1.",
    "127.1",
    "2130706433",
]


@pytest.mark.parametrize(
    "host",
    [
        *SPELLINGS,
        "0x7f000001",
        "localhost",
        "ⓁocalhosT.",
        "a.localhost",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
    ],
)
async def test_no_spelling_of_a_private_place_is_called(host: str, receiver: Receiver) -> None:
    """Refused when it is created, not only when it is sent."""
    sender = HttpWebhookSender(SECRET, allow_private=False)
    url = receiver.url.replace("127.0.0.1", host) + "/hook"
    with pytest.raises(InvalidInput, match="public internet"):
        sender.check(url)
    assert await sender.send(url, "m", b"{}") == 0
    assert receiver.got == []
    await sender.close()


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    """It stays the same, is for this user's eyes only, and a broken file is replaced."""
    path = tmp_path / "webhook_secret"
    secret = load_secret(path)
    assert secret.startswith("whsec_")
    assert secret.count("_") == 1
    assert load_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("")
    assert load_secret(path) != secret


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"whsec_!!!", b"whsec_YQ==", b"other"])
def test_a_damaged_secret_is_kept_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The router starts with a new one, and says what happened to which file."""
    path = tmp_path / "webhook_secret"
    path.write_bytes(content)
    path.chmod(0o600)
    secret = load_secret(path)
    assert load_secret(path) == secret
    assert [p.read_bytes() for p in tmp_path.glob("webhook_secret.damaged-*")] == [content]
    assert "webhook_secret" in caplog.text
