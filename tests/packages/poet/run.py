"""A model that streams: what the router's tests of streaming are run against."""

import os
import signal
import sys
import time

from cog import BaseRunner, ConcatenateIterator, Input, streaming


class Runner(BaseRunner):
    """Says a text word by word."""

    @streaming
    def run(
        self,
        text: str = Input(description="What to say", default="so much depends", max_length=10_000),
        delay_s: float = Input(description="Seconds before each word", default=0, ge=0, le=60),
        end: str = Input(
            description="What happens after the last word",
            default="well",
            choices=["well", "raise", "crash"],
        ),
    ) -> ConcatenateIterator[str]:
        """Yield each word with the white space before it, and print how far it has come."""
        words = text.replace(" ", "\0 ").split("\0")
        for i, word in enumerate(words, 1):
            due = time.monotonic() + delay_s
            while time.monotonic() < due:
                time.sleep(0.01)  # short, so that a cancel is heeded
            print(f"{i} of {len(words)}")
            print("ahem", file=sys.stderr)
            yield word
        if end == "raise":
            raise RuntimeError("lost for words")
        if end == "crash":
            time.sleep(0.5)  # coglet loses what it has not yet passed on
            os.kill(os.getpid(), signal.SIGKILL)
