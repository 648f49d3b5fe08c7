"""What stands between the router and a back-end that is down, or dear.

Both know nothing of HTTP, and take their time from a clock.
"""

from __future__ import annotations

from collections import deque

from router.clock import Clock

HOUR_S = 3600.0
# One lost connection is chance, two may be; the third in a row is the back-end.
FAILURES_TO_OPEN = 3


class Allowance:
    """At most so many requests in any hour: a sliding window, so no burst at the full hour.

    It lives as long as the router: a restart forgets what was spent.
    """

    def __init__(self, per_hour: int | None, clock: Clock) -> None:
        self.per_hour = per_hour
        self._clock = clock
        self._sent: deque[float] = deque()

    def wait_s(self) -> float:
        """Seconds until one more may be sent, 0 when it may be now."""
        if self.per_hour is None:
            return 0.0
        now = self._clock.monotonic()
        while self._sent and now >= self._sent[0] + HOUR_S:
            self._sent.popleft()
        if len(self._sent) < self.per_hour:
            return 0.0
        if not self._sent:
            return HOUR_S  # none at all is allowed
        return self._sent[0] + HOUR_S - now

    def take(self) -> bool:
        """Count one request, if it is allowed."""
        if self.wait_s() > 0:
            return False
        if self.per_hour is not None:
            self._sent.append(self._clock.monotonic())
        return True

    def spent(self) -> int:
        """Requests of the last hour."""
        self.wait_s()
        return len(self._sent)


class Breaker:
    """Opens after FAILURES_TO_OPEN failures in a row, and closes with a success: the first
    request after a pause decides.

    How long the pause is, is the scheduler's business: a model whose process is broken is
    started again after a back-off that doubles, and callers are told meanwhile.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self.is_open = False

    def failed(self) -> None:
        """The back-end did not answer as it should."""
        self._in_a_row += 1
        if self._in_a_row >= FAILURES_TO_OPEN:
            self.is_open = True

    def succeeded(self) -> None:
        """It answered, be it with an objection."""
        self._in_a_row = 0
        self.is_open = False
