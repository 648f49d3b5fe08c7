"""Large files of predictions that run elsewhere go by URL, both ways: the real router, and a server
in place of a Ray cluster that moves files as a replica does (deploy/ray_files.py)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from router.keys.key_store import KeyFile
from router.remote.files import INLINE_BYTES
from tests.e2e.service import Service, running_service
from tests.waiting import free_port, until

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy"))
ray_files = importlib.import_module("ray_files")

LARGE, VERY_LARGE, SMALL = 1 << 20, 20 << 20, 1 << 10
URI = {"type": "string", "format": "uri"}
INPUTS = {
    "file": {**URI, "title": "File"},
    "more": {"type": "array", "items": URI, "default": []},
    "text": {"type": "string", "default": ""},
}
SCHEMA: dict[str, Any] = {
    "components": {
        "schemas": {"Input": {"type": "object", "properties": INPUTS}, "Output": {"type": "object"}}
    }
}
CONFIG = """
[models.far]
backend = "cog"
[models.far.remote]
url = "{}"
files_url = "http://127.0.0.1:{}"
"""


class Cluster:
    """Answers each prediction with its files, and those it has ended when they are sent again.

    `may_fetch`, `may_answer`: it waits for them before it fetches, and when its outputs are sent.
    """

    def __init__(self, scratch: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: dict[str, bytes] = {}
        self.may_fetch, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_fetch.set()
        self.may_answer.set()
        self.scratch = scratch
        self._files = ray_files.LocalFiles(scratch / "files")
        self._tasks: dict[str, asyncio.Task[bytes]] = {}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health-check", self._health)
        app.router.add_get("/openapi.json", self._schema)
        app.router.add_post("/predictions", self._predict)
        async with aiohttp.ClientSession() as self.http, TestServer(app) as server:
            yield str(server.make_url("")).rstrip("/")

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "READY"})

    async def _schema(self, _: web.Request) -> web.Response:
        return web.json_response(SCHEMA)

    async def _predict(self, request: web.Request) -> web.Response:
        body = await request.read()
        found = orjson.loads(body)
        self.requests.append(found)
        if (task := self._tasks.get(found["id"])) is None:
            task = self._tasks[found["id"]] = asyncio.create_task(self._run(body, found))
        return web.Response(body=await asyncio.shield(task), content_type="application/json")

    async def _run(self, body: bytes, request: dict[str, Any]) -> bytes:
        await self.may_fetch.wait()
        url = request["files_url"]
        made, files = await self._files.fetched(self.http, body, url)
        given = orjson.loads(made)["input"]
        more = [await self._read(one) for one in given.get("more", [])]
        output = {"copy": await self._read(given["file"]), "more": more, "text": "data:,x"}
        ray_files.remove(files)
        answer = {"id": request["id"], "status": "succeeded", "output": output, "logs": ""}
        sent: bytes = await ray_files.sent(self.http, orjson.dumps(answer), url)
        self.answers[request["id"]] = sent
        await self.may_answer.wait()
        return sent

    async def _read(self, uri: str) -> str:
        """A file as coglet reads it, as a data: URI."""
        if uri.startswith("data:"):
            return uri
        assert uri.startswith("http://127.0.0.1:")
        async with self.http.get(uri) as answer:
            return data_uri(await answer.read())


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """The content in base64."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


