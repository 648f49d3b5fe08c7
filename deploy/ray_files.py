"""Large files of predictions: a replica fetches them from the router and sends them to it, so that
they pass neither the cluster's entries nor its fronts.

The request names them by `files_url`: inputs are at URLs below it, and outputs are sent to URLs
below it (router/predictions/remote_files.py). The router may be restarted meanwhile, so each
transfer is tried again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

# A smaller output stays in the answer (docs/decisions/ray.md, 60).
INLINE_BYTES = 256 << 10
# A router that is restarted is away for some seconds.
FETCH_FOR_S = 60.0
# Less than the time that a router which stops gives to what runs: it takes answers to the end, but
# no new connection.
SEND_FOR_S = 5.0
AGAIN_FIRST_S, AGAIN_MAX_S = 0.2, 2.0
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=30)
# A try after any other status would have the same answer.
TRIED_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
DATA_URI = re.compile(r"data:([\w.+/-]*);base64,")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
Place = tuple[str | int, ...]


class TransferError(Exception):
    """A file could not be fetched or sent."""


class LocalFiles:
    """A folder of input files, and a server on loopback from which coglet reads them: it takes a
    file by URL, and as base64 for several times the CPU time. No name can be guessed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serving: asyncio.Task[str] | None = None

    async def fetched(
        self, http: aiohttp.ClientSession, body: bytes, files_url: str
    ) -> tuple[bytes, list[Path]]:
        """The request with each file below `files_url` fetched and named by its URL here, and the
        files, which the caller deletes. Raises TransferError; then none is left."""
        base = files_url.partition("?")[0] + "/"
        if base.encode() not in body:
            return body, []
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        url = await asyncio.shield(self._serving)
        request: dict[str, Any] = json.loads(body)
        files: list[Path] = []

        async def here(value: Any) -> Any:
            if isinstance(value, list):
                return [await here(one) for one in value]
            if not isinstance(value, str) or not value.startswith(base):
                return value
            found = SUFFIX.fullmatch(Path(urlsplit(value).path).suffix)
            files.append(self._folder / f"{secrets.token_hex(16)}{found[0] if found else ''}")
            await fetch(http, value, files[-1])
            return f"{url}/{files[-1].name}"

        try:
            given = request["input"]
            request["input"] = {name: await here(value) for name, value in given.items()}
        except BaseException:
            remove(files)
            raise
        return json.dumps(request).encode(), files

    async def _serve(self) -> str:
        """Start the server; its URL. It runs as long as this process."""
        self._folder.mkdir(mode=0o700)
        app = web.Application()
        app.router.add_static("/", self._folder)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        free_port = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, free_port).start()
        return f"http://127.0.0.1:{free_port.getsockname()[1]}"


def remove(files: list[Path]) -> None:
    """Delete these; one that does not exist is no error."""
    for file in files:
        file.unlink(missing_ok=True)


async def fetch(http: aiohttp.ClientSession, url: str, path: Path) -> None:
    """Write what is at the URL to the file. Raises TransferError."""

    async def once() -> int:
        async with http.get(url, timeout=TIMEOUT, allow_redirects=False) as answer:
            if answer.status == 200:
                with path.open("wb") as file:
                    async for piece in answer.content.iter_any():
                        file.write(piece)
            return answer.status

    await _try("fetch a file of the prediction from", url, once, FETCH_FOR_S)


async def sent(http: aiohttp.ClientSession, answer: bytes, files_url: str) -> bytes:
    """Cog's answer, with null in place of each large output file and the list `files` of them. A
    file that the router does not take stays in it."""
    if len(answer) <= INLINE_BYTES:
        return answer
    prediction: dict[str, Any] = await asyncio.to_thread(json.loads, answer)
    base, _, query = files_url.partition("?")
    files = []
    for place, uri in list(large_files(prediction.get("output"))):
        kind, content = await asyncio.to_thread(decoded, uri)
        if content is None:
            continue
        name = secrets.token_hex(16)
        try:
            await send(http, f"{base}/{name}?{query}", content)
        except TransferError:
            break  # the others would wait as long
        files.append({"place": place, "name": name, "type": kind})
        put(prediction, ("output", *place), None)
    if not files:
        return answer
    return json.dumps({**prediction, "files": files}).encode()


def large_files(output: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Each large string that begins as a data: URI in base64 does, and its place."""
    if isinstance(output, str):
        if len(output) * 3 // 4 > INLINE_BYTES and DATA_URI.match(output):
            yield place, output
    elif isinstance(output, list | dict):
        pairs = enumerate(output) if isinstance(output, list) else output.items()
        for key, value in pairs:
            yield from large_files(value, (*place, key))


def decoded(uri: str) -> tuple[str, bytes | None]:
    """Type and content of a data: URI; no content when it could not be made again from them."""
    head = DATA_URI.match(uri)
    assert head is not None  # noqa: S101 - `large_files` has seen it
    text = uri[head.end() :]
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        return "", None
    return head[1], content if base64.b64encode(content).decode() == text else None


def put(document: Any, place: Place, value: Any) -> None:
    """Set what is at this place of the document."""
    for key in place[:-1]:
        document = document[key]
    document[place[-1]] = value


async def send(http: aiohttp.ClientSession, url: str, content: bytes) -> None:
    """PUT the content. Raises TransferError."""

    async def once() -> int:
        async with http.put(url, data=content, timeout=TIMEOUT, allow_redirects=False) as answer:
            return answer.status

    await _try("send an output file to", url, once, SEND_FOR_S)


async def _try(what: str, url: str, once: Any, for_s: float) -> None:
    """Until it succeeds. Raises TransferError when a further try is of no use, and after
    `for_s`."""
    give_up = time.monotonic() + for_s
    delay_s = AGAIN_FIRST_S
    while True:
        try:
            status = await once()
            why = f"it answers {status}"
            if 200 <= status < 300:
                return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, why = 503, type(error).__name__
        if status not in TRIED_AGAIN or time.monotonic() + delay_s > give_up:
            parts = urlsplit(url)
            raise TransferError(f"Cannot {what} {parts.scheme}://{parts.netloc}: {why}")
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, AGAIN_MAX_S)
