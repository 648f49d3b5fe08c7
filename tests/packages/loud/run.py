"""A model that prints more than anybody reads: what the bounds on logs are tested against."""

import os
import sys
import time

from cog import BaseRunner, Input

BLANK = "x" * 60


class Runner(BaseRunner):
    """Prints."""

    def setup(self) -> None:
        """Print as many lines as `LOUD_SETUP_LINES` says, then fail if `LOUD_SETUP_ERROR` does."""
        for n in range(int(os.environ.get("LOUD_SETUP_LINES", "0"))):
            print(f"loading {n} {BLANK}")
        if error := os.environ.get("LOUD_SETUP_ERROR"):
            raise RuntimeError(error)

    def run(
        self,
        lines: int = Input(description="Lines to print", default=0, ge=0),
        seconds: float = Input(description="Or so long", default=0, ge=0),
        end: str = Input(description="How it ends", default="well", choices=["well", "raise"]),
    ) -> int:
        """Print numbered lines on both streams in turn; how many there were."""
        n = 0
        until = time.monotonic() + seconds
        while n < lines or time.monotonic() < until:
            print(f"line {n} {BLANK}", file=sys.stderr if n % 2 else sys.stdout)
            n += 1
        if end == "raise":
            raise RuntimeError("hoarse")
        return n
