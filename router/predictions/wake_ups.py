"""Calls the scheduler again when time alone could change something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from router.clock import Clock

# The scheduler's times are seconds. So a wake-up may come this much too late.
LOOK_S = 0.01


class WakeUps:
    """A timer that calls `tick`. `next_wakeup` returns when that is due, given the present time,
    both in seconds of `clock`; None when only an event can change something."""

    def __init__(
        self, clock: Clock, next_wakeup: Callable[[float], float | None], tick: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._next_wakeup = next_wakeup
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    def look(self) -> None:
        """To be called after every event. Events within LOOK_S share one computation of the next
        wake-up: one for each event took a tenth of a small prediction's processor time."""
        if self._look is None and not self._closed:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._set_timer)

    def close(self) -> None:
        """Call nothing any more, whatever happens."""
        self._closed = True
        for timer in (self._timer, self._look):
            if timer is not None:
                timer.cancel()

    def _set_timer(self) -> None:
        """Set the timer, unless one is set that fires no later.

        One that fires too early costs a tick without effect, after which the right timer is set.
        Most events only move the wake-up to later, and a new timer costs more than a tick."""
        self._look = None
        now = self._clock.monotonic()
        wakeup = self._next_wakeup(now)
        if wakeup is None:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(wakeup - now, 0.0) + 0.001
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._tick()
