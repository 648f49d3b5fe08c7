"""Where the box's address is told, and what is told of it when that fails."""

from __future__ import annotations

import asyncio
import html
import json
import os
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from router.tunnel import announcers
from router.tunnel.announcers import (
    Address,
    Command,
    PublishError,
    PublishSetup,
    SupabaseSecrets,
    WebhookPublisher,
    make_publisher,
)

KEY = "ck_not-a-real-key-0123456789"
ADDRESS = Address("https://a-b-c.trycloudflare.com", "tunnel", KEY)
HOOK_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105


class Listener:
    """An HTTP server that keeps what it gets and answers with `status`."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 201
        self.headers: dict[str, str] = {}
        self.said: Callable[[web.Request, str], str] = lambda request, body: "said no"
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Any request."""
        self.got.append((request.path, dict(request.headers), await request.read()))
        said = self.said(request, await request.text())
        return web.Response(status=self.status, headers=self.headers, text=said)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """A listener on a free loopback port."""
    listening = Listener()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", listening.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    listening.url = f"http://{host}:{port}"
    yield listening
    await runner.cleanup()


async def test_supabase_gets_the_webhook_secret_too(listener: Listener) -> None:
    """The function that receives webhooks verifies with it; an error message never shows it."""
    there = SupabaseSecrets("abc", "sbp_token", listener.url, webhook_secret=HOOK_SECRET)
    await there.publish(ADDRESS)
    body = json.loads(listener.got[0][2])
    assert {"name": "CALLME_WEBHOOK_SECRET", "value": HOOK_SECRET} in body
    listener.status, listener.said = 400, lambda _, body: body
    with pytest.raises(PublishError) as raised:
        await there.publish(ADDRESS)
    assert HOOK_SECRET not in str(raised.value)
    assert HOOK_SECRET not in repr(there) + there.preview(ADDRESS)


async def test_supabase_gets_its_secrets(listener: Listener) -> None:
    """One request in the Management API's form, with our name on it."""
    await SupabaseSecrets("abc", "sbp_token", listener.url).publish(ADDRESS)
    path, headers, body = listener.got[0]
    assert path == "/v1/projects/abc/secrets"
    assert headers["Authorization"] == "Bearer sbp_token"
    assert headers["User-Agent"].startswith("callme/")
    assert json.loads(body) == [
        {"name": "GPU_BACKEND_URL", "value": ADDRESS.url},
        {"name": "GPU_BACKEND_KEY", "value": KEY},
        {"name": "GPU_BACKEND_KEY_ID", "value": "tunnel"},
    ]
    told = replace(ADDRESS, models="caption:image,translate")
    await SupabaseSecrets("abc", "sbp_token", listener.url).publish(told)
    last = json.loads(listener.got[1][2])[-1]
    assert last == {"name": "GPU_BACKEND_MODELS", "value": "caption:image,translate"}


@pytest.mark.parametrize(
    ("status", "headers", "hopeless", "retry_after_s"),
    [
        (401, {}, True, None),
        (404, {}, True, None),
        (302, {"Location": "/elsewhere"}, False, None),
        (429, {"Retry-After": "7"}, False, 7.0),
        (503, {}, False, None),
    ],
)
async def test_a_refusal_says_whether_to_try_again(
    listener: Listener,
    status: int,
    headers: dict[str, str],
    hopeless: bool,
    retry_after_s: float | None,
) -> None:
    """With the other side's status and words; a redirect is not followed with a token."""
    listener.status, listener.headers = status, headers
    with pytest.raises(PublishError, match=f"answered {status}: said no") as caught:
        await SupabaseSecrets("abc", "sbp_token", listener.url).publish(ADDRESS)
    assert (caught.value.hopeless, caught.value.retry_after_s) == (hopeless, retry_after_s)
    assert "sbp_token" not in str(caught.value)
    assert len(listener.got) == 1


ODD_KEY = 'a "quoted"/<key> of naïve 猫 & more'
REPEATING: dict[str, Callable[[str, str], str]] = {
    "the body": lambda body, key: f"invalid: {body}",
    "the body in a document": lambda body, key: json.dumps({"invalid": body}),
    "another JSON": lambda body, key: json.dumps(json.loads(body), ensure_ascii=True),
    "PHP's JSON": lambda body, key: json.dumps(key).replace("/", "\\/"),
    "a page": lambda body, key: f"<p>{html.escape(key)}",
    "a query": lambda body, key: urllib.parse.urlencode({"k": key}, quote_via=urllib.parse.quote),
    "a key at the cut": lambda body, key: "x" * 190 + key,
}


