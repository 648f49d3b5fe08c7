"""A Cloudflare tunnel: starts cloudflared, watches it, restarts it, and ends it with the router.

Its URL and state are read from its metrics server (`/quicktunnel`, `/ready`; cloudflared 2026.8.2).
They are not read from its output, which also contains a URL, Cloudflare's own, when the request for
a tunnel fails. The output is read so that cloudflared never blocks, and for the reason when it
ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from router.models.process_group import ProcessGroup

PDEATHSIG = Path(__file__).with_name("pdeathsig_exec.py")
POLL_S = 0.5
POLL_LIMIT_S = 5.0
# Registering takes some seconds. Without a connection after this time, something is wrong.
READY_LIMIT_S = 120.0
# How long cloudflared waits for running requests when it ends. The router waits a second longer.
GRACE_S = 5
# When a tunnel was open for this long, its end is a new problem, and the back-off starts again.
WELL_S = 60.0
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
# What cloudflared prints when Cloudflare's API refuses another quick tunnel.
RATE_LIMITED = re.compile(r"429 Too Many Requests|error code: 1015")
LOG_LEVEL = re.compile(r"^\S+ (ERR|FTL|WRN) ")


@dataclass(frozen=True, slots=True)
class Opened:
    """The tunnel has connections, and `url` leads to the router."""

    url: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The tunnel ended or did not open. It is tried again after `retry_in_s`."""

    reason: str
    retry_in_s: float


OnChange = Callable[[Opened | Closed], None]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds from one try to the next: `first_s`, doubled up to `max_s`, and at least
    `rate_limited_s` after Cloudflare has refused a tunnel because of too many requests."""

    first_s: float = 1.0
    max_s: float = 300.0
    rate_limited_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """`origin`: the router's URL, http://127.0.0.1:PORT. With `token` and `public_url` it is a
    named tunnel, whose address is set up at Cloudflare; without them it is a quick tunnel, with a
    new address each time. `state`: the folder for cloudflared's configuration."""

    program: Path
    origin: str
    state: Path
    token: str | None = None
    public_url: str | None = None
    backoff: Backoff = Backoff()


class Tunnel:
    """One tunnel, open while `run` runs. `on_change` is called with every change."""

    def __init__(self, options: TunnelOptions, on_change: OnChange) -> None:
        self._options = options
        self._on_change = on_change
        self._group: ProcessGroup | None = None

    async def run(self) -> None:
        """Keep the tunnel open until cancelled; then cloudflared is ended."""
        backoff = self._options.backoff
        delay_s = backoff.first_s
        timeout = aiohttp.ClientTimeout(total=POLL_LIMIT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                began = time.monotonic()
                try:
                    reason, limited = await self._live(http)
                finally:
                    await self._end()
                if time.monotonic() - began > WELL_S:
                    delay_s = backoff.first_s
                wait_s = max(delay_s, backoff.rate_limited_s if limited else 0.0)
                self._on_change(Closed(reason, wait_s))
                await asyncio.sleep(wait_s)
                delay_s = min(delay_s * 2, backoff.max_s)

    async def _live(self, http: aiohttp.ClientSession) -> tuple[str, bool]:
        """Run cloudflared once, from start to end. Returns why it ended, and whether Cloudflare
        refused it because of too many requests."""
        metrics = f"127.0.0.1:{_free_port()}"
        try:
            group = self._group = await self._spawn(metrics)
        except OSError as error:
            return f"cloudflared cannot be run: {error.strerror}", False
        ending = asyncio.create_task(group.wait())
        watching = asyncio.create_task(self._watch(http, f"http://{metrics}"))
        try:
            await asyncio.wait({ending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                return watching.result(), False
            return self._why(group, ending.result())
        finally:
            ending.cancel()
            watching.cancel()

    async def _spawn(self, metrics: str) -> ProcessGroup:
        options = self._options
        argv = [sys.executable, str(PDEATHSIG), str(os.getpid()), str(options.program), "tunnel"]
        # Without this file cloudflared would read ~/.cloudflared/config.yml, which is for another
        # tunnel.
        config = options.state / "cloudflared.yml"
        config.write_text("no-autoupdate: true\n")
        argv += ["--config", str(config), "--metrics", metrics, "--grace-period", f"{GRACE_S}s"]
        argv += ["--no-autoupdate"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CALLME_", "TUNNEL_"))}
        if options.token is not None:
            argv += ["run"]
            env["TUNNEL_TOKEN"] = options.token  # no argument: every user can list those
        else:
            argv += ["--url", options.origin]
        return await ProcessGroup.spawn(argv, cwd=options.state, env=env, on_line=_ignore)

    async def _watch(self, http: aiohttp.ClientSession, metrics: str) -> str:
        """Report the URL when there are connections, and whenever it changes. Returns why
        cloudflared must be ended."""
        reported = ""
        began = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            if await _get(http, f"{metrics}/ready") is not None:
                url = self._options.public_url or await _quick_url(http, metrics)
                if url and url != reported:
                    reported = url
                    self._on_change(Opened(url))
            elif not reported and time.monotonic() - began > READY_LIMIT_S:
                return f"it has no connection to Cloudflare after {READY_LIMIT_S:.0f} s"

    def _why(self, group: ProcessGroup, ended: str) -> tuple[str, bool]:
        """The last error that it printed, or a clearer sentence if it is a known one; and whether
        Cloudflare refused it because of too many requests."""
        lines = [line.decode(errors="replace").strip() for line in group.lines]
        if any(RATE_LIMITED.search(line) for line in lines):
            reason = "Cloudflare gives this address no more quick tunnels for now (429)"
            return reason, True
        errors = [line for line in lines if LOG_LEVEL.match(line) or "failed" in line]
        last = (errors or [line for line in lines if line] or ["it printed nothing"])[-1]
        return f"cloudflared ended with {ended}: {last[:300]}", False

    async def _end(self) -> None:
        """End cloudflared, even if this call is cancelled."""
        group, self._group = self._group, None
        if group is not None:
            await asyncio.shield(group.end(GRACE_S + 1))


async def _quick_url(http: aiohttp.ClientSession, metrics: str) -> str | None:
    found = await _get(http, f"{metrics}/quicktunnel")
    hostname = found.get("hostname") if found else None
    if isinstance(hostname, str) and HOSTNAME.fullmatch(hostname):
        return f"https://{hostname}"
    return None


async def _get(http: aiohttp.ClientSession, url: str) -> Mapping[str, object] | None:
    """The JSON object at `url`; None when the response is not 200 with a JSON object."""
    try:
        async with http.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return None
            value = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _ignore(line: bytes) -> None:
    """Does nothing: the process group keeps the last lines."""


def _free_port() -> int:
    """A port that is free now. If another program takes it first, cloudflared ends and is
    restarted."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
