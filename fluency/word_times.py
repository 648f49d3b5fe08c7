"""The time of each word, from the decoder's cross-attention.

Source: openai/whisper, `whisper/timing.py`: the cross-attention of a few
alignment heads, normalised over the tokens, median-filtered over time, and a
dynamic time warping through their mean. The heads' weights are computed here
from the query and key projections, because fused attention kernels do not
return them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from torch import Tensor
from whisper import Pair, Whisper

FRAME_S: Final = 0.02  # one encoder state
_MEDIAN_FRAMES: Final = 7  # openai/whisper: medfilt_width


def attention(
    model: Whisper,
    cross: Sequence[Pair],
    tokens: list[list[int]],
    frames: list[int],
    end: int,
) -> list[NDArray[np.float32]]:
    """Mean weight of the alignment heads, of each window of a batch.

    cross: of the decoder; tokens: each window's prompt, text and end of text; frames: how
    many of each window's encoder states hold sound; end: the token that pads shorter rows, which
    no earlier token attends to. Returns a (len(tokens[i]), frames[i]) for each.
    """
    heads = alignment_heads(model)
    longest = max(len(row) for row in tokens)
    rows = torch.tensor([row + [end] * (longest - len(row)) for row in tokens])
    with _queries(model, {layer for layer, _ in heads}) as seen:
        model.decoder(rows.to(model.device), cross)
    made = []
    for window, (row, count) in enumerate(zip(tokens, frames, strict=True)):
        weights = []
        for layer, head in heads:
            keys, _ = cross[layer]
            size = keys.shape[-1]
            part = slice(head * size, (head + 1) * size)
            query = seen[layer][window, : len(row), part].float() * size**-0.5
            weights.append((query @ keys[window, head, :count].float().T).softmax(-1))
        made.append(_normalised(torch.stack(weights)))
    return made


def _normalised(weights: Tensor) -> NDArray[np.float32]:
    """(heads, tokens, frames) to their mean, each head normalised and smoothed."""
    spread, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    even = ((weights - mean) / spread.clamp(min=1e-6)).cpu().numpy()
    smooth = median_filter(even, (1, 1, _MEDIAN_FRAMES), mode="reflect")
    return np.asarray(smooth.mean(axis=0), np.float32)


def alignment_heads(model: Whisper) -> list[tuple[int, int]]:
    """(layer, head) pairs: the model's own, else all of the later half, as openai/whisper."""
    if own := getattr(model.generation_config, "alignment_heads", None):
        return [(layer, head) for layer, head in own]
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


@contextmanager
def _queries(model: Whisper, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """The outputs of the cross-attention's query projections, by layer."""
    seen: dict[int, Tensor] = {}
    hooks = []
    for layer in layers:
        module = model.decoder.layers[layer].encoder_attn.q_proj

        def keep(_: Any, __: Any, output: Tensor, layer: int = layer) -> None:
            seen[layer] = output

        hooks.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def token_times(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Start of each token in s. weights: (tokens, frames) of attention."""
    path_tokens, path_frames = warp(-weights.astype(np.float64))
    first = np.searchsorted(path_tokens, np.arange(weights.shape[0]))
    return np.asarray(path_frames[first] * FRAME_S)


def warp(cost: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The cheapest monotonic path through a (rows, columns) matrix, corner to corner.

    Steps go one row down, one column on, or both. Computed one antidiagonal at
    a time: the cells of one depend only on the two before it.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((rows + 1, columns + 1), np.int8)
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        choices = np.stack(
            (total[row - 1, column - 1], total[row - 1, column], total[row, column - 1])
        )
        best = choices.argmin(axis=0)
        step[row, column] = best
        total[row, column] = choices[best, np.arange(len(row))] + cost[row - 1, column - 1]
    path = []
    row_at, column_at = rows, columns
    while row_at > 0 and column_at > 0:
        path.append((row_at - 1, column_at - 1))
        move = step[row_at, column_at]
        row_at -= move != 2
        column_at -= move != 1
    back = np.array(path[::-1], np.intp)
    return back[:, 0], back[:, 1]