@pytest.mark.parametrize("repeats", REPEATING)
@pytest.mark.parametrize("key", [KEY, ODD_KEY])
@pytest.mark.parametrize("kind", ["supabase", "webhook"])
async def test_an_answer_that_repeats_the_request_is_told_without_the_key(
    listener: Listener, kind: str, key: str, repeats: str
) -> None:
    """However it writes it down, and also where only its first part would be shown."""
    listener.status = 500
    listener.said = lambda request, body: REPEATING[repeats](body, key)
    publisher = (
        SupabaseSecrets("abc", "sbp_token", listener.url)
        if kind == "supabase"
        else WebhookPublisher(f"{listener.url}/hook", HOOK_SECRET)
    )
    with pytest.raises(PublishError, match="answered 500") as caught:
        await publisher.publish(Address(ADDRESS.url, "tunnel", key))
    for part in (key[:8], key[-8:], "ck_", "uoted", "aïve", "quot;"):
        assert part not in str(caught.value)
    assert "<key>" in str(caught.value)


async def test_an_answer_is_told_without_tokens(listener: Listener) -> None:
    """Supabase's token and a webhook's path, which may be all that protects it."""
    listener.status = 404
    listener.said = lambda request, body: f"{request.headers.get('Authorization')} {request.path}"
    with pytest.raises(PublishError, match="answered 404: Bearer <hidden> ") as caught:
        await SupabaseSecrets("abc", "sbp_token", listener.url).publish(ADDRESS)
    assert "sbp_token" not in str(caught.value)
    with pytest.raises(PublishError, match=r"answered 404: None <hidden>$"):
        await WebhookPublisher(f"{listener.url}/hook/a-secret", HOOK_SECRET).publish(ADDRESS)


async def test_nobody_there_is_worth_another_try() -> None:
    """No connection, no verdict."""
    with pytest.raises(PublishError, match="cannot be reached") as caught:
        await SupabaseSecrets("abc", "t", "http://127.0.0.1:1").publish(ADDRESS)
    assert not caught.value.hopeless


async def test_a_command_has_the_address_in_its_environment(tmp_path: Path) -> None:
    """And what else the operator's shell had; it runs where it was started."""
    line = 'echo "$GPU_BACKEND_URL $GPU_BACKEND_KEY_ID $GPU_BACKEND_KEY $MINE" > told'
    env = {"PATH": os.environ["PATH"], "MINE": "x"}
    await Command(line, tmp_path, env).publish(ADDRESS)
    assert (tmp_path / "told").read_text() == f"{ADDRESS.url} tunnel {KEY} x\n"


async def test_a_command_that_fails_is_told_without_the_key(tmp_path: Path) -> None:
    """Its code and last words."""
    line = 'echo "no such secret: $GPU_BACKEND_KEY"; exit 3'
    with pytest.raises(PublishError, match="code 3: no such secret: <key>") as caught:
        await Command(line, tmp_path, dict(os.environ)).publish(ADDRESS)
    assert KEY not in str(caught.value)


async def test_a_command_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With everything that it has started."""
    monkeypatch.setattr(announcers, "COMMAND_LIMIT_S", 0.5)
    with pytest.raises(PublishError, match="took over"):
        line = "sleep 600 & echo $! > pid; wait"
        await Command(line, tmp_path, dict(os.environ)).publish(ADDRESS)
    sleeper = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while _is_alive(sleeper):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_webhook_is_signed(listener: Listener) -> None:
    """The Standard Webhooks library verifies it, and not when it was altered."""
    listener.status = 204
    await WebhookPublisher(f"{listener.url}/hook", HOOK_SECRET).publish(ADDRESS)
    path, headers, body = listener.got[0]
    assert path == "/hook"
    told: Any = Webhook(HOOK_SECRET).verify(body.decode(), headers)
    assert told == {"url": ADDRESS.url, "key": KEY, "key_id": "tunnel"}
    more = replace(ADDRESS, models="caption:image")
    await WebhookPublisher(f"{listener.url}/hook", HOOK_SECRET).publish(more)
    assert json.loads(listener.got[1][2]) == {**told, "models": "caption:image"}


def test_what_can_be_published_to() -> None:
    """Three kinds; each that cannot be used says why."""
    setup = PublishSetup(Path("/"), {}, HOOK_SECRET, "abc", "sbp_x")
    assert make_publisher("supabase", setup).name == "Supabase project abc"
    assert make_publisher("command: echo hi ", setup).name == "command 'echo hi'"
    hook = make_publisher("webhook:https://x.example/a-secret-path", setup)
    assert hook.name == "webhook to x.example"
    for target, why in (
        ("webhook:http://x.example", "must be an https URL"),
        ("webhook:", "must be an https URL"),
        ("command:", "must be supabase, command"),
        ("vercel", "must be supabase, command"),
    ):
        with pytest.raises(ValueError, match=why):
            make_publisher(target, setup)
    with pytest.raises(ValueError, match="SUPABASE_ACCESS_TOKEN"):
        make_publisher("supabase", PublishSetup(Path("/"), {}, HOOK_SECRET, "abc", None))


def test_a_preview_has_all_but_the_key() -> None:
    """Of every kind."""
    setup = PublishSetup(Path("/"), {}, HOOK_SECRET, "abc", "sbp_x")
    for target in ("supabase", "command:echo", "webhook:https://x.example"):
        text = make_publisher(target, setup).preview(ADDRESS)
        assert ADDRESS.url in text
        assert KEY not in text
        assert "sbp_x" not in text
