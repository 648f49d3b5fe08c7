"""How many rows go through the model at once: by what a row needs and what memory is free.

A row is one picture with one chunk of labels. In the Grounding DINO family its need grows with the
picture's positions times the tokens: the attention between picture and text keeps that many weights
for each head, several times.
"""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

STRIDES = (8, 16, 32, 64)
"""Of the family's four feature levels, in px."""

BYTES_PER_POSITION = 64_000
BYTES_PER_POSITION_AND_TOKEN = 40
"""Upper bound of a row's need in float32, from counting the live bytes of a pass at the published
width; tests/grounding/test_rows.py counts again."""

SHARE_OF_FREE = 0.8
"""The rest is for what the allocator loses between blocks."""

Pair = TypeVar("Pair")
Answer = TypeVar("Answer")
Need = tuple[int, int]
"""Positions and tokens of a row; another engine's are its own matter."""


def positions_of(width: int, height: int) -> int:
    """Places in the picture that the encoder attends from.

    >>> positions_of(1333, 800)
    22223
    """
    return sum(-(-width // stride) * -(-height // stride) for stride in STRIDES)


def bytes_of_row(need: Need) -> float:
    """What a row of the family takes, at most."""
    positions, tokens = need
    return positions * (BYTES_PER_POSITION + BYTES_PER_POSITION_AND_TOKEN * tokens)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator failed; torch's on the CPU raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error)


def free_bytes(device: torch.device) -> int | None:
    """What may be allocated on a device; None where that cannot be known.

    torch may be told to take a part of a GPU only (`set_per_process_memory_fraction`).
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        # This function refuses "cuda" without a number, the others take it.
        share = torch.cuda.get_per_process_memory_fraction(device.index)
        allowed = int(total * share) - reserved
        return min(free, allowed) + reserved - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kib[0]) * 1024 if kib else None


class RowLimit:
    """Splits rows into passes that fit; it learns from every pass."""

    def __init__(
        self,
        device: torch.device,
        most: int,
        *,
        powers_of_two: bool = False,
        estimate: Callable[[Need], float] = bytes_of_row,
    ) -> None:
        """most: rows in a pass however much memory there is. powers_of_two: the model fills a pass
        up to such a number (compiled code). estimate: bytes of a row before one was measured."""
        self._device = device
        self._most = most
        self._powers_of_two = powers_of_two
        self._estimate = estimate
        self._measured: dict[Need, float] = {}
        self._failed: dict[Need, int] = {}

    def rows(self, need: Need) -> int:
        """Rows of this need in the next pass, at least 1."""
        free = free_bytes(self._device)
        fit = self._most
        if free is not None:
            fit = int(free * SHARE_OF_FREE / self._measured.get(need, self._estimate(need)))
        fit = max(1, min(fit, self._most, self._failed.get(need, self._most)))
        return 1 << (fit.bit_length() - 1) if self._powers_of_two else fit

    def run(
        self, work: Callable[[Sequence[Pair]], Sequence[Answer]], pairs: Sequence[Pair], need: Need
    ) -> list[Answer]:
        """The answers of `work` to all pairs, called with as many at once as fit.

        After an out-of-memory the rows are halved. Raises what work raises, an out-of-memory only
        for a single row.
        """
        answers: list[Answer] = []
        while len(answers) < len(pairs):
            group = pairs[len(answers) :][: self.rows(need)]
            found = self._attempt(work, group, need)
            if found is None:
                self._failed[need] = max(1, len(group) // 2)
            else:
                answers += found
        return answers

    def _attempt(
        self, work: Callable[[Sequence[Pair]], Sequence[Answer]], group: Sequence[Pair], need: Need
    ) -> Sequence[Answer] | None:
        """The answers, or None when memory ran out and there is more than one row."""
        try:
            return self._watched(work, group, need)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if len(group) == 1 or not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback would keep the failed pass's tensors alive.
        release(self._device)
        return None

    def _watched(
        self, work: Callable[[Sequence[Pair]], Sequence[Answer]], group: Sequence[Pair], need: Need
    ) -> Sequence[Answer]:
        """Call work; on a GPU note what a row took."""
        if self._device.type != "cuda":
            return work(group)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        found = work(group)
        taken = (torch.cuda.max_memory_allocated(self._device) - before) / len(group)
        self._measured[need] = max(taken, self._measured.get(need, 1.0))
        return found


def release(device: torch.device) -> None:
    """Give back memory that nothing refers to."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
