"""A model that streams and records metrics of its own between the elements of its output."""

import time
from collections.abc import Iterator

from cog import BaseRunner, Input, current_scope, streaming


class Runner(BaseRunner):
    """Counts its ticks."""

    @streaming
    def run(
        self,
        ticks: int = Input(description="How many", default=2, ge=0, le=100),
        last_s: float = Input(description="Seconds after the last one", default=0, ge=0, le=60),
        updates: int = Input(description="How often to count", default=1, ge=0, le=100_000),
    ) -> Iterator[str]:
        """Record and yield, in turn."""
        scope = current_scope()
        scope.record_metric("speed", 0.7)
        for i in range(ticks):
            yield f"tick {i}"
            for _ in range(updates):
                scope.record_metric("counted", 1, mode="incr")
        yield f"context {dict(scope.context)}"
        due = time.monotonic() + last_s
        while time.monotonic() < due:
            time.sleep(0.01)  # short, so that a cancel is heeded
