"""Fetches inputs that were given as URLs.

The router fetches them itself, so that it can refuse an address. `router.outbound.public_http`
decides which addresses are refused, for the URL itself and for each redirect. This module
decides which redirects are followed, how much is read and for how long.
"""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import AsyncResolver
from yarl import URL

from router.errors import InvalidInput, PayloadTooLarge, RateLimited
from router.inputs.request_inputs import Fetcher
from router.keys.key import Caller
from router.outbound.content_coding import CodingError, TooManyBytesError, decoded
from router.outbound.public_http import (
    MakeResolver,
    PrivateAddressError,
    PublicHttp,
    judge_url,
    parse_url,
)
from router.prediction import FileRef
from router.storage.store import Files

MAX_REDIRECTS = 5
TOTAL_TIMEOUT_S = 60.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class UrlFetcher:
    """Implements `router.inputs.request_inputs.Fetcher`. Call `close` when done."""

    def __init__(
        self, files: Files, *, allow_private: bool, make_resolver: MakeResolver = AsyncResolver
    ) -> None:
        self._files = files
        self._http = PublicHttp(allow_private=allow_private, make_resolver=make_resolver)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """GET the URL into the spool. Return the file's path and a name for it.

        Raises InvalidInput when the URL cannot be fetched, and PayloadTooLarge when its decoded
        content has more than `max_bytes`.
        """
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._follow(url, field, max_bytes)
        except PrivateAddressError as error:
            raise _refused(field, "is not on the public internet") from error
        except TimeoutError as error:
            raise _refused(field, f"did not arrive within {TOTAL_TIMEOUT_S:.0f} s") from error
        except CodingError as error:
            raise _refused(field, str(error)) from error
        except TooManyBytesError as error:
            over = f"Cannot use '{field}': its URL has over {max_bytes} bytes"
            raise PayloadTooLarge(over) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, PrivateAddressError):
                raise _refused(field, "is not on the public internet") from error
            raise _refused(field, "cannot be fetched") from error

    async def _follow(self, text: str, field: str, max_bytes: int) -> tuple[str, str]:
        url = self._judge(text)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._http.session().get(url, allow_redirects=False) as response:
                to = response.headers.get("Location", "")
                if to and response.status in REDIRECTS:
                    url = self._judge(url.join(parse_url(to)))
                    continue
                if response.status != 200:
                    raise _refused(field, f"answers {response.status}")
                return await self._save(response, url.name or field, max_bytes)
        raise _refused(field, "redirects too often")

    def _judge(self, url: str | URL) -> URL:
        return judge_url(url, allow_private=self._http.allow_private)

    async def _save(
        self, response: aiohttp.ClientResponse, name: str, max_bytes: int
    ) -> tuple[str, str]:
        file = self._files.create(name)
        try:
            async for piece in decoded(response, max_bytes):
                file.write(piece)
        except BaseException:
            self._files.remove([FileRef("", str(file.path), name)])
            raise
        finally:
            file.close()
        return str(file.path), name


def _refused(field: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"Cannot use '{field}': its URL {why}",
        details={"problems": [{"input": field, "message": f"its URL {why}"}]},
    )


# An app has one key for all of its users, so the limit of one caller is high.
PER_CALLER = 32
IN_ALL = 96
WAIT_S = 10.0
# About the time after which a name that does not resolve is given up.
RETRY_AFTER_S = 5.0


class BoundedFetcher:
    """Implements Fetcher in front of another one: waits for a free slot, WAIT_S at most."""

    def __init__(self, inner: Fetcher, *, wait_s: float = WAIT_S) -> None:
        self._inner = inner
        self._wait_s = wait_s
        self._all = asyncio.Semaphore(IN_ALL)
        self._of_owner: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def close(self) -> None:
        """Close the inner fetcher."""
        await self._inner.close()

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Fetch with the inner fetcher.

        Raises RateLimited, with a time to retry after, when no slot gets free in `wait_s` seconds.
        """
        slots = self._of_owner.setdefault(caller.owner, asyncio.Semaphore(PER_CALLER))
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._wait_s):
                    await held.enter_async_context(slots)
                    await held.enter_async_context(self._all)
            except TimeoutError as error:
                raise RateLimited(
                    f"Cannot fetch '{field}': {PER_CALLER} inputs of this key, or {IN_ALL} of "
                    "all, are being fetched",
                    retry_after_s=RETRY_AFTER_S,
                ) from error
            return await self._inner.fetch(url, field, max_bytes, caller)
