"""The application as it is put together: what fetches for callers is bounded, public and async."""

from __future__ import annotations

import ast
import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import ResolveResult

from router.app import create_app
from router.errors import InvalidInput
from router.http.context import Context
from router.inputs.fetch import PER_CALLER
from router.keys.key import TRUSTED
from router.remote.http import NotSentError, RemoteHttp
from router.settings import Settings
from tests.waiting import until

ROUTER = Path(__file__).resolve().parents[2] / "router"
PUBLIC = "203.0.114.7"  # is not this machine; a name that leads to it is accepted


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    """Of a router with the default settings and no package."""
    app = create_app(Settings(packages_dir=tmp_path, state_dir=tmp_path / "state"))
    async with app.router.lifespan_context(app):
        yield app.state.context
    gc.unfreeze()


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """Listens on this machine; nobody may connect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        yield listener


class Names:
    """In place of every name server: what was asked for, and where each name leads to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.address = PUBLIC
        self.answers = asyncio.Event()

    async def resolve(self, host: str, port: int, family: socket.AddressFamily) -> Any:
        """Waits for the test."""
        self.asked.append(host)
        await self.answers.wait()
        return [
            ResolveResult(
                hostname=host, host=self.address, port=port, family=family, proto=0, flags=0
            )
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Every asynchronous resolver asks these. A thread that resolves fails the test."""
    names = Names()

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> Any:
        return await names.resolve(host, port, family)

    def blocked(host: str, *_: object, **__: object) -> Any:
        raise AssertionError(f"'{host}' was resolved in {threading.current_thread().name}")

    monkeypatch.setattr(aiohttp.AsyncResolver, "resolve", resolve)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    return names


async def test_inputs_are_fetched_in_bounds(context: Context, names: Names) -> None:
    """One caller has PER_CALLER fetches under way, and asynchronously, however many it wants."""
    urls = [f"http://name-{n}.example/" for n in range(PER_CALLER + 5)]
    fetches = [
        asyncio.create_task(context.uploads.fetch(url, "image", 100, TRUSTED)) for url in urls
    ]
    await until(lambda: len(names.asked) >= PER_CALLER)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(names.asked) == PER_CALLER
    for fetch in fetches:
        fetch.cancel()
    await asyncio.gather(*fetches, return_exceptions=True)


async def test_no_input_from_within(context: Context, names: Names) -> None:
    """A name that leads to this machine is refused before a connection is made."""
    names.address = "127.0.0.1"
    names.answers.set()
    with pytest.raises(InvalidInput, match="is not on the public internet"):
        await context.uploads.fetch("http://inner.example/", "image", 100, TRUSTED)


async def test_no_webhook_into_this_machine(
    context: Context, names: Names, trap: socket.socket
) -> None:
    """Its receiver's name is resolved asynchronously, and is refused in the same way."""
    names.address = "127.0.0.1"
    names.answers.set()
    url = f"http://hook.example:{trap.getsockname()[1]}/"
    assert await context.webhooks._sender.send(url, "id", b"{}") == 0
    with pytest.raises(BlockingIOError):
        trap.accept()
    assert names.asked == ["hook.example"]


async def test_a_back_ends_name_has_threads_of_its_own(
    monkeypatch: pytest.MonkeyPatch, trap: socket.socket
) -> None:
    """And what a back-end's answer points to is a caller's URL: only public addresses."""
    threads: list[str] = []

    def asked(host: str, *_: object, **__: object) -> Any:
        threads.append(threading.current_thread().name)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    http = RemoteHttp(["http://box.lan"], {})
    with pytest.raises(NotSentError, match="cannot be resolved"):
        await http.ask("GET", "/")
    with pytest.raises(NotSentError):
        await http.ask("GET", f"http://127.0.0.1:{trap.getsockname()[1]}/", with_key=False)
    await http.close()
    with pytest.raises(BlockingIOError):
        trap.accept()
    assert [name.partition("_")[0] for name in threads] == ["resolver"]


@pytest.mark.slow
def test_every_session_says_who_resolves() -> None:
    """aiohttp's default would resolve in the threads that write uploads. Only cloudflared's own
    port, which is asked for by its address, needs no resolver."""
    sessions = []
    for path in ROUTER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "aiohttp.ClientSession":
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                sessions.append((path.name, given.get("connector", "").partition("(")[0]))
    others = sorted(s for s in sessions if s[1] != "system_connector")
    assert len(sessions) > len(others)
    assert others == [("cloudflared.py", ""), ("public_http.py", "aiohttp.TCPConnector")]
