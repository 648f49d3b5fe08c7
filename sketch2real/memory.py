"""Every allocator's "out of memory" becomes one error, after the failed tensors are freed."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from errors import OutOfMemory


@contextmanager
def freed_after_failure(device: str, size: tuple[int, int]) -> Iterator[None]:
    """Turn an allocator's failure while painting `size` px into OutOfMemory."""
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "alloc" not in str(error):  # torch's CPU allocator raises a plain RuntimeError
            raise
    # Outside the except block, so that no traceback keeps the tensors alive.
    free(device)
    width, height = size
    raise OutOfMemory(
        f"Cannot paint {width} × {height}: out of memory; ask for a smaller 'width' and 'height'"
    )


def free(device: str) -> None:
    """Release memory that nothing refers to."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
