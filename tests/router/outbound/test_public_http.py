"""What the router connects to for a caller: the public internet, however it is spelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientError
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from aiohttp.web import Application, Request, Response, StreamResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import __version__
from router.errors import InvalidInput
from router.inputs.fetch import UrlFetcher
from router.keys.key import TRUSTED
from router.outbound import public_http
from router.outbound.public_http import (
    PrivateAddressError,
    PublicHttp,
    PublicResolver,
    is_public,
)
from router.storage.spool import Spool

pytestmark = pytest.mark.slow


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


async def test_a_name_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is one that does not resolve."""

    class Silent(Names):
        async def resolve(self, *_: object, **__: object) -> list[ResolveResult]:
            await asyncio.Event().wait()
            return []

    monkeypatch.setattr(public_http, "RESOLVE_TIMEOUT_S", 0.01)
    with pytest.raises(OSError, match="no answer"):
        await PublicResolver(Silent()).resolve("a.example")


# ---- against a listener ------------------------------------------------------------------


@dataclass
class Trap:
    """Listens on loopback, IPv4 and IPv6, and accepts nobody: who connects stays in its queue."""

    port: int
    sockets: list[socket.socket]

    def was_touched(self) -> bool:
        """Whether anybody has connected."""
        for listener in self.sockets:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                return True
        return False


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    """One port on both."""
    with contextlib.ExitStack() as stack:
        four = stack.enter_context(socket.socket(socket.AF_INET))
        four.bind(("127.0.0.1", 0))
        port = four.getsockname()[1]
        sockets = [four]
        if socket.has_ipv6:
            six = stack.enter_context(socket.socket(socket.AF_INET6))
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::1", port))
            sockets.append(six)
        for listener in sockets:
            listener.listen(64)
            listener.setblocking(False)
        yield Trap(port, sockets)


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    """Nothing comes into it."""
    return Spool(tmp_path_factory.mktemp("spool"))


def _look_alikes() -> dict[str, list[str]]:
    """What UTS 46 maps to each character of a host."""
    found: dict[str, list[str]] = {c: [c] for c in string.hexdigits + ".:[]lohstx"}
    for i, digit in enumerate(string.digits):
        for start in (0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1FBF0):
            found[digit].append(chr(start + i))
        found[digit] += [chr(0x2080 + i), chr(0x2460 + i - 1) if i else "⓪"]
    found["."] += list("。．｡")
    for letter in string.ascii_lowercase:
        more = [chr(0xFF41 + ord(letter) - 97), chr(0x24D0 + ord(letter) - 97), letter.upper()]
        found[letter] = [*found.get(letter, [letter]), *more]
    return found


LOOK_ALIKES = _look_alikes()
FORMS: list[Callable[[int], str]] = [str, hex, lambda n: f"0{n:o}", lambda n: f"{n:03d}"]


@st.composite
def loopback_hosts(draw: st.DrawFn) -> str:
    """127.0.0.1, ::1 or localhost in one of their countless spellings."""
    form = st.sampled_from(FORMS)
    shapes = [[127, 0, 0, 1], [127, 0, 1], [127, 1], [0x7F000001], [0, 0, 0, 0], [0]]
    four = ".".join(draw(form)(n) for n in draw(st.sampled_from(shapes)))
    six = ["::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "::"]
    six += ["64:ff9b::7f00:1", "2002:7f00:1::", "::1%lo", "::1%25lo", "::ffff:0:7f00:1"]
    names = ["localhost", "a.localhost", "loopback.example"]
    plain = draw(st.sampled_from([four, four, *(f"[{s}]" for s in six), *names]))
    spelled = "".join(draw(_spellings(c)) for c in plain)
    return spelled + draw(st.sampled_from(["", "", ".", "..", "。"]))


def _spellings(c: str) -> st.SearchStrategy[str]:
    """One character: as it is, like another, or by its number."""
    alike, percent = LOOK_ALIKES.get(c, [c]), f"%{ord(c):02x}"
    return st.one_of(st.just(c), st.just(c), st.sampled_from(alike), st.sampled_from([c, percent]))


SCHEMES = st.sampled_from(["http", "HTTP", "https", "hTTps"])
USERS = st.sampled_from(["", "", "a@", "a:b@", "example.com@", "example.com%40", "[::1]@", "\t"])
TAILS = st.sampled_from(["/", "", "/x", "?a", "#@example.com", "/#@example.com", "\\@a.example"])
URLS = st.tuples(SCHEMES, USERS, loopback_hosts(), TAILS)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=URLS)
def test_no_spelling_connects(trap: Trap, spool: Spool, parts: tuple[str, str, str, str]) -> None:
    """Though every name that is asked for resolves to this machine: refused, and the server there
    never sees a connection."""

    scheme, user, host, tail = parts

    async def fetch() -> None:
        fetcher = UrlFetcher(
            spool, allow_private=False, make_resolver=lambda: Names("127.0.0.1", "::1")
        )
        try:
            with pytest.raises(InvalidInput):
                await fetcher.fetch(f"{scheme}://{user}{host}:{trap.port}{tail}", "f", 100, TRUSTED)
        finally:
            await fetcher.close()

    asyncio.run(fetch())
    assert not trap.was_touched()


