"""A tunnel by the stand-in cloudflared, whatever happens to it, and what is published."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from router.tunnel.cloudflared import Backoff, Closed, Opened, Tunnel, TunnelOptions
from tests.e2e.public_box import (
    PROJECT,
    TOKEN,
    Cloudflared,
    Platform,
    make_cloudflared,
    running_platform,
)
from tests.e2e.service import Service, running_service
from tests.waiting import until, wait_until

NAME = "words-of-a-tunnel.trycloudflare.com"
QUICK = Backoff(first_s=0.1, max_s=0.4, rate_limited_s=0.3)
News = list[Opened | Closed]


@pytest.fixture
def cloudflared(tmp_path: Path) -> Cloudflared:
    """A stand-in of this test's own."""
    return make_cloudflared(tmp_path / "cloudflared")


@contextlib.asynccontextmanager
async def tunnel_of(cloudflared: Cloudflared, **named: str) -> AsyncIterator[News]:
    """A running tunnel's news."""
    news: News = []
    options = TunnelOptions(
        cloudflared.program, "http://127.0.0.1:1", cloudflared.folder, backoff=QUICK, **named
    )
    running = asyncio.create_task(Tunnel(options, news.append).run())
    try:
        yield news
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def _has(news: News, count: int) -> bool:
    return len(news) >= count


async def test_the_url_is_told_when_connections_stand(cloudflared: Cloudflared) -> None:
    """Not when it is printed, nor when /quicktunnel has it: when /ready says so. More output than
    a pipe holds does not block it, and no key of the box is in its environment."""
    cloudflared.behave(name=NAME, ready_after_s=2)
    os.environ["CALLME_KEYS"] = "web:0123456789abcdef"
    try:
        async with tunnel_of(cloudflared) as news:
            await until(cloudflared.starts)
            started = cloudflared.starts()[0]["time"]
            await until(lambda: news)
            assert news == [Opened(f"https://{NAME}")]
            assert time.time() - started >= 2
    finally:
        del os.environ["CALLME_KEYS"]
    (start,) = cloudflared.starts()
    assert start["arguments"][0] == "tunnel"
    assert start["arguments"][-2:] == ["--url", "http://127.0.0.1:1"]
    assert start["leaked"] == []
    assert not psutil.pid_exists(start["pid"])


async def test_a_new_name_is_told(cloudflared: Cloudflared) -> None:
    """The same process under another address."""
    async with tunnel_of(cloudflared) as news:
        await until(lambda: news)
        cloudflared.say("rename", "other-words.trycloudflare.com")
        await until(lambda: len(news) > 1)
    assert news[1] == Opened("https://other-words.trycloudflare.com")


async def test_a_crash_is_told_and_mended(cloudflared: Cloudflared) -> None:
    """Started again, after a longer pause each time it fails, and then announced again."""
    async with tunnel_of(cloudflared) as news:
        for crashes in range(3):
            await until(lambda: news and isinstance(news[-1], Opened))
            cloudflared.behave(name=f"words-{crashes}.trycloudflare.com")
            cloudflared.say("crash")
            await until(partial(_has, news, 2 * crashes + 3))
    closed = [n for n in news if isinstance(n, Closed)]
    assert [n.retry_in_s for n in closed] == [0.1, 0.2, 0.4]
    assert "signal 9" in closed[0].reason
    assert news[-1] == Opened("https://words-2.trycloudflare.com")


@pytest.mark.parametrize(
    ("fail", "reason", "wait_s"),
    [("rate_limit", "no more quick tunnels for now (429)", 0.3), ("network", "no such host", 0.1)],
)
async def test_a_refusal_is_told_plainly(
    cloudflared: Cloudflared, fail: str, reason: str, wait_s: float
) -> None:
    """Cloudflare's own address in the message is not taken for the tunnel's; when it may be
    tried again it is."""
    cloudflared.behave(name=NAME, fail=fail)
    async with tunnel_of(cloudflared) as news:
        await until(lambda: news)
        first = news[0]
        assert isinstance(first, Closed)
        assert reason in first.reason
        assert first.retry_in_s == wait_s
        cloudflared.behave(name=NAME)
        await until(lambda: isinstance(news[-1], Opened))
    assert news[-1] == Opened(f"https://{NAME}")


async def test_a_named_tunnel(cloudflared: Cloudflared) -> None:
    """By its token, which is no argument: those anybody on the machine can read."""
    url = "https://box.example.com"
    async with tunnel_of(cloudflared, token="a-token", public_url=url) as news:  # noqa: S106
        await until(lambda: news)
    (start,) = cloudflared.starts()
    assert news == [Opened(url)]
    assert (start["arguments"][-1], start["token"]) == ("run", "a-token")
    assert "a-token" not in start["arguments"]


