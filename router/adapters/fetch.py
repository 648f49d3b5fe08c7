"""Inputs that were given as URLs, fetched by the router so that it can say where not to.

Server-side request forgery: a client's URL must not reach what only this machine can reach.
So names are resolved here, every address is judged before it is connected to (and the very
address judged is the one connected to, which closes DNS rebinding), and every redirect is
judged again. What counts as public is Python's `ipaddress.is_global`, multicast excluded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from router import __version__
from router.domain.caller import Caller
from router.domain.errors import InvalidInput, PayloadTooLarge
from router.domain.prediction import FileRef
from router.ports import Files

MAX_REDIRECTS = 5
TOTAL_TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 16
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class PrivateAddressError(OSError):
    """The name or address is not a public one."""


def is_public(address: str) -> bool:
    """True for an address of the public internet. An IPv6 address that carries an IPv4 one
    (mapped, 6to4, NAT64) is judged as that: it ends up there."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


class PublicResolver(AbstractResolver):
    """Resolves names; refuses one that has any address that is not public."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses, all public."""
        found = await self._inner.resolve(host, port, family)
        if not all(is_public(r["host"]) for r in found):
            raise PrivateAddressError("a private address")
        return found

    async def close(self) -> None:
        """Close the resolver within."""
        await self._inner.close()


def judge_url(url: str, *, allow_private: bool) -> None:
    """Raises ValueError for what is not an http(s) URL, PrivateAddressError for an address that
    is not public. A name passes: its addresses are the resolver's to judge."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) URL")
    _ = parts.port  # raises ValueError for one that cannot be
    parts.hostname.encode("idna")  # UnicodeError is a ValueError
    try:
        public = is_public(parts.hostname)
    except ValueError:
        return
    if not public and not allow_private:
        raise PrivateAddressError("a private address")


def guarded_session(*, allow_private: bool) -> aiohttp.ClientSession:
    """A client that connects to public addresses only, unless private ones are allowed."""
    resolver: AbstractResolver = aiohttp.ThreadedResolver()
    if not allow_private:
        resolver = PublicResolver(resolver)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": f"callme/{__version__}", "Accept-Encoding": "identity"},
    )


class UrlFetcher:
    """Fulfils `router.ports.Fetcher`."""

    def __init__(self, files: Files, *, allow_private: bool) -> None:
        self._files = files
        self._allow_private = allow_private

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """GET into the spool. Raises InvalidInput for what cannot be had, PayloadTooLarge for
        what is more than `max_bytes`."""
        try:
            async with (
                asyncio.timeout(TOTAL_TIMEOUT_S),
                guarded_session(allow_private=self._allow_private) as session,
            ):
                return await self._follow(session, url, field, max_bytes)
        except PrivateAddressError as error:
            raise _refused(field, "is not on the public internet") from error
        except TimeoutError as error:
            raise _refused(field, f"did not arrive within {TOTAL_TIMEOUT_S:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, PrivateAddressError):
                raise _refused(field, "is not on the public internet") from error
            raise _refused(field, "cannot be fetched") from error

    async def _follow(
        self, session: aiohttp.ClientSession, url: str, field: str, max_bytes: int
    ) -> tuple[str, str]:
        for _ in range(MAX_REDIRECTS + 1):
            self._judge(url)
            async with session.get(url, allow_redirects=False) as response:
                if response.status in REDIRECTS:
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                if response.status != 200:
                    raise _refused(field, f"answers {response.status}")
                return await self._save(response, url, field, max_bytes)
        raise _refused(field, "redirects too often")

    def _judge(self, url: str) -> None:
        judge_url(url, allow_private=self._allow_private)

    async def _save(
        self, response: aiohttp.ClientResponse, url: str, field: str, max_bytes: int
    ) -> tuple[str, str]:
        too_large = PayloadTooLarge(f"Cannot use '{field}': its URL has over {max_bytes} bytes")
        if (response.content_length or 0) > max_bytes:
            raise too_large
        name = PurePosixPath(unquote(urlsplit(url).path)).name or field
        file = self._files.create(name)
        try:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                if file.size_bytes + len(chunk) > max_bytes:
                    raise too_large
                file.write(chunk)
        except BaseException:
            self._files.remove([FileRef(field, str(file.path), name)])
            raise
        finally:
            file.close()
        return str(file.path), name


def _refused(field: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"Cannot use '{field}': its URL {why}",
        details={"problems": [{"input": field, "message": f"its URL {why}"}]},
    )
