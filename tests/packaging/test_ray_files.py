"""How a replica on Ray moves large files (deploy/ray_files.py), against a router that misbehaves.
Needs no Ray."""

from __future__ import annotations

import asyncio
import base64
import gzip
import importlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.packaging import isolated  # adds deploy/
from tests.router.remote.remote_stand_in import (
    StandIn,
    answers,
    hang_up,
    hang_up_midway,
    stand_in,
)

assert (isolated.ROOT / "deploy" / "ray_files.py").exists()
ray_files = importlib.import_module("ray_files")
LARGE = bytes(range(256)) * 2048
QUERY = "expires=1&token=2"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def router() -> AsyncIterator[StandIn]:
    """A router whose answers the test chooses."""
    async with stand_in() as server:
        yield server


def bytes_of(content: bytes) -> Any:
    """A handler with this body."""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=content)

    return handle


async def fetched(
    router: StandIn, http: aiohttp.ClientSession, folder: Path, name: str
) -> tuple[dict[str, Any], list[Path]]:
    """What becomes of an input with the file `name` of prediction p1."""
    base = f"{router.url}/f/p1"
    given = {"file": f"{base}/{name}?{QUERY}", "text": f"see {base}/x", "list": ["a", 1]}
    local = ray_files.LocalFiles(folder)
    body = json.dumps({"id": "p1", "input": given}).encode()
    made, files = await local.fetched(http, body, f"{base}?{QUERY}")
    made = json.loads(made)
    assert {**made["input"], "file": ""} == {**given, "file": ""}
    return made["input"], files


@pytest.mark.parametrize("name", ["a.png", "a.tar.gz", "a"])
async def test_a_file_is_fetched_again_until_it_is_whole(
    router: StandIn, http: aiohttp.ClientSession, tmp_path: Path, name: str
) -> None:
    """After lost connections, halves and a router that is not there yet; it is read as it is."""
    content = gzip.compress(LARGE)
    steps = [503, hang_up, hang_up_midway, 500, bytes_of(content)]
    router.script[f"GET /f/p1/{name}"] = steps
    inputs, files = await fetched(router, http, tmp_path / "files", name)
    assert files[0].read_bytes() == content
    assert files[0].suffix == Path(name).suffix
    async with http.get(inputs["file"], auto_decompress=False) as answer:
        assert await answer.read() == content
        assert "Content-Encoding" not in answer.headers
    ray_files.remove(files)
    async with http.get(inputs["file"]) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("step", [404, 401, answers(307, None, Location="http://127.0.0.1:1/")])
async def test_what_cannot_be_fetched_leaves_nothing(
    router: StandIn, http: aiohttp.ClientSession, tmp_path: Path, step: Any
) -> None:
    """A redirect is not followed; the message names the router and no token."""
    router.script["GET /f/p1/a.png"] = [step]
    with pytest.raises(ray_files.TransferError, match=r"answers (404|401|307)") as raised:
        await fetched(router, http, tmp_path / "files", "a.png")
    assert "token" not in str(raised.value)
    assert list((tmp_path / "files").iterdir()) == []
    assert len(router.seen) == 1


async def test_a_canceled_fetch_leaves_nothing(
    router: StandIn, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Half of it is on the disk when its caller goes."""
    router.script["GET /f/p1/a.png"] = [503]
    task = asyncio.create_task(fetched(router, http, tmp_path / "files", "a.png"))
    while not router.seen:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize("stops", [False, True])
async def test_outputs_that_the_router_does_not_take_stay(
    router: StandIn,
    http: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    stops: bool,
) -> None:
    """Nothing is lost, and it is not asked for each of them; also by one that stops, which takes no
    new connection and waits for answers."""
    monkeypatch.setattr(ray_files, "SEND_FOR_S", 0.5)
    if stops:
        await router.stop_listening()
    text = f"data:image/png;base64,{base64.b64encode(LARGE).decode()}"
    answer = json.dumps({"status": "succeeded", "output": {"a": text, "b": [text]}}).encode()
    assert await ray_files.sent(http, answer, f"{router.url}/f/p1?{QUERY}") == answer
    assert [seen.method for seen in router.seen] == ([] if stops else ["PUT"])


async def test_only_what_can_be_made_again_is_sent(
    http: aiohttp.ClientSession,
) -> None:
    """Large ones in plain base64; small ones, other texts and other encodings stay."""
    encoded = base64.b64encode(LARGE).decode()
    output = {
        "picture": f"data:image/png;base64,{encoded}",
        "untyped": f"data:;base64,{encoded}",
        "small": "data:image/png;base64,AAAA",
        "text": "x" * 200_000,
        "odd": f"data:image/png;base64,{encoded[:-1]}",
        "wrong": f"data:image/png;base64,{encoded}\n",
        "parameters": f"data:text/plain;charset=utf-8;base64,{encoded}",
    }
    sent: dict[str, bytes] = {}

    async def take(request: web.Request) -> web.Response:
        assert request.query_string == QUERY
        sent[request.path] = await request.read()
        return web.Response(status=204)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/f/p1/{name}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        answer = json.dumps({"status": "succeeded", "output": output}).encode()
        made = await ray_files.sent(http, answer, f"http://{host}:{port}/f/p1?{QUERY}")
    finally:
        await runner.cleanup()
    found = json.loads(made)
    assert found["output"] == {**output, "picture": None, "untyped": None}
    assert [(f["place"], f["type"]) for f in found["files"]] == [
        (["picture"], "image/png"),
        (["untyped"], ""),
    ]
    assert sent == {f"/f/p1/{f['name']}": LARGE for f in found["files"]}
