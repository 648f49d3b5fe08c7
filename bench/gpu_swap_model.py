"""The model of `bench/gpu_swap.py`: a chain of matrix products over random weights of any size.

It knows nothing of sleep. It has what packages have: large matrices and small vectors, tied
weights, a view, and a tensor outside of every module. This file is also copied into the packages
that the benchmark writes, so it imports torch only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

ROWS = 16  # of the input


class Layer(nn.Module):
    """x + relu(norm(x) W + b), as small as a layer can be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (rows, width) to the same."""
        return x + torch.relu(self.linear(self.norm(x)))


class Net(nn.Module):
    """`layers` layers in bf16, with empty weights. The embedding is also the last matrix."""

    def __init__(self, layers: int, width: int, device: str) -> None:
        super().__init__()
        with torch.device(device):
            self.embed = nn.Embedding(1024, width, dtype=torch.bfloat16)
            self.layers = nn.ModuleList(Layer(width).to(torch.bfloat16) for _ in range(layers))
            self.out = nn.Linear(width, 1024, bias=False, dtype=torch.bfloat16)
        self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Shape (rows,) to (rows, 1024)."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        y: torch.Tensor = self.out(nn.functional.rms_norm(x, x.shape[-1:]))
        return y

    @property
    def size_bytes(self) -> int:
        """All weights, tied ones once."""
        return sum(p.numel() * p.element_size() for p in self.parameters())


class Model:
    """A net with what packages keep beside it."""

    def __init__(self, net: Net) -> None:
        self.net = net.eval()
        self.device = net.embed.weight.device
        self.view = net.embed.weight[:2]
        with torch.inference_mode():  # such a tensor has no version counter
            self.known = {"prompt": net.embed.weight[3:5].clone()}

    def answer(self, seed: int) -> str:
        """Return a hash of what the net computes."""
        with torch.inference_mode():
            tokens = torch.arange(ROWS, device=self.device) * (seed * 7 + 1) % 1024
            parts = [self.net(tokens), self.view, self.known["prompt"]]
            raw = [p.float().cpu().numpy().tobytes() for p in parts]
        return hashlib.sha256(b"".join(raw)).hexdigest()[:16]

    def all_bytes(self) -> str:
        """Return a hash of exact sums over all weights, without and with the words' places."""
        sums = []
        with torch.inference_mode():
            for p in [*self.net.parameters(), self.view, self.known["prompt"]]:
                words = p.contiguous().view(torch.int16).flatten()
                places = torch.arange(len(words), device=p.device).to(torch.int16)
                sums += [words.sum(), (words * places).sum(dtype=torch.int64)]
            return hashlib.sha256(torch.stack(sums).cpu().numpy().tobytes()).hexdigest()[:16]


def bytes_of_layer(width: int) -> int:
    """The weights of one layer."""
    return 2 * (width * width + 2 * width)


def randomize(module: nn.Module, seed: int) -> None:
    """Fill a module with small random weights, where it is."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0, p.shape[-1] ** -0.5)


def load(shards: list[Path], layers_each: int, width: int, device: str) -> Model:
    """Return a model with the weights of these safetensors files."""
    from safetensors.torch import load_file  # noqa: PLC0415 - only a package loads files

    net = Net(layers_each * len(shards), width, device)
    torch.nn.init.normal_(net.embed.weight, generator=_generator(device))
    for number, path in enumerate(shards):
        part = nn.ModuleList(net.layers[number * layers_each : (number + 1) * layers_each])
        weights: dict[str, Any] = load_file(path, device=device)
        part.load_state_dict(weights)
    return Model(net)


def _generator(device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(0)
