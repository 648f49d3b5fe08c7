"""A torch model that knows nothing of sleep: what the tests of sleep are run with."""

import asyncio
import hashlib
import importlib
import os
import threading
import time
from typing import Any

import torch
from cog import BaseRunner, Input
from torch import nn

# Of weights that are only there to be large.
WEIGHTS_MIB = int(os.environ.get("DREAMER_MIB", "4"))


class Net(nn.Module):
    """Tied weights and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1000, 128)
        self.hidden = nn.Linear(128, 128)
        self.norm = nn.BatchNorm1d(128)
        self.out = nn.Linear(128, 1000, bias=False)
        self.out.weight = self.embed.weight
        self.large = nn.Parameter(torch.ones(WEIGHTS_MIB << 18))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Shape (length,) to (length, 1000)."""
        y: torch.Tensor = self.out(self.norm(self.hidden(self.embed(tokens)))) + self.large[-1]
        return y


class Runner(BaseRunner):
    """Answers with a hash of all that it computes."""

    def setup(self) -> None:
        """Load the same model in every process."""
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.net = Net().eval()
        self.view = self.net.hidden.weight[3:5]
        with torch.inference_mode():
            self.known = {"prompt": self.net.embed.weight[:2].clone()}

    def healthcheck(self) -> bool:
        """Use the weights, as a careful model does."""
        return bool(self.net.large[0] == 1)

    def run(
        self,
        do: str = Input(
            description="What changes first",
            default="",
            choices=["", "merge", "learn", "linger", "hang"],
        ),
        delay_s: float = Input(description="Wait so long first", default=0, ge=0),
    ) -> str:
        """Change what is asked for, and say what the model is now."""
        time.sleep(delay_s)
        return self.work(do)

    def work(self, do: str) -> str:
        """What `run` does, after its delay."""
        with torch.inference_mode():
            if do == "merge":  # as peft merges a LoRA
                self.net.hidden.weight.data += 0.01
            elif do == "learn":
                self.net.train()
                self.net.norm(torch.ones(4, 128))
                self.net.eval()
            elif do == "linger":
                threading.Thread(target=self.linger).start()
            elif do == "hang":
                hang()
            parts = [self.net(torch.arange(8)), self.view.sum(), self.known["prompt"].sum()]
        return hashlib.sha256(b"".join(p.numpy().tobytes() for p in parts)).hexdigest()

    def linger(self) -> None:
        """Go on with the weights for a second after the answer."""
        until, large = time.monotonic() + 1, self.net.large
        while time.monotonic() < until:
            large.sum()


def hang() -> None:
    """Have the worker's next sleep never end: what CUDA may do."""
    sleeper: Any = importlib.import_module("callme_sleep.sleeper")
    sleeper.Sleeper.sleep = lambda self, limit_bytes: threading.Event().wait()


class AsyncRunner(Runner):
    """The same, with a coroutine."""

    async def run(
        self,
        do: str = Input(description="What changes first", default=""),
        delay_s: float = Input(description="Wait so long first", default=0, ge=0),
    ) -> str:
        """As `Runner.run`."""
        await asyncio.sleep(delay_s)
        return self.work(do)
