"""What is published when: not before the address leads here, and never twice for nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from router.tunnel.announce import Exposed, Exposure
from router.tunnel.announcers import Address, PublishError
from router.tunnel.cloudflared import Closed, OnChange, Opened, TunnelOptions
from tests.waiting import until


class PublicAddress:
    """What answers at the tunnel's address: by default as this router does."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.echoes = True
        self.asked = 0

    async def health(self, request: web.Request) -> web.Response:
        """GET /health"""
        self.asked += 1
        request_id = request.headers["X-Request-Id"] if self.echoes else "another"
        headers = {"X-Request-Id": request_id}
        return web.json_response({"status": "ok"}, status=self.status, headers=headers)


class Publisher:
    """Notes what it was told; fails first as it is told to."""

    def __init__(self, name: str = "there") -> None:
        self.name = name
        self.got: list[Address] = []
        self.tries = 0
        self.failures: list[PublishError] = []

    async def publish(self, address: Address) -> None:
        """Fail, or note it."""
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.got.append(address)

    def preview(self, address: Address) -> str:
        """The address."""
        return f"would tell {address.url}"


class FakeTunnel:
    """Tells what the test says."""

    def __init__(self, options: TunnelOptions, told: OnChange) -> None:
        self.told = told

    async def run(self) -> None:
        """Until canceled."""
        await asyncio.Event().wait()


@pytest.fixture
async def public() -> AsyncIterator[PublicAddress]:
    """An address on this machine."""
    address = PublicAddress()
    app = web.Application()
    app.add_routes([web.get("/health", address.health)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    address.url = f"http://{host}:{port}"
    yield address
    await runner.cleanup()


Said = list[tuple[str, str]]


@contextlib.asynccontextmanager
async def exposed(
    *publishers: Publisher, dry_run: bool = False
) -> AsyncIterator[tuple[FakeTunnel, Said]]:
    """A running exposure: its tunnel, and what it says."""
    said: Said = []
    tunnels: list[FakeTunnel] = []

    def open_tunnel(options: TunnelOptions, told: OnChange) -> FakeTunnel:
        tunnels.append(FakeTunnel(options, told))
        return tunnels[0]

    options = TunnelOptions(Path("cloudflared"), "http://127.0.0.1:7777", Path())
    setup = Exposed(options, "tunnel", "the-key", publishers, dry_run, retry_first_s=0.01)
    exposure = Exposure(setup, lambda kind, text: said.append((kind, text)), open_tunnel)
    running = asyncio.create_task(exposure.run())
    try:
        yield tunnels[0], said
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("wrong", ["status", "echoes"])
async def test_nothing_is_published_before_the_address_leads_here(
    public: PublicAddress, wrong: str
) -> None:
    """Cloudflare's own error page, and another service that says ok, are not this router."""
    if wrong == "status":
        public.status = 530
    else:
        public.echoes = False
    publisher = Publisher()
    async with exposed(publisher) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: public.asked >= 3)
        assert publisher.tries == 0
        assert [kind for kind, _ in said] == ["tunnel", "trouble"]  # told once, not each time
        public.status, public.echoes = 200, True
        await until(lambda: publisher.got)
    assert publisher.got == [Address(public.url, "tunnel", "the-key")]
    assert said[-2:] == [("open", public.url), ("published", "there")]


async def test_a_failure_is_tried_again_and_a_hopeless_one_is_not(public: PublicAddress) -> None:
    """And one publisher's trouble is not another's."""
    slow, hopeless = Publisher("slow"), Publisher("hopeless")
    slow.failures = [PublishError("later"), PublishError("later", retry_after_s=0.05)]
    hopeless.failures = [PublishError("wrong token", hopeless=True)]
    async with exposed(slow, hopeless) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: slow.got)
    assert (slow.tries, hopeless.tries, hopeless.got) == (3, 1, [])
    assert ("trouble", "wrong token") in said
    assert ("trouble", "later; tried again until it works") in said


async def test_only_a_new_address_is_published_again(public: PublicAddress) -> None:
    """A named tunnel comes back as what it was; a quick one does not."""
    publisher = Publisher()
    async with exposed(publisher) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: ("published", "there") in said)
        tunnel.told(Closed("it ended", 1.0))
        tunnel.told(Opened(public.url))
        await until(lambda: said.count(("open", public.url)) == 2)
        other = public.url.replace("127.0.0.1", "localhost")
        tunnel.told(Opened(other))
        await until(lambda: said.count(("published", "there")) == 2)
    assert [address.url for address in publisher.got] == [public.url, other]
    assert ("trouble", "it ended; tried again in 1 s") in said


async def test_two_publishers_of_one_name_are_both_told(public: PublicAddress) -> None:
    """Two webhooks to one host are called the same."""
    first, second = Publisher("webhook to x.example"), Publisher("webhook to x.example")
    async with exposed(first, second) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: first.got and second.got)
        await until(lambda: said.count(("published", first.name)) == 2)
        tunnel.told(Opened(public.url))
        await until(lambda: said.count(("open", public.url)) == 2)
    assert (first.tries, second.tries) == (1, 1)


async def test_a_newer_address_ends_the_older_ones_news(public: PublicAddress) -> None:
    """What is still being tried for an address that is gone is given up, even if it would come
    to life again in somebody else's hands."""
    publisher = Publisher()
    public.status = 530
    async with exposed(publisher) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: public.asked)
        newer = public.url.replace("127.0.0.1", "localhost")
        tunnel.told(Opened(newer))
        public.status = 200
        await until(lambda: ("published", "there") in said)
        await asyncio.sleep(0.3)
    assert [address.url for address in publisher.got] == [newer]


async def test_a_dry_run_and_nobody_to_tell(public: PublicAddress) -> None:
    """The preview is said and nothing published; without publishers a person is told how."""
    publisher = Publisher()
    async with exposed(publisher, dry_run=True) as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: ("preview", f"would tell {public.url}") in said)
    assert publisher.tries == 0
    async with exposed() as (tunnel, said):
        tunnel.told(Opened(public.url))
        await until(lambda: ("by hand", public.url) in said)
