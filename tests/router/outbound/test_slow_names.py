"""Names that do not resolve hold up nobody else: they take no thread that others need."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.clock import SystemClock
from router.errors import InvalidInput, RateLimited
from router.inputs.fetch import BoundedFetcher, UrlFetcher
from router.inputs.file_uploads import Uploads
from router.inputs.request_inputs import Fetcher
from router.keys.key import TRUSTED, Caller
from router.outbound import public_http
from router.outbound.resolver import THREADS, SystemResolver
from router.prediction import FileRef
from router.storage.spool import Spool
from tests.router.memory_store import MemoryStore

pytestmark = pytest.mark.slow

NAMES = 40
IN_TIME_S = 5.0


class CountingExecutor(ThreadPoolExecutor):
    """The pool that everything shares; it remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(4)
        self.work: list[str] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Noted."""
        self.work.append(repr(fn))
        return super().submit(fn, *args, **kwargs)


@contextmanager
def getaddrinfo_hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that it was asked for; it answers at the end of the block."""
    asked: list[str] = []
    over = threading.Event()

    def hang(host: str, *_: object, **__: object) -> list[Any]:
        asked.append(host)
        over.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield asked
    finally:
        over.set()


def uploads_of(spool: Spool, fetcher: Fetcher) -> Uploads:
    """Uploads in front of that fetcher; no prediction has put out a file."""

    @contextlib.asynccontextmanager
    async def none(url: str) -> AsyncIterator[FileRef | None]:
        yield None

    return Uploads(MemoryStore(), spool, fetcher, SystemClock(), 60.0, find_output=none)


async def upload(uploads: Uploads, spool: Spool) -> None:
    """One upload, from the form to the index."""
    file = spool.create("a.txt")
    file.write(b"content")
    file.close()
    await uploads.add(FileRef("content", str(file.path), "a.txt"), {}, TRUSTED)


async def test_names_that_hang_delay_no_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the machine's own resolver fares, which blocks a thread for each name."""
    spool = Spool(tmp_path)
    fetcher = UrlFetcher(spool, allow_private=False)
    uploads = uploads_of(spool, fetcher)
    with getaddrinfo_hangs(monkeypatch):
        urls = [f"http://name-{i}.invalid/" for i in range(NAMES)]
        fetches = [asyncio.create_task(uploads.fetch(url, "image", 100, TRUSTED)) for url in urls]
        for _ in range(100):
            await asyncio.sleep(0)  # every one of them asks for its name now
        async with asyncio.timeout(IN_TIME_S):
            await upload(uploads, spool)
        for task in fetches:
            task.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
    await uploads.close()


async def test_a_silent_name_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is given up in time, who waits too long for a slot learns when to come
    again, and no thread of the shared pool has had to do with it."""
    executor = CountingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    monkeypatch.setattr(public_http, "RESOLVE_TIMEOUT_S", 0.5)
    spool = Spool(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        fetcher = UrlFetcher(
            spool,
            allow_private=False,
            make_resolver=lambda: aiohttp.AsyncResolver(nameservers=[server]),
        )
        bounded = BoundedFetcher(fetcher, wait_s=0.1)
        caller = Caller("one")
        began = time.monotonic()
        urls = [f"http://name-{i}.example/" for i in range(NAMES)]
        ends = await asyncio.gather(
            *(bounded.fetch(url, "image", 100, caller) for url in urls), return_exceptions=True
        )
        took_s = time.monotonic() - began
        asked = silent.recv(4096)
    assert {type(e) for e in ends} == {InvalidInput, RateLimited}
    assert took_s < IN_TIME_S
    assert b"name-" in asked
    assert executor.work == []
    uploads = uploads_of(spool, bounded)
    await upload(uploads, spool)
    assert len(executor.work) == 1
    await uploads.close()


async def test_the_operators_names_have_threads_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A back-end whose name hangs delays no upload either."""
    executor = CountingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    resolver = SystemResolver()
    with getaddrinfo_hangs(monkeypatch) as asked:
        tasks = [asyncio.create_task(resolver.resolve(f"box-{i}.lan", 80)) for i in range(8)]
        async with asyncio.timeout(IN_TIME_S):
            while len(asked) < THREADS:
                await asyncio.sleep(0)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(e) for e in ends} == {socket.gaierror}
    assert executor.work == []


async def test_the_systems_own_names() -> None:
    """As getaddrinfo knows them."""
    found = await SystemResolver().resolve("localhost", 8080)
    assert {(r["host"], r["port"]) for r in found} <= {("127.0.0.1", 8080), ("::1", 8080)}
    assert found
