"""Tells the scheduler which models are to stay loaded now, by the clock on the wall."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from router.clock import Clock
from router.scheduling import messages as msg
from router.scheduling.weekly_schedule import WeeklySchedule

log = logging.getLogger(__name__)


class KeepLoaded:
    """Looks at the schedules once a minute. So no code is needed for a clock that is set, or for
    summer time.

    `may_load`: whether the model's package can be read. As long as it cannot, it is not loaded.
    `local` turns seconds since the epoch into the time of the clock on the wall.
    """

    def __init__(
        self,
        schedules: Mapping[str, WeeklySchedule],
        clock: Clock,
        post: Callable[[msg.Event], None],
        *,
        may_load: Callable[[str], bool],
        local: Callable[[float], datetime] = datetime.fromtimestamp,
    ) -> None:
        self._schedules = schedules
        self._clock = clock
        self._post = post
        self._may_load = may_load
        self._local = local
        self._kept: set[str] = set()

    def look(self) -> None:
        """Tell the scheduler what has changed since the last look."""
        now = self._local(self._clock.time())
        for name, schedule in self._schedules.items():
            keep = schedule.is_open(now) and self._may_load(name)
            if keep == (name in self._kept):
                continue
            (self._kept.add if keep else self._kept.discard)(name)
            log.info("model is kept loaded" if keep else "model may go", extra={"model": name})
            self._post(msg.Keep(name, keep))

    async def run(self) -> None:
        """Look now and at the beginning of each minute, until cancelled."""
        while self._schedules:
            self.look()
            await asyncio.sleep(60.0 - self._clock.time() % 60.0)
