"""Counts the bytes of tensors that are alive, real or fake, as an allocator would."""

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is entered, every new storage is counted until it is released.

    live, peak: bytes now and at most. A view shares its storage and counts nothing.
    """

    def __init__(self, known: Iterable[torch.nn.Module] = ()) -> None:
        """known: modules whose weights are not counted."""
        super().__init__()
        self.live = self.peak = 0
        tensors = (t for module in known for t in (*module.parameters(), *module.buffers()))
        self._known = {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(
        self, call: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = call(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or tensor.device.type == "meta":
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._released, key, size)

    def _released(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def after_collection(self) -> int:
        """Bytes that are alive once cycles of garbage are gone too."""
        gc.collect()
        return self.live
