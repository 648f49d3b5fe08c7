"""HTTP to a back-end on another machine: what was certainly not sent, what may have been.

The difference is what may be tried again: a prediction that may have begun is never sent
twice, since it may cost money or do something.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from router import __version__, loop_detection
from router.outbound.content_coding import CodingError, TooManyBytesError, decoded
from router.outbound.public_http import PublicHttp, seconds_of
from router.outbound.resolver import system_connector
from router.prediction import Json

CONNECT_TIMEOUT_S = 10.0
SAFE_TIMEOUT_S = 60.0
CANCEL_TIMEOUT_S = 4.0  # tries included; the scheduler gives a cancel ten seconds
# An answer holds pictures as data: URIs; more than this is no answer of a model of ours.
MAX_ANSWER_BYTES = 128 << 20
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 30.0
TRIES = 3
WAIT_AT_MOST_S = 30.0  # in a caller's name; a longer wait is the caller's own
TAKES_NONE_NOW = frozenset({429, 503})
LOOP_DETECTED = 508
AGENT = {"User-Agent": f"callme/{__version__}"}


class NotSentError(Exception):
    """The back-end was not reached: nothing can have begun."""


class BrokenOffError(Exception):
    """The connection was lost, or nothing came in time: it may have begun, or even ended."""


@dataclass(frozen=True, slots=True)
class RemoteResponse:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Json:
        """The body as JSON; None when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def object(self) -> dict[str, Json]:
        """The body as a JSON object; {} when it is none."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    def retry_after_s(self) -> float | None:
        """What Retry-After says, in seconds; None where it says nothing."""
        return seconds_of(self.headers.get("Retry-After"))


class RemoteHttp:
    """A client of one base URL. `key`: the headers that say who asks. `close` when done.

    `allow_private`: what an answer of the back-end names may be on a private address too.
    """

    def __init__(
        self, base_url: str, key: Mapping[str, str], *, allow_private: bool = False
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._key = key
        self._elsewhere = PublicHttp(allow_private=allow_private)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        await self._elsewhere.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        with_key: bool = True,
    ) -> RemoteResponse:
        """One request; `path` may be a whole URL, `with_key` only if it is the same origin's.
        Without the key it goes to the public internet only, as for a caller's URL. Without
        `timeout_s` the caller bounds the time. Redirects are not followed.

        Raises NotSentError, BrokenOffError."""
        url = path if "://" in path else f"{self.base_url}{path}"
        own = {**AGENT, loop_detection.HEADER: loop_detection.onward()}
        sent = {**own, **(self._key if with_key else {}), **(headers or {})}
        if json is not None:
            data = orjson.dumps(json)
            sent["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            session = self._open() if with_key else self._elsewhere.session()
            async with session.request(
                method, url, data=data, headers=sent, timeout=timeout, allow_redirects=False
            ) as response:
                body = await _read(response)
                return RemoteResponse(response.status, response.headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSentError(_reason(error)) from error
        except (CodingError, TooManyBytesError) as error:
            raise BrokenOffError(f"it {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokenOffError(_reason(error)) from error

    async def ask_safely(
        self, method: str, path: str, *, timeout_s: float = SAFE_TIMEOUT_S, with_key: bool = True
    ) -> RemoteResponse:
        """The same for a request that may be sent twice (GET, cancel): tried TRIES times, also
        when the answer is that the server or a proxy is in trouble."""
        delays = retry_delays()
        while True:
            try:
                answer = await self.ask(method, path, timeout_s=timeout_s, with_key=with_key)
            except (NotSentError, BrokenOffError):
                delay_s = next(delays, None)
                if delay_s is None:
                    raise
            else:
                if not _in_trouble(answer.status) or (delay_s := next(delays, None)) is None:
                    return answer
            await asyncio.sleep(delay_s)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=system_connector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def retry_delays(tries: int = TRIES) -> Iterator[float]:
    """Seconds to wait before each further try: doubling, with jitter so that many who failed
    together do not come back together."""
    return (
        min(RETRY_FIRST_S * 2**n, RETRY_MAX_S) * random.uniform(0.5, 1.0)  # noqa: S311
        for n in range(tries - 1)
    )


def delay_before_retry_s(
    answer: RemoteResponse, delays: Iterator[float], give_up: float = math.inf
) -> float | None:
    """Seconds until a back-end that TAKES_NONE_NOW is asked again, as its Retry-After says or as
    the next of `delays` does. None when it is not: then its answer is the caller's. `give_up`:
    when the caller's time is over, by `time.monotonic`."""
    delay_s = next(delays, None)
    if delay_s is None:
        return None
    delay_s = answer.retry_after_s() or delay_s
    too_long = delay_s > WAIT_AT_MOST_S or time.monotonic() + delay_s > give_up
    return None if too_long else delay_s


def _in_trouble(status: int) -> bool:
    """A server that may do better next time; a circle stays one."""
    return status >= 500 and status != LOOP_DETECTED


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in decoded(response, MAX_ANSWER_BYTES):
        body += piece
    return bytes(body)


def _reason(error: Exception) -> str:
    """What went wrong, without addresses: it is told to callers."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "its certificate is not accepted"
        case aiohttp.ConnectionTimeoutError():
            return f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
        case aiohttp.ClientConnectorError():
            return _plainly(error.os_error)
        case TimeoutError():
            return "no answer in time"
        case _:
            return "the connection was lost"


def _plainly(error: OSError) -> str:
    """The system's own words: those that asyncio puts into an error name the address, and of
    several addresses that were tried there is no number."""
    return os.strerror(error.errno).lower() if error.errno else "no connection"
