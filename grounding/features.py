"""Supplies the model with backbone outputs that were computed earlier."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import torch
from torch import nn

Levels = tuple[list[tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor]]
"""What the vision backbone returns: (feature map, mask) and position embedding of each level."""


class Supplied(nn.Module):
    """Replaces a backbone in the model and returns `value` once, if it is set.

    Without a value it runs the backbone.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.value: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.value is None:
            return self.module(*args, **kwargs)
        value, self.value = self.value, None
        return value

    def __getattr__(self, name: str) -> Any:
        # The model reads attributes of the backbone (position_embedding).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class LRUCache:
    """Results of an expensive function by key; the least recently used one is dropped."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._known: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The result kept for this key, else compute()'s."""
        if key not in self._known:
            self._known[key] = compute()
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def clear(self) -> None:
        """Drop everything."""
        self._known.clear()


def rows_of(levels: Levels, rows: Sequence[int]) -> Levels:
    """The vision features of the pictures `rows`, in this order; a row may occur twice.

    The lists are new, since the model appends to what its backbone returns.
    """
    maps, positions = levels
    if list(rows) == list(range(len(positions[0]))):
        return list(maps), list(positions)
    index = torch.tensor(list(rows), device=positions[0].device)
    return (
        [(features.index_select(0, index), mask.index_select(0, index)) for features, mask in maps],
        [position.index_select(0, index) for position in positions],
    )


def padded(texts: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """(L, D) features of several prompts as (N, length, D), padded with zeros that are masked."""
    out = texts[0].new_zeros(len(texts), length, texts[0].shape[-1])
    for row, text in enumerate(texts):
        out[row, : len(text)] = text
    return out


def blocks(ids: Sequence[int], delimiters: Collection[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens of a prompt see each other, and the position of each within its label.

    A label's tokens and the period after it see each other only; [CLS] and [SEP] see themselves.
    Upstream does the same in a function whose arguments, and the position of the period, change
    between transformers 5.17 and 5.23; this is the original's and 5.23's.

    Returns: (L, L) bool, (L,) int64.
    """
    sees = torch.eye(len(ids), dtype=torch.bool)
    positions = torch.zeros(len(ids), dtype=torch.long)
    previous = 0
    for place, token in enumerate(ids):
        if token not in delimiters:
            continue
        if 0 < place < len(ids) - 1:
            label = slice(previous + 1, place + 1)
            sees[label, label] = True
            positions[label] = torch.arange(place - previous)
        previous = place
    return sees, positions