class World:
    """The router with a key, and a cluster."""

    def __init__(self, cluster: Cluster, url: str, folder: Path) -> None:
        self.cluster = cluster
        self.state = folder / "state"
        self._packages, self._port = folder / "none", free_port()
        self._packages.mkdir()
        (self._packages / "callme.toml").write_text(CONFIG.format(url, self._port))
        secret = KeyFile(self.state).create("ann")
        self.headers = {"Authorization": f"Bearer {secret}"}
        self._running = contextlib.ExitStack()

    async def start(self) -> None:
        """Start the router."""
        service = running_service(self._packages, self.state, port=self._port)
        self.router: Service = await asyncio.to_thread(self._running.enter_context, service)

    async def kill(self) -> None:
        """kill -9."""
        self.router.child.kill()
        await asyncio.to_thread(self.router.child.wait)

    async def stop(self) -> None:
        """Stop it."""
        await asyncio.to_thread(self._running.close)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """With the key."""
        async with httpx.AsyncClient(base_url=self.router.url, timeout=120) as http:
            return await http.request(method, path, headers=self.headers, **more)

    async def bare(self, method: str, url: str, **more: Any) -> httpx.Response:
        """Without."""
        async with httpx.AsyncClient(timeout=120) as http:
            return await http.request(method, url, **more)

    async def submit(self, prediction_id: str, content: bytes) -> None:
        """Have a prediction accepted."""
        body = {"input": {"file": data_uri(content)}}
        path = f"/models/far/predictions/{prediction_id}"
        headers = {**self.headers, "Prefer": "respond-async"}
        async with httpx.AsyncClient(base_url=self.router.url, timeout=120) as http:
            answer = await http.put(path, json=body, headers=headers)
        assert answer.status_code == 202, answer.text

    async def ended(self, prediction_id: str) -> dict[str, Any]:
        """The prediction when it has ended."""
        while True:
            found = (await self.ask("GET", f"/predictions/{prediction_id}")).json()
            if found["status"] not in ("starting", "processing"):
                return dict(found)
            await asyncio.sleep(0.05)

    def input_url(self) -> str:
        """Of the last request's file."""
        return str(self.cluster.requests[-1]["input"]["file"])

    def output_url(self, name: str) -> str:
        """For an output file of the last request's prediction."""
        base, _, query = self.cluster.requests[-1]["files_url"].partition("?")
        return f"{base}/{name}?{query}"

    async def nothing_is_left(self) -> None:
        """No file of a prediction, on either side."""
        await until(lambda: not self.router.spooled())
        folder = self.cluster.scratch / "files"
        assert not folder.exists() or not list(folder.iterdir())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Both run."""
    cluster = Cluster(tmp_path)
    async with cluster.serving() as url:
        made = World(cluster, url, tmp_path)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


@pytest.mark.parametrize("size", [LARGE, VERY_LARGE])
async def test_large_files_pass_the_cluster_by(world: World, size: int) -> None:
    """Request and answer have only references; the caller gets the bytes, and nothing is left."""
    content, small = os.urandom(size), os.urandom(SMALL)
    files = [
        ("file", ("a.png", content, "image/png")),
        ("more", ("b.png", content[-LARGE:], "image/png")),
        ("more", ("c.png", small, "image/png")),
    ]
    answer = await world.ask("POST", "/far", files=files)
    assert answer.status_code == 200, answer.text
    output = answer.json()
    assert output["copy"] == data_uri(content)
    assert output["more"] == [data_uri(content[-LARGE:]), data_uri(small)]
    assert output["text"] == "data:,x"
    (request,) = world.cluster.requests
    assert len(orjson.dumps(request)) < 10 << 10
    assert request["input"]["more"][1] == data_uri(small)
    (sent,) = world.cluster.answers.values()
    assert len(sent) < 10 << 10
    assert [f["place"] for f in orjson.loads(sent)["files"]] == [["copy"], ["more", 0]]
    await world.nothing_is_left()


async def test_a_url_gives_one_file_until_its_prediction_ends(world: World) -> None:
    """No other file, no other way, no folder above; and it leads nowhere else."""
    world.cluster.may_fetch.clear()
    other, content = os.urandom(LARGE), os.urandom(LARGE)
    await world.submit("other", other)
    await until(lambda: len(world.cluster.requests) == 1)
    others = world.input_url()
    await world.submit("mine", content)
    await until(lambda: len(world.cluster.requests) == 2)
    url, name = world.input_url(), "0" * 32
    head, _, query = url.partition("?")
    found = await world.bare("GET", url)
    assert (found.status_code, found.content) == (200, content)
    assert "location" not in found.headers
    token = query.rpartition("=")[2]
    wrong = [
        head,
        f"{head}?token={token}",
        url.replace(token, "0" * 32),
        url.replace("expires=", "expires=9"),
        url.replace("expires=", "expires=x"),
        f"{others.partition('?')[0]}?{query}",
        url.replace("/mine/", "/other/"),
        f"{head.rpartition('/')[0]}/{name}?{query}",
        f"{head.rpartition('/')[0]}/..%2F..%2Fpredictions.sqlite3?{query}",
        f"{url}%00é",
        world.output_url(name),
        world.output_url(head.rpartition("/")[2]),
    ]
    for bad in wrong:
        assert (await world.bare("GET", bad)).status_code in (401, 404), bad
    for bad in (url, f"{head.rpartition('/')[0]}/{name}?{query}"):
        assert (await world.bare("PUT", bad, content=b"x")).status_code == 401, bad
    for bad in ("x", "..%2F" + name, name.upper().replace("0", "A"), f"{name}.png"):
        answer = await world.bare("PUT", world.output_url(bad), content=b"x")
        assert answer.status_code == 404, bad
    assert len(world.router.spooled()) == 2  # the inputs
    assert (await world.bare("PUT", world.output_url(name), content=b"one")).status_code == 204
    assert (await world.bare("PUT", world.output_url(name), content=b"two")).status_code == 204
    assert (await world.bare("GET", world.output_url(name))).status_code == 401
    assert f"mine.{name}" in world.router.spooled()
    too_large = await world.bare("PUT", world.output_url("1" * 32), content=bytes((128 << 20) + 1))
    assert too_large.status_code == 413
    assert len(world.router.spooled()) == 3
    await world.ask("POST", "/predictions/mine/cancel")
    assert (await world.ended("mine"))["status"] == "canceled"
    assert (await world.bare("GET", url)).status_code == 404
    assert (await world.bare("PUT", world.output_url(name), content=b"x")).status_code == 404
    await until(lambda: len(world.router.spooled()) == 1)
    world.cluster.may_fetch.set()
    assert (await world.ended("other"))["output"]["copy"] == data_uri(other)
    await world.nothing_is_left()


async def test_the_router_is_killed_before_and_after_the_files_are_sent(world: World) -> None:
    """Once the replica is about to fetch: it tries until the router is back. Once all is sent and
    not answered: the router asks again, and has the files."""
    content = os.urandom(LARGE)
    digest = hashlib.sha256(data_uri(content).encode()).hexdigest()
    for prediction_id, gate in (
        ("before", world.cluster.may_fetch),
        ("after", world.cluster.may_answer),
    ):
        gate.clear()
        await world.submit(prediction_id, content)
        await until(lambda: bool(world.cluster.requests))
        if gate is world.cluster.may_answer:
            await until(lambda: "after" in world.cluster.answers)
        await world.kill()
        gate.set()
        await asyncio.sleep(0.5)
        await world.start()
        result = await world.ended(prediction_id)
        assert result["status"] == "succeeded", result
        assert hashlib.sha256(result["output"]["copy"].encode()).hexdigest() == digest
        await world.nothing_is_left()
        assert len(world.cluster.requests) == 2
        world.cluster.requests.clear()


async def test_a_file_that_did_not_arrive_fails_its_prediction(world: World) -> None:
    """Named by an answer, and not sent by this prediction."""
    world.cluster.may_answer.clear()
    await world.submit("lost", os.urandom(LARGE))
    await until(lambda: "lost" in world.cluster.answers)
    for path in (world.state / "spool").glob("lost.*"):
        path.unlink()
    world.cluster.may_answer.set()
    result = await world.ended("lost")
    assert result["error"]["code"] == "backend_failed", result
    await world.nothing_is_left()


def test_the_limits_are_the_same() -> None:
    """Both sides send by URL from the same size on."""
    assert ray_files.INLINE_BYTES == INLINE_BYTES