async def test_the_socket_decides(trap: Trap) -> None:
    """Whatever a look at the text would have let through."""
    http = PublicHttp(allow_private=False, make_resolver=lambda: Names("127.0.0.1"))
    for host in ("127.0.0.1", "[::1]", "a.example", "１２７.０.０.１", "[::ffff:127.0.0.1]"):
        with pytest.raises(ClientError):
            await http.session().get(f"http://{host}:{trap.port}/")
    await http.close()
    assert not trap.was_touched()


async def test_how_it_asks() -> None:
    """In the router's name, for a body that is not compressed; it keeps no cookie and no
    connection, and may be closed and used again. It decodes nothing."""
    asked = []

    async def note(request: Request) -> StreamResponse:
        asked.append(request.headers)
        return Response(body=b"not gzip", headers={"Set-Cookie": "a=1", "Content-Encoding": "gzip"})

    app = Application()
    app.router.add_get("/", note)
    server = TestServer(app)
    await server.start_server()
    resolved: list[str] = []

    class Recording(Names):
        async def resolve(self, host: str, *args: Any, **more: Any) -> list[ResolveResult]:
            resolved.append(host)
            return await super().resolve(host, *args, **more)

    http = PublicHttp(allow_private=True, make_resolver=lambda: Recording("127.0.0.1"))
    await http.close()  # it was never opened
    for _ in range(2):
        for _ in range(2):
            session = http.session()
            response = await session.get(f"http://a.example:{server.port}/")
            assert await response.read() == b"not gzip"
            assert session.connector is not None
            assert not session.connector._conns
            assert session.connector.limit == 0
            assert http.session() is session
        await http.close()
        assert session.closed
    await server.close()
    assert {h["User-Agent"] for h in asked} == {f"callme/{__version__}"}
    assert {h["Accept-Encoding"] for h in asked} == {"identity"}
    assert not any("Cookie" in h for h in asked)
    assert resolved == ["a.example"] * 4  # each time: an answer is not kept


async def test_a_resolver_is_used_as_it_was_asked_for() -> None:
    """With the port and the family; it is closed with what uses it. No address is an error."""
    calls: list[object] = []

    class Recording(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            calls.append((host, port, family))
            return await super().resolve(host, port, family)

        async def close(self) -> None:
            calls.append("closed")

    resolver = PublicResolver(Recording("93.184.215.14"))
    (found,) = await resolver.resolve("a.example", 81, socket.AF_INET6)
    assert found["host"] == "93.184.215.14"
    await resolver.resolve("b.example")
    await resolver.close()
    assert calls == [
        ("a.example", 81, socket.AF_INET6),
        ("b.example", 0, socket.AF_UNSPEC),
        "closed",
    ]
    with pytest.raises(OSError, match="no address"):
        await PublicResolver(Recording()).resolve("a.example")
    assert await PublicResolver(Recording("127.0.0.1"), allow_private=True).resolve("a.example")


async def test_a_name_of_this_machine_is_no_public_one(spool: Spool) -> None:
    """The refusal says so, though it is the connection that fails."""
    fetcher = UrlFetcher(spool, allow_private=False, make_resolver=lambda: Names("127.0.0.1"))
    with pytest.raises(InvalidInput, match="'f': its URL is not on the public internet"):
        await fetcher.fetch("http://a.example/", "f", 100, TRUSTED)
    await fetcher.close()


@pytest.mark.parametrize("allow_private", [False, True])
async def test_no_proxy_of_the_environment(
    allow_private: bool, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would connect to what it is asked for, from inside the network."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
    http = PublicHttp(allow_private=allow_private, make_resolver=Names)
    with pytest.raises(ClientError):
        async with asyncio.timeout(60):  # the trap would never answer
            await http.session().get("http://a.example/")
    await http.close()
    assert not trap.was_touched()


@pytest.mark.parametrize(
    "there",
    [
        "127.0.0.1",
        "１２７.０.０.１",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "localhost",
        "[::1]",
        "2130706433",
    ],
)
async def test_a_redirect_is_judged_too(
    there: str, trap: Trap, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.9 stands for a public site here, which sends its visitors to this machine."""
    judge = is_public
    monkeypatch.setattr(public_http, "is_public", lambda a: a == "127.0.0.9" or judge(a))
    monkeypatch.setattr(public_http, "is_this_machine", lambda _: False)
    visits = []

    async def moved(request: Request) -> StreamResponse:
        visits.append(request.path)
        to = f"http://{there}:{trap.port}/"
        return Response(status=302, headers={"Location": to})

    app = Application()
    app.router.add_get("/", moved)
    server = TestServer(app, host="127.0.0.9")
    await server.start_server()
    names = Names("127.0.0.1")
    fetcher = UrlFetcher(spool, allow_private=False, make_resolver=lambda: names)
    try:
        with pytest.raises(InvalidInput):
            await fetcher.fetch(str(server.make_url("/")), "f", 100, TRUSTED)
    finally:
        await fetcher.close()
        await server.close()
    assert visits == ["/"]
    assert not trap.was_touched()
