"""How many inputs are fetched at a time: for one caller, and in all.

A URL may take a minute to say nothing. Without bounds one caller's would hold as many
connections, and requests that wait for them, as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakValueDictionary

from router.domain.caller import Caller
from router.domain.errors import RateLimited
from router.ports import Fetcher

# An app has one key for all of its users, so one caller's share is a large one.
PER_CALLER = 32
IN_ALL = 96
WAIT_S = 10.0
# About the time after which a name that does not resolve is given up.
RETRY_AFTER_S = 5.0


class BoundedFetcher:
    """Fulfils Fetcher in front of another: waits for a free slot, but not for long."""

    def __init__(self, inner: Fetcher, *, wait_s: float = WAIT_S) -> None:
        self._inner = inner
        self._wait_s = wait_s
        self._all = asyncio.Semaphore(IN_ALL)
        self._of_owner: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def close(self) -> None:
        """Close the fetcher within."""
        await self._inner.close()

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """As the fetcher within. Raises RateLimited, with when to come again, after WAIT_S
        seconds without a free slot."""
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
