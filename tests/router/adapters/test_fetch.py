"""URLs as inputs: fetched from the public internet only, in bounds, with nothing left behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from router.adapters.fetch import PrivateAddressError, PublicResolver, UrlFetcher, is_public
from router.adapters.spool import Spool
from router.domain.caller import TRUSTED
from router.domain.errors import InvalidInput, PayloadTooLarge


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    """Loopback, private, link-local, shared, multicast, mapped and translated ones are not."""
    assert is_public(address) is public


class Names(AbstractResolver):
    """Resolves every name to the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The given addresses."""
        return [
            ResolveResult(hostname=host, host=a, port=port, family=family, proto=0, flags=0)
            for a in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_name_with_any_private_address_is_refused() -> None:
    """One private address among public ones is enough."""
    assert await PublicResolver(Names("93.184.215.14")).resolve("a.example")
    with pytest.raises(PrivateAddressError):
        await PublicResolver(Names("93.184.215.14", "127.0.0.1")).resolve("a.example")


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """A web site on loopback that serves, redirects and fails."""

    async def file(request: web.Request) -> web.Response:
        return web.Response(body=b"content")

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b"x" * 1000)
        return response

    app = web.Application()
    app.router.add_get("/a.PNG", file)
    app.router.add_get("/moved", moved)
    app.router.add_get("/endless", endless)
    runner = web.AppRunner(app)
    await runner.setup()
    port = _free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


async def test_fetching(site: str, tmp_path: Path) -> None:
    """The file lies in the spool, with the suffix of the URL; redirects are followed."""
    spool = Spool(tmp_path)
    fetcher = UrlFetcher(spool, allow_private=True)
    for url in (f"{site}/a.PNG", f"{site}/moved?to=/a.PNG"):
        path, name = await fetcher.fetch(url, "image", 100, TRUSTED)
        assert (Path(path).read_bytes(), Path(path).suffix, name) == (b"content", ".png", "a.PNG")
        Path(path).unlink()


async def test_what_cannot_be_had(site: str, tmp_path: Path) -> None:
    """Errors, loops, other schemes, closed ports and too much: refused, nothing left."""
    spool = Spool(tmp_path)
    fetcher = UrlFetcher(spool, allow_private=True)
    loop = f"{site}/moved?to=/moved%3Fto%3D/missing"
    urls = (f"{site}/missing", loop, f"{site}/moved?to=file:///etc/passwd", "http://", "http://[")
    for url in (*urls, f"http://127.0.0.1:{_free_port()}/", "http://nosuch.invalid/"):
        with pytest.raises(InvalidInput):
            await fetcher.fetch(url, "image", 100, TRUSTED)
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(f"{site}/endless", "image", 5000, TRUSTED)
    with pytest.raises(PayloadTooLarge):
        await fetcher.fetch(f"{site}/a.PNG", "image", 3, TRUSTED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://user:pass@10.0.0.1/",
    ],
)
async def test_private_addresses_are_refused(url: str, tmp_path: Path) -> None:
    """By address, by name, and in every spelling of an address."""
    with pytest.raises(InvalidInput):
        await UrlFetcher(Spool(tmp_path), allow_private=False).fetch(url, "image", 100, TRUSTED)


async def test_a_redirect_to_a_private_address_is_refused(site: str, tmp_path: Path) -> None:
    """Each hop is judged, not only the first: here the first hop is let through by hand."""

    class FirstHopFree(UrlFetcher):
        hops = 0

        def _judge(self, url: str) -> None:
            self.hops += 1
            if self.hops > 1:
                super()._judge(url)

    fetcher = FirstHopFree(Spool(tmp_path), allow_private=False)
    with pytest.raises(InvalidInput, match="public internet"):
        await fetcher.fetch(f"{site}/moved?to={site}/a.PNG", "image", 100, TRUSTED)
