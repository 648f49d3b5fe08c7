"""HTTP to URLs from callers: only to the public internet, however the URL is written.

This protects against server-side request forgery: a caller's URL must not reach what only this
machine, or only its network, can reach. One address has many spellings. The HTTP client maps them,
resolves names and follows redirects after any check of the text. So the check is made where the
socket is created. There it sees the exact address of the connection, and nothing has been sent.
`judge_url` refuses early what can be recognised early, but the protection does not depend on it.
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
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has assigned
# Networks that `is_global` accepts in some releases of Python 3.11.
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
# A name has at most 253 characters. A user and a password may come before it.
MAX_AUTHORITY_CHARS = 1024
AUTHORITY = re.compile(r"[^/?#]{0,32}//([^/?#]*)")
REMOVED = {ord(c): None for c in "\t\r\n"}  # every URL parser removes these
# Browsers and many libraries read a host that ends in a number as an IPv4 address.
NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.*", re.IGNORECASE)


MakeResolver = Callable[[], AbstractResolver]


class PrivateAddressError(OSError):
    """The name or address is not public."""


def is_public(address: str) -> bool:
    """Whether it is an address of the public internet.

    An IPv6 address that contains an IPv4 one (mapped, NAT64) counts as that one, because the
    connection ends there. Raises ValueError when the text is not an address.
    """
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped
        if inner is None:
            is_listed = ip in GLOBAL_UNICAST and not any(ip in n for n in NOT_PUBLIC_6)
            return is_listed and ip.is_global
        ip = inner
    return ip.is_global and not ip.is_multicast and not any(ip in n for n in NOT_PUBLIC_4)


def is_this_machine(address: str) -> bool:
    """Whether it is an address of this machine.

    A firewall in front of this machine does not stop its connections to itself. Nothing is sent;
    only the kernel's routing table is asked.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False  # there is no route to it
        source = str(probe.getsockname()[0])
    return ipaddress.ip_address(source) == ipaddress.ip_address(address)


def open_public_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for that address, not yet connected.

    Raises PrivateAddressError when the address is not public or is this machine's.
    """
    family, kind, protocol, _, address = info
    try:
        allowed = is_public(address[0]) and not is_this_machine(address[0])
    except ValueError:
        allowed = False
    if not allowed:
        raise PrivateAddressError("not a public address")
    return socket.socket(family, kind, protocol)


def parse_url(text: str) -> URL:
    """Return the URL as the client reads it.

    Raises ValueError when it cannot be read. It raises at once when the host is far too long: to
    map a host of thousands of characters takes as many microseconds or more.
    """
    found = AUTHORITY.match(text.translate(REMOVED))
    if found and len(found[1]) > MAX_AUTHORITY_CHARS:
        raise ValueError("its host is too long")
    return URL(text)


def judge_url(text: str | URL, *, allow_private: bool) -> URL:
    """Return the URL as the client reads it. A name passes; it is checked when it is resolved.

    Raises ValueError when it is not an http(s) URL or can never connect, and PrivateAddressError
    when its address is not public.
    """
    url = parse_url(text) if isinstance(text, str) else text
    host = url.raw_host
    if url.scheme not in ("http", "https") or not host:
        raise ValueError("not an http(s) URL")
    host.encode("idna")  # raises UnicodeError, a ValueError, for a label too long or empty
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
            raise ValueError("its host ends in a number, but is not an address") from error
    if not public and not allow_private:
        raise PrivateAddressError("not a public address")
    if is_short:
        raise ValueError("an IPv4 address must be written as four numbers")
    return url


class PublicResolver(AbstractResolver):
    """Resolves names within RESOLVE_TIMEOUT_S.

    It refuses a name when one of its addresses is not public, unless private ones are allowed.
    """

    def __init__(self, inner: AbstractResolver, *, allow_private: bool = False) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the host's addresses.

        Raises OSError when there is none within the time limit, and PrivateAddressError when one
        of them is not public.
        """
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
        """Close the inner resolver."""
        await self._inner.close()


class PublicHttp:
    """An HTTP client for URLs from callers, opened when it is first needed.

    It uses no proxy of the environment and no cookies, and does not decode. Names are resolved
    asynchronously: one that does not resolve blocks no thread, as `getaddrinfo` would.
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
        """Return the session. Its requests must not follow redirects by themselves."""
        if self._session is None:
            self._resolver = PublicResolver(self._make_resolver(), allow_private=self.allow_private)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,  # the code that uses it has limits of its own
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,  # keep no idle connections
                    socket_factory=None if self.allow_private else open_public_socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers=HEADERS,
            )
        return self._session

    async def close(self) -> None:
        """Close every connection. The client may be used again."""
        session, resolver = self._session, self._resolver
        self._session = self._resolver = None
        if session is not None:
            await session.close()
        if resolver is not None:
            await resolver.close()


SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)  # some servers send fractions
AT_MOST_S = 86400.0  # more is most likely a mistake


def seconds_of(value: str | None) -> float | None:
    """Return the seconds to wait, 0 to AT_MOST_S, of a Retry-After header's value.

    The value may be a number or a date. None for anything else.
    """
    text = (value or "").strip()
    if SECONDS.fullmatch(text):
        return min(float(text), AT_MOST_S)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a year or an hour of twenty digits
        return None
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return min(max(aware.timestamp() - time.time(), 0.0), AT_MOST_S)
