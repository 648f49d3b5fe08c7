"""The box on the internet: a tunnel, a test that it leads here, and the announcement to the web
app.

The address is published only after a request to it has been answered by this router. When the
tunnel gets a new address, this starts again, and the announcement of the old address is cancelled.
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
from router.tunnel.cloudflared import Closed, OnChange, Opened, Tunnel, TunnelOptions

PROBE_LIMIT_S = 15.0
# A new name is not known to all name servers at once, and some cache the answer to an early
# question.
PROBE_FIRST_S = 1.0
RETRY_MAX_S = 60.0
Tell = Callable[[str, str], None]


class RunningTunnel(Protocol):
    """The part of a tunnel that is used here."""

    async def run(self) -> None:
        """Keep the tunnel open until cancelled."""


OpenTunnel = Callable[[TunnelOptions, OnChange], RunningTunnel]


class ProbeError(Exception):
    """The public address does not lead to this router. The message is for a person."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """How the box is exposed. Without publishers only the person at the terminal sees the
    address. `models`: waits until it is known which models there are, and returns them
    (`Address`)."""

    tunnel: TunnelOptions
    key_id: str
    key: str
    publishers: Sequence[Publisher]
    dry_run: bool = False
    retry_first_s: float = PROBE_FIRST_S
    models: Callable[[], Awaitable[str]] | None = None


class Exposure:
    """Exposes the box while `run` runs. `tell(kind, message)` is called with every step; kind is
    one of `tunnel`, `open`, `published`, `preview`, `by hand`, `trouble`."""

    def __init__(self, exposed: Exposed, tell: Tell, open_tunnel: OpenTunnel = Tunnel) -> None:
        self._exposed = exposed
        self._tell = tell
        self._tunnel = open_tunnel(exposed.tunnel, self._on_news)
        self._announcing: asyncio.Task[None] | None = None
        # By a publisher's index, as two webhooks to one host have the same name.
        self._published: dict[int, str] = {}

    async def run(self) -> None:
        """Run until cancelled; then the tunnel is closed."""
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
        models = await self._exposed.models() if self._exposed.models else ""
        address = Address(url, self._exposed.key_id, self._exposed.key, models)
        if not self._exposed.publishers:
            values = f" GPU_BACKEND_MODELS={models}" if models else ""
            self._tell("by hand", address.url + values)
        await asyncio.gather(
            *(self._publish(i, p, address) for i, p in enumerate(self._exposed.publishers))
        )

    async def _publish(self, index: int, publisher: Publisher, address: Address) -> None:
        if self._exposed.dry_run:
            self._tell("preview", publisher.preview(address))
            return
        # A named tunnel has the same address after each restart.
        if self._published.get(index) == address.url:
            return
        if await self._until_done(lambda: publisher.publish(address)):
            self._published[index] = address.url
            self._tell("published", publisher.name)

    async def _until_done(self, attempt: Callable[[], Awaitable[None]]) -> bool:
        """Try until it succeeds, with growing delays. False when another try cannot succeed."""
        delay_s = self._exposed.retry_first_s
        shown = ""
        while True:
            try:
                await attempt()
                return True
            except (ProbeError, PublishError) as error:
                hopeless = isinstance(error, PublishError) and error.hopeless
                asked_s = getattr(error, "retry_after_s", None) or 0.0
                if (message := str(error)) != shown:
                    shown = message
                    later = "" if hopeless else "; tried again until it works"
                    self._tell("trouble", f"{message}{later}")
                if hopeless:
                    return False
                await asyncio.sleep(max(delay_s, asked_s))
                delay_s = min(delay_s * 2, RETRY_MAX_S)


async def probe(url: str) -> None:
    """GET /health at the public address, and check that this service answers: it returns the id of
    the request. Raises ProbeError when it does not."""
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
