"""HTTP to URLs that callers give: only to the public internet, whatever the URL looks like.

Server-side request forgery: a caller's URL must not reach what only this machine, or only its
network, can reach. One address has countless spellings, and the client maps them, resolves
names and follows redirects after any look at the text. So the judge sits where the socket is
made: it sees the very address that is about to be connected to, and nothing is sent before.
`judge_url` refuses earlier what can be seen earlier; nothing depends on it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from router import __version__

RESOLVE_TIMEOUT_S = 5.0
HEADERS = {"User-Agent": f"callme/{__version__}", "Accept-Encoding": "identity"}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out
# What `is_global` of some Python 3.11 lets through.
NOT_PUBLIC_4 = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments, a cloud's metadata among them
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays, retired
    ipaddress.IPv4Network("168.63.129.16/32"),  # a cloud's machine agent
)
NOT_PUBLIC_6 = (
    ipaddress.IPv6Network("2001::/23"),  # protocol assignments, Teredo among them
    ipaddress.IPv6Network("2002::/16"),  # 6to4, retired: it carries any IPv4 address
    ipaddress.IPv6Network("3fff::/20"),  # documentation
)
# A name has 253 characters; a user and a password may stand before it.
MAX_AUTHORITY_CHARS = 1024
AUTHORITY = re.compile(r"[^/?#]{0,32}//([^/?#]*)")
REMOVED = {ord(c): None for c in "\t\r\n"}  # by every parser of URLs
# A host that ends in a number is an IPv4 address to a browser and to many libraries.
NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.*", re.IGNORECASE)


MakeResolver = Callable[[], AbstractResolver]


class PrivateAddressError(OSError):
    """The name or address is not a public one."""


def is_public(address: str) -> bool:
    """True for an address of the public internet. An IPv6 address that carries an IPv4 one
    (mapped, NAT64) is judged as that: it ends up there. Raises ValueError for no address."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped
        if inner is None:
            is_listed = ip in GLOBAL_UNICAST and not any(ip in n for n in NOT_PUBLIC_6)
            return is_listed and ip.is_global
        ip = inner
    return ip.is_global and not ip.is_multicast and not any(ip in n for n in NOT_PUBLIC_4)


def is_this_machine(address: str) -> bool:
    """Whether it is an address of this machine: a firewall in front of it does not stand between
    it and itself. Nothing is sent: only the kernel's routes are asked."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False  # no way there at all
        source = str(probe.getsockname()[0])
    return ipaddress.ip_address(source) == ipaddress.ip_address(address)


def open_public_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for that address, not yet connected. Raises PrivateAddressError."""
    family, kind, protocol, _, address = info
    try:
        allowed = is_public(address[0]) and not is_this_machine(address[0])
    except ValueError:
        allowed = False
    if not allowed:
        raise PrivateAddressError("not a public address")
    return socket.socket(family, kind, protocol)


def parse_url(text: str) -> URL:
    """The URL as the client reads it. Raises ValueError, at once for a host that is far too long:
    to map one of thousands of characters takes as many microseconds and more."""
    found = AUTHORITY.match(text.translate(REMOVED))
    if found and len(found[1]) > MAX_AUTHORITY_CHARS:
        raise ValueError("its host is too long")
    return URL(text)


def judge_url(text: str | URL, *, allow_private: bool) -> URL:
    """The URL as the client reads it. Raises ValueError for what is not an http(s) URL or never
    connects, PrivateAddressError for an address that is not public. A name passes."""
    url = parse_url(text) if isinstance(text, str) else text
    host = url.raw_host
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("not an http(s) URL")
    host.encode("idna")  # labels that are too long or empty; UnicodeError is a ValueError
    bare = host.rstrip(".")
    if not allow_private and (bare == "localhost" or bare.endswith(".localhost")):
        raise PrivateAddressError("not a public name")  # RFC 6761
    is_short = False
    try:
        public = is_public(bare)
    except ValueError:
        if not NUMBER_AT_END.fullmatch(host):
            return url
        is_short = True
        try:
            public = is_public(socket.inet_ntoa(socket.inet_aton(bare)))
        except OSError as error:
            raise ValueError("its host ends in a number, but is no address") from error
    if not public and not allow_private:
        raise PrivateAddressError("not a public address")
    if is_short:
        raise ValueError("an IPv4 address must be written as four numbers")
    return url


class PublicResolver(AbstractResolver):
    """Resolves names within RESOLVE_TIMEOUT_S; refuses one that has any address that is not
    public, unless private ones are allowed."""

    def __init__(self, inner: AbstractResolver, *, allow_private: bool = False) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses. Raises OSError, PrivateAddressError."""
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await self._inner.resolve(host, port, family)
        except TimeoutError as error:
            raise OSError(f"no answer within {RESOLVE_TIMEOUT_S:.0f} s") from error
        if not found:
            raise OSError("no address")
        if not self._allow_private and not all(is_public(r["host"]) for r in found):
            raise PrivateAddressError("not a public address")
        return found

    async def close(self) -> None:
        """Close the resolver within."""
        await self._inner.close()


class PublicHttp:
    """The client for one user of callers' URLs, opened when it is first needed.

    No proxy of the environment, no cookies, no decoding. Names are asked for asynchronously:
    one that does not resolve holds no thread, as `getaddrinfo` would.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        make_resolver: MakeResolver = aiohttp.AsyncResolver,
    ) -> None:
        self.allow_private = allow_private
        self._make_resolver = make_resolver
        self._resolver: AbstractResolver | None = None
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """The session, for requests that do not follow redirects by themselves."""
        if self._session is None:
            self._resolver = PublicResolver(self._make_resolver(), allow_private=self.allow_private)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # its users bound themselves
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,  # nobody's idle connections are kept
                    socket_factory=None if self.allow_private else open_public_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers=HEADERS,
            )
        return self._session

    async def close(self) -> None:
        """Close every connection. It may be used again."""
        session, resolver = self._session, self._resolver
        self._session = self._resolver = None
        if session is not None:
            await session.close()
        if resolver is not None:
            await resolver.close()


SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)  # some send fractions
AT_MOST_S = 86400.0  # more is most likely a mistake


def seconds_of(value: str | None) -> float | None:
    """Seconds to wait, 0 to AT_MOST_S, given as a number or a date; None for anything else."""
    text = (value or "").strip()
    if SECONDS.fullmatch(text):
        return min(float(text), AT_MOST_S)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(aware.timestamp() - time.time(), 0.0), AT_MOST_S)
