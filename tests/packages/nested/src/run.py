"""A runner in a sub-folder. Imports are relative to the folder of cog.yaml, files to its own."""

import pickle
from collections.abc import Iterator
from pathlib import Path

from cog import BaseRunner, streaming
from src.greetings import GREETINGS
from words import concat

WORLD = Path(__file__).with_name("world.txt").read_text().strip()


class Runner(BaseRunner):
    """Greets."""

    @streaming
    def run(self, greeting: str = "hello") -> Iterator[str]:
        """Yield a greeting, and the module's own name."""
        assert greeting in GREETINGS
        yield concat(greeting, WORLD)
        # multiprocessing pickles by the module's name: it must be there under it.
        yield pickle.loads(pickle.dumps(type(self))).__module__  # noqa: S301
