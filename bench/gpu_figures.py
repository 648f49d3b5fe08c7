"""The figures of bench/gpu.py's parts, and what they are measured with."""

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

GIB = 2**30
IS_CUDA = torch.cuda.is_available()
DEVICE = "cuda" if IS_CUDA else "cpu"
if not IS_CUDA:
    torch.set_num_threads(1)  # a rehearsal: on a busy machine more threads only wait

REPORTED_SHARE = 0.98
"""Of the memory that a card is sold with, what its driver reports."""

CONTEXT_GIB = 0.5
"""What CUDA's context takes, which the cap of an allocator does not count."""


class Figures:
    """Reports rows; a figure that fails or comes too late is a row too."""

    def __init__(self, report: Callable[..., None], limit_s: float) -> None:
        """report: of gpu_rows.reporter. limit_s: no figure begins later than this."""
        self.errors = 0
        self._report = report
        self._limit_s = limit_s
        self._begun = time.perf_counter()

    def spent_s(self) -> float:
        """Seconds since the part's begin."""
        return time.perf_counter() - self._begun

    def row(self, **fields: Any) -> None:
        """Print and keep one row."""
        self._report(**fields, at_s=round(self.spent_s(), 1))

    def measure(
        self, measure: str, work: Callable[[], dict[str, Any] | None], **fields: Any
    ) -> bool:
        """One row of what `work` returns (none for None), or of why there is no figure.

        Returns whether there is one. Afterwards nothing of a failed attempt is alive.
        """
        fields = {"measure": measure, **fields}
        if self.spent_s() > self._limit_s:
            self.row(**fields, skipped="no time left")
            return False
        try:
            found = work()
        except Exception as error:
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)
            self.errors += 1
            reason = f"{type(error).__name__}: {error}"[:300]
        else:
            if found is not None:
                self.row(**fields, **found)
            return True
        release()
        self.row(**fields, error=reason)
        return False


def total_gib() -> float:
    """The GPU's memory, 0 without one."""
    return float(torch.cuda.get_device_properties(0).total_memory / GIB) if IS_CUDA else 0.0


def synchronise() -> None:
    """Wait for the GPU."""
    if IS_CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, the GPU's part included."""
    synchronise()
    begun = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - begun


def start_peak() -> None:
    """Count `peaks` from here."""
    if IS_CUDA:
        torch.cuda.reset_peak_memory_stats()


def peaks() -> dict[str, float | None]:
    """The most that was allocated on the GPU and reserved for it, None without one."""
    if not IS_CUDA:
        return {"peak_gib": None, "reserved_gib": None}
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def release() -> None:
    """Give back memory that nothing refers to."""
    gc.collect()
    if IS_CUDA:
        torch.cuda.empty_cache()


@contextmanager
def card_of(gib: float) -> Iterator[float]:
    """As on a card that is sold with `gib`; its memory as the driver would report it.

    The allocator fails where that card's would; CUDA's context counts too.
    """
    reported = gib * REPORTED_SHARE
    if IS_CUDA:
        release()
        share = (reported - CONTEXT_GIB) / total_gib()
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    try:
        yield reported if IS_CUDA else 0.0
    finally:
        if IS_CUDA:
            torch.cuda.set_per_process_memory_fraction(1.0)


def build(make: Callable[[], Any], dtype: torch.dtype, device: str = DEVICE) -> Any:
    """`make()` with random weights in `dtype`, straight on `device`."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return make()
    finally:
        torch.set_default_dtype(before)


def say(text: str) -> None:
    """A line for the log, beside the rows."""
    print(text, file=sys.stderr, flush=True)
