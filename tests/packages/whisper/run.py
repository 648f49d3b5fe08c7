"""A model that streams and has a secret input: what it says of it goes to its caller alone."""

import hashlib
import time
from collections.abc import Iterator

from cog import BaseRunner, Input, Secret, current_scope, streaming


class Runner(BaseRunner):
    """Says the hash of a secret in pieces."""

    @streaming
    def run(
        self,
        token: Secret = Input(description="A secret"),
        end: str = Input(description="How it ends", default="well", choices=["well", "raise"]),
        delay_s: float = Input(description="Seconds before each piece", default=0, ge=0, le=60),
    ) -> Iterator[str]:
        """Yield eight digits at a time, and print and record what the SDK shows of the secret."""
        digits = hashlib.sha256(token.get_secret_value().encode()).hexdigest()
        for i in range(0, len(digits), 8):
            due = time.monotonic() + delay_s
            while time.monotonic() < due:
                time.sleep(0.01)
            print(f"{i} of {token}")
            current_scope().record_metric("shown", str(token))
            yield digits[i : i + 8]
        if end == "raise":
            raise RuntimeError(f"401 for {token.get_secret_value()}")
