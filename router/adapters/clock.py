"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Fulfils `router.ports.Clock`."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time()
