"""The scheduler is called again when its next moment has come, and is asked for it seldom."""

from __future__ import annotations

import asyncio

from router.clock import SystemClock
from router.predictions.wake_ups import WakeUps
from tests.waiting import until


class Asked:
    """What a scheduler says, and how often it was asked and called."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.moment: float | None = None
        self.asked = self.ticks = 0
        self.wake_ups = WakeUps(self.clock, self.next_wakeup, self.tick)

    def next_wakeup(self, now: float) -> float | None:
        """The moment."""
        self.asked += 1
        return self.moment

    def tick(self) -> None:
        """The moment has come; there is no other."""
        assert self.moment is not None
        assert self.clock.monotonic() >= self.moment
        self.ticks += 1
        self.moment = None
        self.wake_ups.look()


async def test_many_events_are_one_question() -> None:
    """However many come together."""
    asked = Asked()
    for _ in range(1000):
        asked.wake_ups.look()
    await until(lambda: asked.asked > 0)
    await asyncio.sleep(0.05)
    assert (asked.asked, asked.ticks) == (1, 0)


async def test_an_earlier_moment_replaces_a_later_one() -> None:
    """A later one does not replace an earlier one, and nothing is called before its time."""
    asked = Asked()
    asked.moment = asked.clock.monotonic() + 3600
    asked.wake_ups.look()
    await until(lambda: asked.asked == 1)
    asked.moment = asked.clock.monotonic() + 0.05
    asked.wake_ups.look()
    await until(lambda: asked.ticks == 1)
    await until(lambda: asked.asked == 3)  # asked again after the tick


async def test_closed_it_calls_nothing() -> None:
    """Neither a question nor a tick that is due."""
    asked = Asked()
    asked.moment = asked.clock.monotonic() + 0.5
    asked.wake_ups.look()
    await until(lambda: asked.asked == 1)
    asked.wake_ups.look()
    asked.wake_ups.close()
    await asyncio.sleep(0.6)
    assert (asked.asked, asked.ticks) == (1, 0)
