"""A back-end that misbehaves as it is told: a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Step = Handler | web.StreamResponse | int | dict[str, Any] | bytes


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body."""
        return orjson.loads(self.body)


@dataclass
class StandIn:
    """`script`: what each request to a path is answered with, in turn; the last stays.

    A step is a status, a JSON object (200), bytes (200), or a handler.
    """

    script: dict[str, list[Step]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    server: TestServer | None = None

    async def stop_listening(self) -> None:
        """Refuse new connections from now on."""
        assert self.server is not None
        assert self.server.runner is not None
        for site in list(self.server.runner.sites):
            await site.stop()

    async def listen_again(self) -> None:
        """Accept connections at the same address again."""
        assert self.server is not None
        assert self.server.runner is not None
        await web.TCPSite(self.server.runner, "127.0.0.1", self.server.port).start()

    def of(self, method: str, path: str) -> list[Seen]:
        """The requests to one path."""
        return [s for s in self.seen if (s.method, s.path) == (method, path)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The next step of the script for this path."""
        body = await request.read()
        self.seen.append(Seen(request.method, request.path, dict(request.headers), body))
        steps = self.script.get(f"{request.method} {request.path}")
        if not steps:
            return web.json_response({"detail": "no such path"}, status=404)
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        if isinstance(step, int):
            return web.json_response({"error": "as told"}, status=step)
        if isinstance(step, dict):
            return web.json_response(step)
        if isinstance(step, bytes):
            return web.Response(body=step, content_type="application/json")
        if isinstance(step, web.StreamResponse):
            return step
        return await step(request)


def answers(status: int, body: Any = None, **headers: str) -> Handler:
    """A handler with this status, JSON body and these headers (`Retry_After="3"`)."""

    async def handle(_: web.Request) -> web.StreamResponse:
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return web.json_response(body or {}, status=status, headers=named)

    return handle


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang_up_midway(request: web.Request) -> web.StreamResponse:
    """Promise a thousand bytes, send ten, close."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"status":')
    assert request.transport is not None
    request.transport.abort()
    return response


async def never(_: web.Request) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.Event().wait()
    return web.Response()


@contextlib.asynccontextmanager
async def stand_in(**script: list[Step]) -> AsyncIterator[StandIn]:
    """Serve it. Keys may be given later too, in `script`."""
    back_end = StandIn(dict(script))
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", back_end.answer)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    back_end.server = server
    back_end.url = str(server.make_url("")).rstrip("/")
    try:
        yield back_end
    finally:
        await server.close()
