"""A Cloudflare tunnel: cloudflared started, watched, started again, and ended with the router.

Its URL and state come from its metrics server (`/quicktunnel`, `/ready`; cloudflared 2026.8.2),
not from its output: a failed request for a tunnel prints a URL too, Cloudflare's own. The output
is read to its end only so that it never blocks, and for the reason when it ends.
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
# Registering takes some seconds; without any connection for this long something is wrong.
READY_LIMIT_S = 120.0
# cloudflared's own grace for requests under way; ours comes after it.
GRACE_S = 5
# A tunnel that was up for so long was well; its end is a new trouble, not the old one.
WELL_S = 60.0
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
# What Cloudflare's API says to whoever asks for too many quick tunnels, as cloudflared prints it.
RATE_LIMITED = re.compile(r"429 Too Many Requests|error code: 1015")
LOG_LEVEL = re.compile(r"^\S+ (ERR|FTL|WRN) ")


@dataclass(frozen=True, slots=True)
class Opened:
    """The tunnel has connections; `url` leads to the router."""

    url: str


@dataclass(frozen=True, slots=True)
class Closed:
    """It ended, or never opened; it is tried again after `retry_in_s`."""

    reason: str
    retry_in_s: float


Told = Callable[[Opened | Closed], None]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds from one try to the next: `first_s`, doubled up to `max_s`, and at least
    `rate_limited_s` when Cloudflare has said that it was asked too often."""

    first_s: float = 1.0
    max_s: float = 300.0
    rate_limited_s: float = 60.0


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """`origin`: the router, http://127.0.0.1:PORT. With `token` and `public_url` it is a named
    tunnel, whose address is set up at Cloudflare; else a quick one, with a new address each time.
    """

    program: Path
    origin: str
    state: Path
    token: str | None = None
    public_url: str | None = None
    backoff: Backoff = Backoff()


class Tunnel:
    """One tunnel. `run` it; it tells of every change."""

    def __init__(self, options: TunnelOptions, told: Told) -> None:
        self._options = options
        self._told = told
        self._group: ProcessGroup | None = None

    async def run(self) -> None:
        """Keep the tunnel open until canceled; then nothing of it is left."""
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
                self._told(Closed(reason, wait_s))
                await asyncio.sleep(wait_s)
                delay_s = min(delay_s * 2, backoff.max_s)

    async def _live(self, http: aiohttp.ClientSession) -> tuple[str, bool]:
        """One life of cloudflared, from start to end: why it ended, and whether for asking too
        often."""
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
        # Without this file cloudflared would read ~/.cloudflared/config.yml, whose rules are
        # another tunnel's.
        config = options.state / "cloudflared.yml"
        config.write_text("no-autoupdate: true\n")
        argv += ["--config", str(config), "--metrics", metrics, "--grace-period", f"{GRACE_S}s"]
        argv += ["--no-autoupdate"]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CALLME_", "TUNNEL_"))}
        if options.token is not None:
            argv += ["run"]
            env["TUNNEL_TOKEN"] = options.token  # not an argument: those anybody can list
        else:
            argv += ["--url", options.origin]
        return await ProcessGroup.spawn(argv, cwd=options.state, env=env, on_line=_ignore)

    async def _watch(self, http: aiohttp.ClientSession, metrics: str) -> str:
        """Tell of the URL once there are connections, and whenever it changes; returns why this
        life is to end."""
        told = ""
        began = time.monotonic()
        while True:
            await asyncio.sleep(POLL_S)
            if await _get(http, f"{metrics}/ready") is not None:
                url = self._options.public_url or await _quick_url(http, metrics)
                if url and url != told:
                    told = url
                    self._told(Opened(url))
            elif not told and time.monotonic() - began > READY_LIMIT_S:
                return f"it has no connection to Cloudflare after {READY_LIMIT_S:.0f} s"

    def _why(self, group: ProcessGroup, ended: str) -> tuple[str, bool]:
        """The last error that it printed, in our words where they are plainer."""
        lines = [line.decode(errors="replace").strip() for line in group.lines]
        if any(RATE_LIMITED.search(line) for line in lines):
            words = "Cloudflare gives this address no more quick tunnels for now (429)"
            return words, True
        errors = [line for line in lines if LOG_LEVEL.match(line) or "failed" in line]
        last = (errors or [line for line in lines if line] or ["it printed nothing"])[-1]
        return f"cloudflared ended with {ended}: {last[:300]}", False

    async def _end(self) -> None:
        """What runs of it is ended; also when this is canceled meanwhile."""
        group, self._group = self._group, None
        if group is not None:
            await asyncio.shield(group.end(GRACE_S + 1))


async def _quick_url(http: aiohttp.ClientSession, metrics: str) -> str | None:
    told = await _get(http, f"{metrics}/quicktunnel")
    hostname = told.get("hostname") if told else None
    if isinstance(hostname, str) and HOSTNAME.fullmatch(hostname):
        return f"https://{hostname}"
    return None


async def _get(http: aiohttp.ClientSession, url: str) -> Mapping[str, object] | None:
    """The JSON object at `url`; None unless it is answered with 200 and one."""
    try:
        async with http.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return None
            value = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _ignore(line: bytes) -> None:
    """The group keeps the last lines; nobody follows them."""


def _free_port() -> int:
    """A port that was free a moment ago; losing the race for it is one more failed life."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
