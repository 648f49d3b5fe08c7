"""A model that gives a file back as a file: what becomes of large ones on the way."""

import time

from cog import BaseModel, BaseRunner, Input, Path


class Copied(BaseModel):
    """The file, and the ending of the name under which it arrived."""

    copy_of: Path
    suffix: str


class Runner(BaseRunner):
    """Copies."""

    def run(
        self,
        file: Path = Input(description="Any file"),
        delay_s: float = Input(description="Seconds to take", default=0, ge=0, le=600),
    ) -> Copied:
        """Give the file back."""
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline:
            time.sleep(0.01)
        return Copied(copy_of=file, suffix=file.suffix)
