"""Inputs are fetched in bounds: of one caller, and of all."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from router.errors import InvalidInput, RateLimited
from router.inputs.fetch import IN_ALL, PER_CALLER, RETRY_AFTER_S, BoundedFetcher
from router.keys.key import Caller
from tests.waiting import until

ONE, OTHER = Caller("one"), Caller("other")
LONG_S = 60.0


class Slow:
    """A fetcher whose every answer comes when the test opens the gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.fails = False
        self.at_work: Counter[str] = Counter()
        self.closed = False

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """At the gate."""
        self.at_work[caller.owner] += 1
        try:
            await self.gate.wait()
        finally:
            self.at_work[caller.owner] -= 1
        if self.fails:
            raise InvalidInput("it cannot be had")
        return "/path", url

    async def close(self) -> None:
        """Noted."""
        self.closed = True


async def ask(fetcher: BoundedFetcher, caller: Caller = ONE) -> tuple[str, str]:
    """One input."""
    return await fetcher.fetch("http://a.example/", "image", 100, caller)


def many(fetcher: BoundedFetcher, n: int, caller: Caller) -> list[asyncio.Task[tuple[str, str]]]:
    """So many at once."""
    return [asyncio.create_task(ask(fetcher, caller)) for _ in range(n)]


async def test_one_callers_share() -> None:
    """More of one caller's wait; another's go on, and in time everybody has what it wants."""
    slow = Slow()
    fetcher = BoundedFetcher(slow, wait_s=LONG_S)
    tasks = many(fetcher, PER_CALLER + 5, ONE)
    await until(lambda: slow.at_work["one"] == PER_CALLER)
    tasks += many(fetcher, 1, OTHER)
    await until(lambda: slow.at_work["other"] == 1)
    assert slow.at_work["one"] == PER_CALLER
    slow.gate.set()
    assert await asyncio.gather(*tasks) == [("/path", "http://a.example/")] * len(tasks)


async def test_the_request_is_passed_on() -> None:
    """As it came, when it has its slot."""
    asked: list[tuple[object, ...]] = []

    class Recording(Slow):
        async def fetch(
            self, url: str, field: str, max_bytes: int, caller: Caller
        ) -> tuple[str, str]:
            asked.append((url, field, max_bytes, caller))
            return "/path", "name"

    assert await ask(BoundedFetcher(Recording())) == ("/path", "name")
    assert asked == [("http://a.example/", "image", 100, ONE)]


async def test_all_together() -> None:
    """However many callers there are."""
    slow = Slow()
    fetcher = BoundedFetcher(slow, wait_s=LONG_S)
    tasks = [t for n in range(8) for t in many(fetcher, PER_CALLER, Caller(f"caller {n}"))]
    await until(lambda: slow.at_work.total() == IN_ALL)
    slow.gate.set()
    await asyncio.gather(*tasks)


async def test_who_waits_too_long_is_told_when() -> None:
    """429 with Retry-After, while those who have a slot keep it."""
    slow = Slow()
    tasks = many(fetcher := BoundedFetcher(slow, wait_s=0.01), PER_CALLER, ONE)
    await until(lambda: slow.at_work["one"] == PER_CALLER)
    with pytest.raises(RateLimited) as refusal:
        await ask(fetcher)
    assert (refusal.value.status, refusal.value.retry_after_s) == (429, RETRY_AFTER_S)
    assert refusal.value.message == (
        "Cannot fetch 'image': 32 inputs of this key, or 96 of all, are being fetched"
    )
    slow.gate.set()
    await asyncio.gather(*tasks)
    assert await ask(fetcher)


async def test_every_end_frees_the_slot() -> None:
    """A failure, and a caller that has gone, while it is fetched or while it waits."""
    slow = Slow()
    fetcher = BoundedFetcher(slow, wait_s=LONG_S)
    for ends_well in (True, False):
        tasks = many(fetcher, PER_CALLER + 3, ONE)
        await until(lambda: slow.at_work["one"] == PER_CALLER)
        for task in tasks[:: -1 if ends_well else 1][:10]:
            task.cancel()
        slow.fails = not ends_well
        slow.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        slow.gate.clear()
    slow.fails = False
    tasks = many(fetcher, PER_CALLER, ONE)
    await until(lambda: slow.at_work["one"] == PER_CALLER)
    slow.gate.set()
    await asyncio.gather(*tasks)
    await fetcher.close()
    assert slow.closed
