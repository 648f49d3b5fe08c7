"""A card of ordinary memory, and a model that uses memory in all the ways that packages do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import nn

from router.models.worker_hook.callme_sleep.device import Processor
from router.models.worker_hook.callme_sleep.sleeper import Sleeper

# Several threads that wait for each other are slow where other tests run beside these.
torch.set_num_threads(1)


class Ended(BaseException):
    """In place of the process's end."""


def end(reason: str) -> NoReturn:
    """End the test's process, so to speak."""
    raise Ended(reason)


class Card(Processor):
    """Enforces the order that CUDA needs: a copy is done when it is waited for and not before, and
    host memory is pinned before a copy and unpinned once, after all."""

    def __init__(self) -> None:
        super().__init__(torch)
        self.pinned: dict[int, int] = {}
        self.begun: list[tuple[Any, Any]] = []
        self.copied_bytes = 0
        self.unfit = ""
        self.released = 0

    def why_unfit(self) -> str:
        """What the test says."""
        return self.unfit

    def pin(self, address: int, size: int) -> None:
        """Not twice."""
        assert address not in self.pinned
        self.pinned[address] = size

    def unpin(self, address: int) -> None:
        """What is pinned."""
        assert not self.begun, "unpinned while it is copied"
        del self.pinned[address]

    def copy(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Note it, for `synchronize`."""
        for to, source in pairs:
            assert to.numel() == source.numel()
            assert self.is_pinned(to) != self.is_pinned(source), "one side is pinned host memory"
            self.begun.append((to, source))
            self.copied_bytes += to.numel()

    def is_pinned(self, part: Any) -> bool:
        """Whether all of it is."""
        start, end_ = part.data_ptr(), part.data_ptr() + part.numel()
        return any(a <= start and end_ <= a + size for a, size in self.pinned.items())

    def synchronize(self) -> None:
        """Now they are done."""
        for to, source in self.begun:
            to.copy_(source)
        self.begun.clear()

    def release(self) -> None:
        """Nothing may be on its way."""
        assert not self.begun, "freed while it is copied"
        self.released += 1
        super().release()


def sleeper(card: Card | None = None, work: list[str] | None = None) -> Sleeper:
    """A sleeper in this process; `work` is what it is busy with."""
    return Sleeper(card or Card(), end=end, busy=lambda: list(work or ()))


class Lora(nn.Module):
    """As peft's."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(size, 4))
        self.up = nn.Parameter(torch.randn(4, size))

    def merge(self, into: nn.Linear) -> None:
        """Through `.data`, which no version counter sees."""
        into.weight.data += self.up.T @ self.down.T


class Net(nn.Module):
    """Tied weights, buffers, small and large storages."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(500, 256)
        self.hidden = nn.Linear(256, 256)
        self.norm = nn.BatchNorm1d(256)
        self.out = nn.Linear(256, 500, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(256) * 1.5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Shape (batch, length) to (batch, length, 500)."""
        x = torch.relu(self.hidden(self.embed(tokens) * self.scale))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        y: torch.Tensor = self.out(x)
        return y


class Package:
    """A model with state outside its modules."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Net().eval()
        self.tokens = torch.randint(0, 500, (2, 8))
        self.view = self.net.hidden.weight[:7]
        with torch.inference_mode():  # such a tensor has no version counter
            self.known = {"prompt": self.net.embed(self.tokens).clone()}
        kept = torch.randn(300, 300)
        self.closure = kept.sum
        self.loras: list[nn.Module] = []

    def predict(self) -> bytes:
        """All that it knows, to the last bit."""
        with torch.inference_mode():
            y = self.net(self.tokens)
            parts = [y, self.view.sum(), self.known["prompt"] * 2, self.closure()]
            parts += [p * 1 for lora in self.loras for p in lora.parameters()]
        return b"".join(p.contiguous().numpy().tobytes() for p in parts)