async def test_without_the_program_it_says_so(cloudflared: Cloudflared) -> None:
    """A program that vanished after the start."""
    cloudflared.program.unlink()
    async with tunnel_of(cloudflared) as news:
        await until(lambda: news)
    assert isinstance(news[0], Closed)
    assert "No such file" in news[0].reason


# ---- the whole command ------------------------------------------------------------------------


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A stand-in of the Management API."""
    with running_platform() as running:
        yield running


@contextlib.contextmanager
def public_box(
    packages: Path, state: Path, cloudflared: Cloudflared, platform: Platform, *arguments: str
) -> Iterator[Service]:
    """`callme up --public`, its tunnel leading from an address of this machine."""
    env = {
        "PATH": f"{cloudflared.program.parent}:{os.environ['PATH']}",
        "SSL_CERT_FILE": str(cloudflared.certificate_authority),
        "SUPABASE_PROJECT_ID": PROJECT,
        "SUPABASE_ACCESS_TOKEN": TOKEN,
        "CALLME_SUPABASE_API_URL": platform.url,
        "CALLME_PRELOAD": "echo",
    }
    argv = [sys.executable, "-m", "router.cli", "up", "--public", *arguments]
    with running_service(packages, state, env, argv) as service:
        yield service


def outside(cloudflared: Cloudflared) -> httpx.Client:
    """A client somewhere on the internet."""
    trusted = ssl.create_default_context(cafile=str(cloudflared.certificate_authority))
    return httpx.Client(verify=trusted, timeout=240)


def test_one_command_and_the_web_app_works(
    echo_packages: Path, tmp_path: Path, cloudflared: Cloudflared, platform: Platform
) -> None:
    """Address and key are published once the address leads here, again when it changes, tried
    again when the platform fails; nobody else gets in; nothing is left when it stops."""
    first = cloudflared.open_on_localhost()
    platform.answers = [503]
    with public_box(echo_packages, tmp_path / "state", cloudflared, platform) as service:
        wait_until(lambda: platform.secrets)
        secrets = dict(platform.secrets)
        assert secrets["GPU_BACKEND_URL"] == first
        assert secrets["GPU_BACKEND_MODELS"] == "echo,parrot"
        with outside(cloudflared) as http:
            key = {"Authorization": f"Bearer {secrets['GPU_BACKEND_KEY']}"}
            answer = http.post(f"{first}/echo", headers=key, files={"text": (None, "hi")})
            assert (answer.status_code, answer.json()["text"]) == (200, "hi")
            assert http.get(f"{first}/status").status_code == 401
            assert service.http.get("/status").status_code == 401
            local = (service.state / "local_key").read_text()
            stolen = {"Authorization": f"Bearer {local}"}
            assert http.get(f"{first}/status", headers=stolen).status_code == 401
            assert service.http.get("/status", headers=stolen).status_code == 200
        second = cloudflared.open_on_localhost()
        cloudflared.say("crash")
        wait_until(lambda: platform.secrets["GPU_BACKEND_URL"] == second)
        assert platform.secrets["GPU_BACKEND_KEY"] == secrets["GPU_BACKEND_KEY"]
        assert len(platform.requests) == 3
        tunnel = psutil.Process(cloudflared.starts()[-1]["pid"])
        service.stop(signal.SIGTERM)
        assert not tunnel.is_running()
        assert secrets["GPU_BACKEND_KEY"] not in service.log()
        assert "answered 503" in service.log()


def test_a_killed_router_takes_its_tunnel_along(
    echo_packages: Path, tmp_path: Path, cloudflared: Cloudflared, platform: Platform
) -> None:
    """A tunnel that stayed would lead to whatever listens on the port next. A dry run publishes
    nothing, and says what it would."""
    url = cloudflared.open_on_localhost()
    with public_box(
        *(echo_packages, tmp_path / "state", cloudflared, platform), "--dry-run"
    ) as service:
        wait_until(lambda: "Dry run, not published" in service.log())
        assert f"GPU_BACKEND_URL={url}" in service.log()
        assert "GPU_BACKEND_KEY=<the key>" in service.log()
        tunnel = psutil.Process(cloudflared.starts()[-1]["pid"])
        service.child.kill()
        service.child.wait()
        psutil.wait_procs([tunnel], timeout=240)
        assert not tunnel.is_running() or tunnel.status() == psutil.STATUS_ZOMBIE
    assert platform.requests == []
