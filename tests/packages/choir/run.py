"""A model that runs several predictions at once, each of which prints much between its waits."""

import asyncio
import sys

from cog import BaseRunner, Input, concurrent


class Runner(BaseRunner):
    """Prints numbered lines that have the singer's name."""

    @concurrent(max=4)
    async def run(
        self,
        name: str = Input(description="Who prints"),
        lines: int = Input(description="Lines to print", default=0, ge=0),
        at_once: int = Input(description="Lines between two waits", default=100, ge=1),
    ) -> int:
        """Print each line in two parts with a wait between them every `at_once` lines; how many
        there were."""
        for n in range(lines):
            out = sys.stderr if n % 2 else sys.stdout
            print(f"{name} {n}", end=" ", file=out)
            if n % at_once == 0:
                await asyncio.sleep(0)
            print(f"{name}'s end of {n}", file=out)
        return lines
