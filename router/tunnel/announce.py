"""The box on the internet: a tunnel, the proof that it leads here, and the news to the web app.

Nothing is published before a request has gone out to the public address and come back as this
router's answer. A new address of the tunnel begins this anew and ends what the old one had begun.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from router.outbound.resolver import system_connector
from router.tunnel.announcers import Address, Publisher, PublishError
from router.tunnel.cloudflared import Closed, Opened, Told, Tunnel, TunnelOptions

PROBE_LIMIT_S = 15.0
# A new name is not known to every name server at once; asking too early is remembered by some.
PROBE_FIRST_S = 1.0
RETRY_MAX_S = 60.0
Tell = Callable[[str, str], None]


class RunningTunnel(Protocol):
    """What is needed of a tunnel."""

    async def run(self) -> None:
        """Keep it open until canceled."""


OpenTunnel = Callable[[TunnelOptions, Told], RunningTunnel]


class ProbeError(Exception):
    """The public address does not lead to this router; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """How the box is exposed. Without publishers the address is told to the person alone."""

    tunnel: TunnelOptions
    key_id: str
    key: str
    publishers: Sequence[Publisher]
    dry_run: bool = False
    retry_first_s: float = PROBE_FIRST_S


class Exposure:
    """`run` it while the router serves. `tell(kind, message)`: kind is one of `tunnel`, `open`,
    `published`, `preview`, `by hand`, `trouble`."""

    def __init__(self, exposed: Exposed, tell: Tell, open_tunnel: OpenTunnel = Tunnel) -> None:
        self._exposed = exposed
        self._tell = tell
        self._tunnel = open_tunnel(exposed.tunnel, self._on_news)
        self._announcing: asyncio.Task[None] | None = None
        # By a publisher's place: two webhooks to one host have one name.
        self._published: dict[int, str] = {}

    async def run(self) -> None:
        """Until canceled; then the tunnel is closed."""
        self._tell("tunnel", "opening")
        try:
            await self._tunnel.run()
        finally:
            if self._announcing is not None:
                self._announcing.cancel()

    def _on_news(self, news: Opened | Closed) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
            self._announcing = None
        if isinstance(news, Opened):
            self._announcing = asyncio.create_task(self._announce(news.url))
        else:
            self._tell("trouble", f"{news.reason}; tried again in {news.retry_in_s:.0f} s")

    async def _announce(self, url: str) -> None:
        await self._until_done(lambda: probe(url))
        self._tell("open", url)
        address = Address(url, self._exposed.key_id, self._exposed.key)
        if not self._exposed.publishers:
            self._tell("by hand", address.url)
        await asyncio.gather(
            *(self._publish(i, p, address) for i, p in enumerate(self._exposed.publishers))
        )

    async def _publish(self, place: int, publisher: Publisher, address: Address) -> None:
        if self._exposed.dry_run:
            self._tell("preview", publisher.preview(address))
            return
        # A named tunnel comes back under its old address.
        if self._published.get(place) == address.url:
            return
        if await self._until_done(lambda: publisher.publish(address)):
            self._published[place] = address.url
            self._tell("published", publisher.name)

    async def _until_done(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Try, and again later, less and less often; False when trying again cannot help."""
        delay_s = self._exposed.retry_first_s
        told = ""
        while True:
            try:
                await attempt()
                return True
            except (ProbeError, PublishError) as error:
                hopeless = isinstance(error, PublishError) and error.hopeless
                asked_s = getattr(error, "retry_after_s", None) or 0.0
                if (message := str(error)) != told:
                    told = message
                    later = "" if hopeless else "; tried again until it works"
                    self._tell("trouble", f"{message}{later}")
                if hopeless:
                    return False
                await asyncio.sleep(max(delay_s, asked_s))
                delay_s = min(delay_s * 2, RETRY_MAX_S)


async def probe(url: str) -> None:
    """Ask for /health from outside, and see that it is this service that answers: it gives back
    the request's id. Raises ProbeError."""
    request_id = secrets.token_hex(16)
    timeout = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=system_connector()) as http,
            http.get(
                f"{url}/health", headers={"X-Request-Id": request_id}, allow_redirects=False
            ) as response,
        ):
            status, seen = response.status, response.headers.get("X-Request-Id")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProbeError(f"{url} cannot be reached yet ({type(error).__name__})") from error
    if status != 200 or seen != request_id:
        raise ProbeError(f"{url} does not lead to this router yet (it answers {status})")
