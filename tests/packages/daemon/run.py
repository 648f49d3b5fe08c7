"""A model that leaves daemons behind: what the ending of all processes is tested against."""

import os
import sys

from cog import BaseRunner, Input

# Ends by itself in the end, should a test fail.
SLEEP = "import time; time.sleep(600)"


def daemonise(name: str, *, clear: bool = False) -> None:
    """Start a program in a session of its own that is nobody's child; `clear`: and has no
    environment. Its command line ends with `name`."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    argv = [sys.executable, "-c", SLEEP, name]
    os.execve(sys.executable, argv, {} if clear else dict(os.environ))  # noqa: S606


class Runner(BaseRunner):
    """Starts daemons."""

    def setup(self) -> None:
        """One for the set-up."""
        daemonise(f"{os.environ['DAEMON_NAME']}-setup")

    def run(self, clear: bool = Input(description="No environment", default=False)) -> str:
        """One for each run."""
        name = f"{os.environ['DAEMON_NAME']}-run"
        daemonise(name, clear=clear)
        return name
