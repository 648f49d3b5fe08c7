"""Host memory for the copies of storages: a few large pieces, each pinned once.

torch's own pinned memory is not used, because it rounds each block up to a power of two: 20.4 GiB
took 32 (sglang#37285). The place of a storage that is gone is used again.
"""

from dataclasses import dataclass, field
from typing import Any

from . import Refused
from .device import Device

ALIGN_BYTES = 4096


@dataclass
class Piece:
    """One mapping. `free`: its free parts as (start, size), in order, none beside another."""

    whole: Any  # a flat tensor of bytes; the mapping lives as long as it does
    size: int
    free: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a piece. `bytes`: a flat tensor of as many bytes as were asked for."""

    piece: Piece
    start: int
    size: int
    bytes: Any


def rounded(size: int) -> int:
    """Return the size of the block that holds `size` bytes."""
    return -(-size // ALIGN_BYTES) * ALIGN_BYTES


class Arena:
    """All copies of one process."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._pieces: list[Piece] = []

    @property
    def size_bytes(self) -> int:
        """Host memory that is mapped, used or not."""
        return sum(piece.size for piece in self._pieces)

    def holds(self, address: int) -> bool:
        """Whether a piece begins at this address."""
        return any(piece.whole.data_ptr() == address for piece in self._pieces)

    def take(self, sizes: list[int], limit_bytes: int | None = None) -> list[Block]:
        """Return a block for each size; what does not fit in free parts is in one new piece.

        Raises Refused when the arena would be larger than `limit_bytes`. Then no block is taken.
        """
        found: dict[int, Block] = {}
        missing = []
        for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            block = self._fit(sizes[i])
            if block is None:
                missing.append(i)
            else:
                found[i] = block
        try:
            if missing:
                self._grow(sum(rounded(sizes[i]) for i in missing), limit_bytes)
        except BaseException:
            for block in found.values():
                self.give(block)
            raise
        for i in missing:
            found[i] = self._cut(self._pieces[-1], 0, sizes[i])
        return [found[i] for i in range(len(sizes))]

    def give(self, block: Block) -> None:
        """Take a block back. A piece without any used block is unmapped."""
        piece = block.piece
        merged: list[tuple[int, int]] = []
        for start, size in sorted([*piece.free, (block.start, block.size)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + size)
            else:
                merged.append((start, size))
        piece.free = merged
        if merged == [(0, piece.size)]:
            self._pieces = [p for p in self._pieces if p is not piece]
            self._device.unpin(piece.whole.data_ptr())

    def _fit(self, size: int) -> Block | None:
        """Return the smallest free part that is large enough, cut to size."""
        need = rounded(size)
        fits = [
            (free_size, number, at)
            for number, piece in enumerate(self._pieces)
            for at, (_, free_size) in enumerate(piece.free)
            if free_size >= need
        ]
        if not fits:
            return None
        _, number, at = min(fits)
        return self._cut(self._pieces[number], at, size)

    def _cut(self, piece: Piece, at: int, size: int) -> Block:
        start, free_size = piece.free.pop(at)
        need = rounded(size)
        if free_size > need:
            piece.free.insert(at, (start + need, free_size - need))
        return Block(piece, start, need, piece.whole[start : start + size])

    def _grow(self, size: int, limit_bytes: int | None) -> None:
        held = self.size_bytes
        if limit_bytes is not None and held + size > limit_bytes:
            asked, allowed = (held + size) >> 20, limit_bytes >> 20
            why = f"the copies take {asked} MiB of main memory and may take {allowed} MiB"
            raise Refused("no room", why)
        torch = self._device.torch
        whole = torch.frombuffer(self._device.map(size), dtype=torch.uint8)
        self._device.touch(whole)
        self._device.pin(whole.data_ptr(), size)
        self._pieces.append(Piece(whole, size, [(0, size)]))
