"""A model that streams files, one after the other."""

import tempfile
import time
from collections.abc import Iterator

from cog import BaseRunner, Input, Path, streaming


class Runner(BaseRunner):
    """Writes files as it goes."""

    @streaming
    def run(
        self,
        count: int = Input(description="How many", default=3, ge=0, le=50),
        delay_s: float = Input(description="Seconds before each", default=0, ge=0, le=60),
        end: str = Input(
            description="What happens then", default="well", choices=["well", "raise"]
        ),
    ) -> Iterator[Path]:
        """Yield pictures that hold their number."""
        folder = Path(tempfile.mkdtemp())
        for i in range(count):
            due = time.monotonic() + delay_s
            while time.monotonic() < due:
                time.sleep(0.01)  # short, so that a cancel is heeded
            picture = folder / f"{i}.png"
            picture.write_bytes(b"picture %d" % i)
            yield picture
        if end == "raise":
            raise RuntimeError("out of paint")
