"""Whisper's large matrices in int8, for a processor: a part of their memory, and half the time.

Every row of a matrix has a scale, and so has every token that comes in, when it comes (dynamic
quantisation). torch's own `quantize_dynamic` has one scale for a matrix and one for all tokens of a
call. Whisper's first tokens are much larger than the others, which lose their digits then: of six
hesitations that people had marked only three were still found.
"""

import gc
import warnings

import heap
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from whisper import Whisper

# Of the engines that torch may have, those that were tried: x86's.
ENGINES = frozenset({"x86", "fbgemm", "onednn"})
_ROWS = 1024


def is_possible() -> bool:
    """Whether this processor multiplies int8 exactly: without VNNI sums of products overflow."""
    can = torch.cpu.get_capabilities()
    has_vnni = can.get("avx_vnni") or can.get("avx512_vnni")
    return torch.backends.quantized.engine in ENGINES and bool(has_vnni)


class Linear(nn.Module):
    """A linear layer whose weights are int8."""

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        values, scales = _quantise(source.weight)
        zeros = torch.zeros(len(scales), dtype=torch.long)
        with warnings.catch_warnings():  # torch announces that it will remove it
            warnings.simplefilter("ignore", UserWarning)
            weight = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(weight, None)
        self.bias = None if source.bias is None else source.bias.detach().float()

    def forward(self, inputs: Tensor) -> Tensor:
        """(…, in) float32 to (…, out) float32."""
        # torch makes one scale for all tokens: they get the same size before, and theirs after.
        sizes = torch.linalg.vector_norm(inputs, torch.inf, -1, keepdim=True).clamp_min(1e-12)
        made: Tensor = torch.ops.quantized.linear_dynamic(
            inputs / sizes, self.packed, reduce_range=False
        )
        made = made.mul_(sizes)
        return made if self.bias is None else made.add_(self.bias)


class Embedding(nn.Module):
    """A table of vectors in int8."""

    values: Tensor
    scales: Tensor

    def __init__(self, source: nn.Embedding) -> None:
        super().__init__()
        values, scales = _quantise(source.weight)
        self.register_buffer("values", values)
        self.register_buffer("scales", scales[:, None])

    def forward(self, indices: Tensor) -> Tensor:
        """(…) to (…, width) float32."""
        return F.embedding(indices, self.values) * F.embedding(indices, self.scales)


def _quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, columns) to int8 of that shape and (rows,) scales: a row's largest value is 127."""
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight))
    for first in range(0, len(weight), _ROWS):  # in float32 the table of tokens has 106 MB
        rows = weight[first : first + _ROWS].detach().float()
        of_rows = (rows.abs().amax(1) / 127).clamp_min(1e-12)
        values[first : first + _ROWS] = (rows / of_rows[:, None]).round()
        scales[first : first + _ROWS] = of_rows
    return values, scales


@torch.no_grad()
def convert(model: Whisper) -> None:
    """Change a Whisper on a processor, loaded in half precision.

    What is not a linear layer or the table of tokens becomes float32.
    """
    model.proj_out = Linear(model.proj_out)
    heap.trim()
    model.decoder.embed_tokens = Embedding(model.decoder.embed_tokens)
    _convert_linear(model.encoder)
    _convert_linear(model.decoder)
    model.float()
    gc.collect()  # the layers as they were refer to each other
    heap.trim()


def _convert_linear(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Linear(child))
        else:
            _convert_linear(child)
    heap.trim()  # else the largest set of all is that of loading
