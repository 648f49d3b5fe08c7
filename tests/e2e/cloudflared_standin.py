"""A stand-in for cloudflared 2026.8.2: its arguments, its lines, its metrics server, and a proxy.

Run as a program by `make_cloudflared`. What it does is read from `behaviour.json` beside its
launcher, again at each start: `name` and `certificate` of the tunnel's public address, `port` it
listens on, `ready_after_s`, `fail` (`rate_limit`, `network`), and files `crash` and `rename` tell
it to do so while it runs. Every start is noted in `starts.jsonl`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

HOME = Path(sys.argv[1])
BOX = f"+{'-' * 92}+"
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


def say(text: str) -> None:
    """As cloudflared logs: to stderr, with time and level."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()


def option(name: str) -> str | None:
    """The value after `name` among the arguments."""
    arguments = sys.argv[2:]
    return arguments[arguments.index(name) + 1] if name in arguments else None


class StandIn:
    """One life."""

    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.behaviour = behaviour
        self.hostname = str(behaviour["name"])
        self.ready_at = time.monotonic() + float(behaviour.get("ready_after_s", 0))

    async def quicktunnel(self, request: web.Request) -> web.Response:
        """GET /quicktunnel"""
        return web.json_response({"hostname": "" if "run" in sys.argv else self.hostname})

    async def ready(self, request: web.Request) -> web.Response:
        """GET /ready"""
        connections = int(time.monotonic() >= self.ready_at)
        told = {"status": 200 if connections else 503, "readyConnections": connections}
        return web.json_response({**told, "connectorId": "c"}, status=int(told["status"]))

    async def proxy(self, request: web.Request) -> web.StreamResponse:
        """What comes to the public address goes to the origin, with Cloudflare's headers."""
        origin = option("--url") or str(self.behaviour["origin"])
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        headers |= {
            "Cf-Ray": "8f0a1b2c3d4e5f60-FRA",
            "Cf-Connecting-IP": "203.0.113.7",
            "X-Forwarded-For": "203.0.113.7",
            "X-Forwarded-Proto": "https",
            "Cdn-Loop": "cloudflare; loops=1",
        }
        body = await request.read()
        async with (
            aiohttp.ClientSession(auto_decompress=False) as http,
            http.request(
                request.method, f"{origin}{request.raw_path}", headers=headers, data=body
            ) as answer,
        ):
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=passed, body=await answer.read())

    async def watch(self) -> None:
        """Do as the test says."""
        while True:
            await asyncio.sleep(0.02)
            if (HOME / "crash").exists():
                (HOME / "crash").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (HOME / "rename").exists():
                self.hostname = (HOME / "rename").read_text()
                (HOME / "rename").unlink()


async def serve(handler: Any, host: str, port: int, tls: ssl.SSLContext | None) -> web.AppRunner:
    """Listen; the handler gets everything, or a table of routes."""
    app = web.Application(client_max_size=64 << 20)
    if isinstance(handler, list):
        app.add_routes(handler)
    else:
        app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls, reuse_address=True).start()
    return runner


async def main() -> None:
    """From start to SIGTERM."""
    behaviour = json.loads((HOME / "behaviour.json").read_text())
    with (HOME / "starts.jsonl").open("a") as starts:
        token = os.environ.get("TUNNEL_TOKEN")
        # CALLME_START is no secret: it marks what one start has started.
        leaked = [k for k in os.environ if k.startswith("CALLME_") and k != "CALLME_START"]
        line = {"pid": os.getpid(), "arguments": sys.argv[2:], "token": token, "leaked": leaked}
        starts.write(json.dumps({**line, "time": time.time()}) + "\n")
    say("INF Thank you for trying Cloudflare Tunnel.")
    if behaviour.get("fail") == "rate_limit":
        say("INF Requesting new quick Tunnel on trycloudflare.com...")
        say(
            'ERR Error unmarshaling QuickTunnel response: error code: 1015 error="invalid '
            'character \'e\' looking for beginning of value" status_code="429 Too Many Requests"'
        )
        sys.exit("failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning")
    if behaviour.get("fail") == "network":
        say("INF Requesting new quick Tunnel on trycloudflare.com...")
        sys.exit(
            'failed to request quick Tunnel: Post "https://api.trycloudflare.com/tunnel": '
            "dial tcp: lookup api.trycloudflare.com: no such host"
        )
    await live(StandIn(behaviour))


async def live(tunnel: StandIn) -> None:
    """A tunnel that opens."""
    behaviour = tunnel.behaviour
    metrics = str(option("--metrics"))
    host, _, port = metrics.partition(":")
    # More than a pipe holds: a parent that does not read it blocks us here.
    for _ in range(2000):
        say("DBG " + "x" * 100)
    say("INF Requesting new quick Tunnel on trycloudflare.com...")
    for line in (BOX, f"|  https://{tunnel.hostname}  |", BOX):
        say(f"INF {line}")
    routes = [web.get("/quicktunnel", tunnel.quicktunnel), web.get("/ready", tunnel.ready)]
    await serve(routes, host, int(port), None)
    say(f"INF Starting metrics server on {metrics}/metrics")
    if behaviour.get("certificate"):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(behaviour["certificate"])
        await serve(tunnel.proxy, "127.0.0.1", int(behaviour["port"]), tls)
    say("INF Registered tunnel connection connIndex=0 connection=0 event=0 location=fra01")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    watching = asyncio.create_task(tunnel.watch())
    await stop.wait()
    watching.cancel()
    say("INF Initiating graceful shutdown due to signal terminated ...")


if __name__ == "__main__":
    asyncio.run(main())
