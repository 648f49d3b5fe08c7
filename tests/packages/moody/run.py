"""A model with a health check of its own, which says what it was last asked to say."""

import os
import time

from cog import BaseRunner, Input


class Runner(BaseRunner):
    """Is well, or not."""

    def setup(self) -> None:
        """`MOODY` is how it is from the start."""
        self.mood = os.environ.get("MOODY", "well")

    def run(
        self,
        mood: str = Input(
            description="How it is from now on",
            default="well",
            choices=["well", "no", "raise", "hang"],
        ),
        last_s: float = Input(description="Seconds to take after that", default=0, ge=0, le=60),
    ) -> int:
        """Change the mood; give back the process's id."""
        self.mood = mood
        due = time.monotonic() + last_s
        while time.monotonic() < due:
            time.sleep(0.01)  # short, so that a cancel is heeded
        return os.getpid()

    def healthcheck(self) -> bool:
        """Whether it is well."""
        if self.mood == "raise":
            raise RuntimeError("the weights are gone")
        if self.mood == "hang":
            time.sleep(600)
        return self.mood == "well"
