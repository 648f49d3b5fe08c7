"""Limits on requests to a back-end: a breaker for one that is down, an allowance for one that costs
money, and a limit on the wait for one that does not have the model.

None of them knows HTTP. The time comes from a clock that is given to them.
"""

from __future__ import annotations

import math
from collections import deque

from router.clock import Clock

HOUR_S = 3600.0
# One or two lost connections in a row may be chance; the third is a problem of the back-end.
FAILURES_TO_OPEN = 3
# Connections that are lost together are one problem: a server in front of the back-end has ended.
SAME_MOMENT_S = 1.0
# A proxy answers 404 while the server behind it is exchanged, which takes minutes. What has
# answered nothing else for longer does not have the model.
MISSING_LONGEST_S = 900.0


class Allowance:
    """At most `per_hour` requests in any hour. The window slides, so there is no burst at the full
    hour. `per_hour` None: no limit.

    It is only in memory: a restart of the router forgets the requests that were sent.
    """

    def __init__(self, per_hour: int | None, clock: Clock) -> None:
        self.per_hour = per_hour
        self._clock = clock
        self._sent: deque[float] = deque()

    def wait_s(self) -> float:
        """Seconds until one more request may be sent; 0 when it may be sent now."""
        if self.per_hour is None:
            return 0.0
        now = self._clock.monotonic()
        while self._sent and now >= self._sent[0] + HOUR_S:
            self._sent.popleft()
        if len(self._sent) < self.per_hour:
            return 0.0
        if not self._sent:
            return HOUR_S  # `per_hour` is 0: no request is allowed
        return self._sent[0] + HOUR_S - now

    def take(self) -> bool:
        """Count one request. False when it is not allowed; then it is not counted."""
        if self.wait_s() > 0:
            return False
        if self.per_hour is not None:
            self._sent.append(self._clock.monotonic())
        return True

    def spent(self) -> int:
        """The number of requests in the last hour."""
        self.wait_s()
        return len(self._sent)


class Breaker:
    """A circuit breaker. It opens after FAILURES_TO_OPEN failures in a row; failures within
    SAME_MOMENT_S count as one. The first request after the back-off closes it if it succeeds.

    The scheduler has the back-off: a model whose process is broken is started again after a time
    that doubles with each failure. Until then callers get an error at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_a_row = 0
        self._counted_at = -math.inf
        self.is_open = False

    def failed(self) -> None:
        """Count a failure of the back-end; open at FAILURES_TO_OPEN in a row."""
        now = self._clock.monotonic()
        if now < self._counted_at + SAME_MOMENT_S:
            return
        self._counted_at = now
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_TO_OPEN:
            self.is_open = True

    def succeeded(self) -> None:
        """Close: the back-end answered. The answer may be that the input is not valid."""
        self._in_a_row = 0
        self.is_open = False


class NotFoundWindow:
    """Since when every answer of a back-end has been that it does not have the model."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_at = self._last_at = -math.inf

    def record(self) -> bool:
        """Record one such answer. True when there was no other answer for MISSING_LONGEST_S: then
        the model is taken to be missing for good. If nobody asked for as long as that, the time
        begins again."""
        now = self._clock.monotonic()
        if now > self._last_at + MISSING_LONGEST_S:
            self._first_at = now
        self._last_at = now
        return now >= self._first_at + MISSING_LONGEST_S

    def found(self) -> None:
        """The back-end gave another answer."""
        self._last_at = -math.inf
