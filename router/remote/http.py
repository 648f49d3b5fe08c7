"""HTTP to a back-end on another machine. Its two errors say whether a request certainly was not
sent, or may have been.

A prediction is tried again only when it certainly was not sent. One that may have begun may cost
money or have an effect; `router.remote.cog` sends it again only if the settings say that it may.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import orjson

from router import __version__, loop_detection, trace_context
from router.outbound.content_coding import CodingError, TooManyBytesError, decoded
from router.outbound.public_http import PublicHttp, seconds_of
from router.outbound.resolver import system_connector
from router.prediction import Json

CONNECT_TIMEOUT_S = 10.0
SAFE_TIMEOUT_S = 60.0
CANCEL_TIMEOUT_S = 4.0  # for all tries together; the scheduler waits ten seconds for a cancel
# A response contains pictures as data: URIs; a larger one cannot be from one of our models.
MAX_ANSWER_BYTES = 128 << 20
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 30.0
TRIES = 3
WAIT_AT_MOST_S = 30.0  # for a Retry-After; a longer one is passed on to the caller
TAKES_NONE_NOW = frozenset({429, 503})
LOOP_DETECTED = 508
AGENT = {"User-Agent": f"callme/{__version__}"}


class NotSentError(Exception):
    """The back-end was not reached, so nothing can have begun there."""


class BrokenOffError(Exception):
    """The connection was lost, or no response came in time. What was asked for may have begun or
    even ended."""


@dataclass(frozen=True, slots=True)
class RemoteResponse:
    """A complete HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Json:
        """The body as JSON; None when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def object(self) -> dict[str, Json]:
        """The body as a JSON object; {} when it is not one."""
        value = self.json()
        return value if isinstance(value, dict) else {}

    def retry_after_s(self) -> float | None:
        """The Retry-After header, in seconds; None when there is none that can be read."""
        return seconds_of(self.headers.get("Retry-After"))


class RemoteHttp:
    """A client of one back-end. `key`: the headers that authenticate it. Call `close` at the end.

    `entries`: its base URLs, one or more, each good for every request. One is used until it fails;
    then the next one is. `allow_private`: a URL in a response of the back-end may be at a private
    address too.
    """

    def __init__(
        self, entries: Sequence[str], key: Mapping[str, str], *, allow_private: bool = False
    ) -> None:
        self._entries = tuple(entry.rstrip("/") for entry in entries)
        self._used = 0
        self._key = key
        self._elsewhere = PublicHttp(allow_private=allow_private)
        self._session: aiohttp.ClientSession | None = None

    @property
    def base_url(self) -> str:
        """The entry that is used now."""
        return self._entries[self._used]

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
        known_to_one: bool = False,
    ) -> RemoteResponse:
        """Send one request. `path` may be a complete URL; set `with_key` only if it has the origin
        of the base URL. Without the key the request goes only to the public internet, like one to a
        caller's URL. Without `timeout_s` the caller must limit the time. Redirects are not
        followed.

        An entry that is not reached has begun nothing, so the next one gets the request.
        `known_to_one`: an entry may answer 404 for what another one knows, so then the next one is
        asked too.

        Raises NotSentError when it was not sent to any entry, and BrokenOffError when there is no
        complete response."""
        send = functools.partial(
            self._send, method, json=json, data=data, headers=headers, timeout_s=timeout_s
        )
        if "://" in path:
            return await send(path, with_key=with_key)
        unknown: RemoteResponse | None = None
        unreached: NotSentError | None = None
        for entry in (*self._entries[self._used :], *self._entries[: self._used]):
            try:
                answer = await send(entry + path, with_key=with_key)
            except NotSentError as error:
                self._leave(entry)
                unreached = error
            except BrokenOffError:
                self._leave(entry)
                raise
            else:
                if known_to_one and answer.status == HTTPStatus.NOT_FOUND:
                    unknown = answer
                    continue
                if _in_trouble(answer.status):
                    self._leave(entry)
                return answer
        if unknown is None:
            raise unreached or NotSentError("it has no address")
        return unknown

    def _leave(self, entry: str) -> None:
        """Use the next entry, unless another request has already left this one."""
        if self.base_url == entry:
            self._used = (self._used + 1) % len(self._entries)

    async def _send(
        self,
        method: str,
        url: str,
        *,
        json: Any,
        data: Any,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
        with_key: bool,
    ) -> RemoteResponse:
        """Send one request to one URL. See `ask`."""
        own = {**AGENT, loop_detection.HEADER: loop_detection.onward(), **trace_context.onward()}
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
        self,
        method: str,
        path: str,
        *,
        timeout_s: float = SAFE_TIMEOUT_S,
        with_key: bool = True,
        known_to_one: bool = False,
    ) -> RemoteResponse:
        """Like `ask`, for a request that may be sent twice (GET, cancel). It is tried TRIES times,
        also after a response with a status of 500 or more."""
        delays = retry_delays()
        while True:
            try:
                answer = await self.ask(
                    method,
                    path,
                    timeout_s=timeout_s,
                    with_key=with_key,
                    known_to_one=known_to_one,
                )
            except (NotSentError, BrokenOffError):
                delay_s = next(delays, None)
                if delay_s is None:
                    raise
            else:
                if not _in_trouble(answer.status) or (delay_s := next(delays, None)) is None:
                    return answer
            await asyncio.sleep(delay_s)

    async def tell_all(self, path: str) -> None:
        """POST to every entry at the same time, to each as `ask_safely` does. An entry that fails
        keeps it from no other."""

        async def tell(entry: str) -> None:
            with contextlib.suppress(NotSentError, BrokenOffError):
                await self.ask_safely("POST", entry + path)

        await asyncio.gather(*map(tell, self._entries))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=system_connector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def retry_delays(tries: int = TRIES) -> Iterator[float]:
    """Seconds to wait before each further try. They double, with jitter, so that many clients that
    failed together do not try again together."""
    return (
        min(RETRY_FIRST_S * 2**n, RETRY_MAX_S) * random.uniform(0.5, 1.0)  # noqa: S311
        for n in range(tries - 1)
    )


def delay_before_retry_s(
    answer: RemoteResponse, delays: Iterator[float], give_up: float = math.inf
) -> float | None:
    """Seconds until a back-end that answered with a status of TAKES_NONE_NOW is asked again: its
    Retry-After, else the next of `delays`. None when it is not asked again, and its response is
    passed on to the caller. `give_up`: when the caller's time is over, by `time.monotonic`."""
    delay_s = next(delays, None)
    if delay_s is None:
        return None
    delay_s = answer.retry_after_s() or delay_s
    too_long = delay_s > WAIT_AT_MOST_S or time.monotonic() + delay_s > give_up
    return None if too_long else delay_s


def _in_trouble(status: int) -> bool:
    """Whether the next try may succeed. It cannot after LOOP_DETECTED."""
    return status >= 500 and status != LOOP_DETECTED


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in decoded(response, MAX_ANSWER_BYTES):
        body += piece
    return bytes(body)


def _reason(error: Exception) -> str:
    """What went wrong, without addresses, as callers see it."""
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
    """The system's text for the error's number. The text that asyncio adds names the address. There
    is no number when several addresses were tried."""
    return os.strerror(error.errno).lower() if error.errno else "no connection"
