"""The storages of a process: where they are, what is in them, and whether it has changed.

A storage is what torch's tensors point into: a parameter and all views of it share one. The tensors
stay as they are; only the bytes of a storage go and come back. So tied weights, views and compiled
functions need no attention.
"""

import gc
from collections.abc import Iterable
from itertools import compress
from typing import Any

from .arena import Block
from .device import Device

# Smaller ones are copied together in one block at each sleep. That takes less time than to look
# which of them have changed.
SMALL_BYTES = 256 << 10
ROW_WORDS = 1024
WORD_BYTES = 8

Fingerprint = tuple[int, int, int]


class Slot:
    """One storage: a weak reference to it, and its copy in host memory, if there is one.

    `fingerprint`: of the bytes in `copy`; None when these must not be used.
    """

    __slots__ = ("copy", "fingerprint", "ref", "size")

    def __init__(self, ref: Any, size: int) -> None:
        self.ref = ref
        self.size = size
        self.copy: Block | None = None
        self.fingerprint: Fingerprint | None = None


def storage_of(torch: Any, slot: Slot) -> Any:
    """Return the storage, None when nothing refers to it any more."""
    return torch.UntypedStorage._new_with_weak_ptr(slot.ref.cdata)


def find(device: Device) -> tuple[dict[int, Any], dict[int, int]]:
    """Return all storages on the device that Python can see, and the sizes of those it must keep.

    The first by the address of torch's own object, the second by the address of their bytes. Every
    live tensor is tracked by Python's collector, wherever it is: in a module, a dict, a closure.
    The parameters of a ScriptModule are asked for, because their tensors may not exist yet.
    Storages that torch did not allocate (NumPy's, DLPack's, a mapped file's) cannot be freed and
    are kept.
    """
    torch = device.torch
    of_tensor = _with_subclasses(torch.Tensor)
    of_script = _with_subclasses(torch.jit.ScriptModule)
    objects = gc.get_objects()
    types = list(map(type, objects))
    tensors = list(compress(objects, map(of_tensor.__contains__, types)))
    for module in list(compress(objects, map(of_script.__contains__, types))):
        tensors += [*module.parameters(), *module.buffers()]
    del objects
    found: dict[int, Any] = {}
    kept: dict[int, int] = {}
    for tensor in tensors:
        try:
            storage = tensor.untyped_storage()
            # A FakeTensor has a device, its storage is on `meta`. A wrapper of quantised parts has
            # a size but no address; the parts are tensors of their own.
            if storage.device.type != device.kind or not storage.nbytes() or not storage.data_ptr():
                continue
        except Exception:  # noqa: S112 - a tensor without a storage, or a package's own kind of one
            continue
        if storage.resizable():
            found[storage._cdata] = storage
        else:
            kept[storage.data_ptr()] = storage.nbytes()
    return found, kept


def _with_subclasses(cls: type) -> set[type]:
    found: set[type] = set()
    left = [cls]
    while left:
        c = left.pop()
        if c not in found:
            found.add(c)
            left += type.__subclasses__(c)
    return found


def bytes_of(torch: Any, storage: Any) -> Any:
    """Return the storage as a flat tensor of bytes, without a copy."""
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return flat.set_(storage, 0, (storage.nbytes(),), (1,))


def fingerprints(torch: Any, storages: Iterable[Any]) -> list[Fingerprint]:
    """Return a fingerprint of each storage, made where the storage is.

    torch's version counters do not see writes through `.data` (as peft's merge of a LoRA), NumPy or
    `set_`, nor batch norm's; and a tensor made in inference mode has none. The bytes are read as
    rows of words. Row and column sums have weights, so words that change places are seen as well.
    """
    groups: dict[tuple[Any, int], list[tuple[int, Any]]] = {}
    count = 0
    for storage in storages:
        groups.setdefault((storage.device, storage.nbytes()), []).append((count, storage))
        count += 1
    # A call takes longer than the work of a small storage. So those of one size share most calls.
    begun = [
        (
            [number for number, _ in group],
            _sums(torch, [bytes_of(torch, storage) for _, storage in group]),
        )
        for group in groups.values()
    ]
    prints: list[Fingerprint] = [(0, 0, 0)] * count
    for numbers, sums in begun:
        for number, made in zip(numbers, sums.cpu().tolist(), strict=True):
            prints[number] = tuple(made)
    return prints


def fingerprint(torch: Any, flat: Any) -> Fingerprint:
    """Return the fingerprint of a flat tensor of bytes."""
    rows, columns, rest = _sums(torch, [flat])[0].tolist()
    return rows, columns, rest


def _sums(torch: Any, flat: list[Any]) -> Any:
    """Return the fingerprints of flat tensors of one size on one device, a row each."""
    device, size = flat[0].device, flat[0].numel()
    whole = size // (WORD_BYTES * ROW_WORDS) * WORD_BYTES * ROW_WORDS
    words = [part[:whole].view(torch.int64).view(-1, ROW_WORDS) for part in flat]
    row_weights = torch.arange(1, len(words[0]) + 1, device=device) * 2 + 1
    column_weights = torch.arange(ROW_WORDS, device=device) * 2 + 1
    rest_weights = torch.arange(1, size - whole + 1, device=device)
    rows = torch.stack([_hashes(torch, part) for part in words]) * row_weights
    columns = torch.stack([part.sum(0) for part in words]) * column_weights
    rest = torch.stack([part[whole:] for part in flat]).to(torch.int64) * rest_weights
    return torch.stack((rows.sum(1), columns.sum(1), rest.sum(1)), 1)


def _hashes(torch: Any, words: Any) -> Any:
    """Return the exclusive or of each row, or its sum where torch cannot do that."""
    try:
        return torch.hash_tensor(words, dim=1).view(torch.int64)
    except (AttributeError, RuntimeError, NotImplementedError):
        return words.sum(1)
