"""How much each key may ask: requests per minute, and requests at a time."""

from __future__ import annotations

import time
from collections import Counter

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from router.domain.errors import RateLimited
from router.domain.keys import Key

# A slot becomes free when some answer ends; nobody knows when that is.
CONCURRENT_RETRY_S = 1.0


class KeyLimits:
    """Counts every admitted request to its key. One object for the whole application."""

    def __init__(self) -> None:
        # 5 µs a request, as measured; the storage for threads starts one at most requests.
        self._rates = MovingWindowRateLimiter(MemoryStorage())
        self._in_flight: Counter[str] = Counter()

    async def enter(self, key: Key) -> None:
        """One more request of this key. Raises RateLimited; nothing is counted then but, as a
        request of its minute, one that found too many under way."""
        per_minute = key.requests_per_minute
        if per_minute is not None:
            item = RateLimitItemPerMinute(per_minute)
            if not await self._rates.hit(item, key.id):
                reset_at = (await self._rates.get_window_stats(item, key.id)).reset_time
                raise RateLimited(
                    f"Cannot serve more: this key may make {per_minute} requests a minute",
                    retry_after_s=max(reset_at - time.time(), CONCURRENT_RETRY_S),
                )
        at_once = key.concurrent_requests
        if at_once is not None and self._in_flight[key.id] >= at_once:
            raise RateLimited(
                f"Cannot serve more: this key may have {at_once} requests at a time",
                retry_after_s=CONCURRENT_RETRY_S,
            )
        self._in_flight[key.id] += 1

    def leave(self, key: Key) -> None:
        """A request that had entered has been answered."""
        self._in_flight[key.id] -= 1
        if self._in_flight[key.id] <= 0:
            del self._in_flight[key.id]
