"""A model that gives back what it was given: what the router's tests are run against.

It misbehaves on request, the way real models do: it raises, it dies, it takes long.
"""

import hashlib
import os
import signal
import time

from cog import BaseModel, BaseRunner, Input, Path


class InvalidInput(ValueError):
    """The input cannot be used; the message is for the person who sent it."""


class Echo(BaseModel):
    """What arrived."""

    text: str
    number: float
    file_bytes: int | None
    file_sha256: str | None
    file_suffix: str | None
    pid: int


class Runner(BaseRunner):
    """Echoes its inputs."""

    def setup(self) -> None:
        """Load nothing, but take `ECHO_SETUP_S` seconds or fail with `ECHO_SETUP_ERROR`."""
        time.sleep(float(os.environ.get("ECHO_SETUP_S", "0")))
        if error := os.environ.get("ECHO_SETUP_ERROR"):
            raise RuntimeError(error)

    def run(
        self,
        text: str = Input(description="Text to give back", default="hello", max_length=1000),
        number: float = Input(description="A number from 0 to 1", default=0.5, ge=0, le=1),
        mode: str = Input(
            description="How to behave",
            default="echo",
            choices=["echo", "invalid", "raise", "crash", "spin"],
        ),
        delay_s: float = Input(description="Seconds to take", default=0, ge=0, le=600),
        file: Path | None = Input(description="Any file", default=None),
        tags: list[str] = Input(description="Words", default=[]),
    ) -> Echo:
        """Give the inputs back, or behave as `mode` says."""
        print(f"echo {text} {tags}"[:2000])
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline:
            time.sleep(0.01)
        if mode == "invalid":
            raise InvalidInput("Cannot echo: 'text' is not to my taste")
        if mode == "raise":
            raise RuntimeError(f"boom in {__file__}")
        if mode == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        body = file.read_bytes() if file else None
        if journal := os.environ.get("ECHO_JOURNAL"):
            # One write of one line, so that runs of several processes never mix.
            with open(journal, "a") as lines:  # noqa: PTH123
                lines.write(f"{text}\n")
        return Echo(
            text=text,
            number=number,
            file_bytes=None if body is None else len(body),
            file_sha256=None if body is None else hashlib.sha256(body).hexdigest(),
            file_suffix=None if file is None else file.suffix,
            pid=os.getpid(),
        )
