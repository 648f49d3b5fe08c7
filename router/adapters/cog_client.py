"""HTTP to one coglet server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import aiohttp
import orjson

from router.adapters.sse import read_events
from router.domain.prediction import Json
from router.ports import NotStartedError

EVENT_STREAM = "text/event-stream"
JSON_HEADERS = {"Content-Type": "application/json"}
STREAM_HEADERS = {**JSON_HEADERS, "Accept": EVENT_STREAM}
# coglet frees its slot up to 10 ms after the answer; 530 of 3000 immediate requests met a 409.
BUSY_RETRY_S = 0.001
BUSY_LIMIT_S = 2.0


OnOutput = Callable[[Json], None]


class CogClient:
    """One server's client. `close` when done."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def health(self) -> dict[str, Json]:
        """The answer of /health-check, {} when there is none that can be read."""
        try:
            async with self._session.get(
                f"{self._base}/health-check", timeout=aiohttp.ClientTimeout(15)
            ) as response:
                health: dict[str, Json] = orjson.loads(await response.read())
                return health
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
            return {}

    async def predict(
        self, body: bytes, is_broken: Callable[[], bool], on_output: OnOutput | None = None
    ) -> tuple[int, bytes]:
        """POST a prediction, again while the slot is not yet free: status and body.

        With `on_output` it is streamed: that is called with each element of the output, and
        the body is the event that says how it ended, in the shape of an unstreamed answer.
        Raises NotStartedError when it certainly never began, aiohttp.ClientError when it may
        have.
        """
        url = f"{self._base}/predictions"
        headers = JSON_HEADERS if on_output is None else STREAM_HEADERS
        give_up = 0.0
        while True:
            try:
                async with self._session.post(url, data=body, headers=headers) as response:
                    if on_output and response.content_type == EVENT_STREAM:
                        return response.status, await _follow(response, on_output)
                    if response.status != 409:
                        return response.status, await response.read()
            except aiohttp.ClientConnectorError as error:
                raise NotStartedError("the model's server does not listen") from error
            now = time.monotonic()
            give_up = give_up or now + BUSY_LIMIT_S
            if is_broken() or now > give_up:
                raise NotStartedError("the model's server takes no prediction")
            await asyncio.sleep(BUSY_RETRY_S)

    async def cancel(self, prediction_id: str) -> None:
        """Ask for a cancel; whether it is heeded shows in the prediction's own answer."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            url = f"{self._base}/predictions/{prediction_id}/cancel"
            async with self._session.post(url, timeout=aiohttp.ClientTimeout(5)):
                pass


async def _follow(response: aiohttp.ClientResponse, on_output: OnOutput) -> bytes:
    """Read the stream to its end: the last event's data. Raises aiohttp.ClientPayloadError
    when it breaks off before it has said how the prediction ended."""
    async with contextlib.aclosing(read_events(response.content.iter_any())) as events:
        async for name, data in events:
            if name == "output":
                on_output(orjson.loads(data).get("chunk"))
            elif name == "completed":
                return data
    # By an `error` event too: we were too slow, and the rest cannot be had.
    raise aiohttp.ClientPayloadError("the stream ended before the prediction")
