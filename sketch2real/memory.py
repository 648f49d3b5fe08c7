"""Every allocator's "out of memory" becomes one error, after all of the failed attempt is released.

A tensor lives as long as anything refers to it: an exception through its traceback, whose frames
hold their variables; a scheduler through the steps it remembers; the hooks of an off-loaded model.
"""

import gc
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from errors import OutOfMemory

Result = TypeVar("Result")

SHORTAGES = ("out of memory", "can't allocate", "alloc_failed")
"""What a RuntimeError says of it, in lower case: CUDA's runtime, the processor's allocator, cuBLAS
and cuDNN."""


def is_shortage(error: BaseException) -> bool:
    """Whether `error` is an allocator's failure, or ours about one."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in SHORTAGES
    )


def attempt(paint: Callable[[], Result], pipe: Any, device: str, size: tuple[int, int]) -> Result:
    """`paint()`, with `pipe` as before if it fails.

    size: of the picture in px, for the message.

    Raises OutOfMemory for an allocator's failure. Nothing that `paint` made is alive by then,
    neither through this exception nor through the pipeline. Other exceptions pass.
    """
    try:
        return paint()
    except BaseException as error:
        if not is_shortage(error):
            reset(pipe)
            raise
    # Outside the except block, so that no traceback keeps the tensors alive.
    reset(pipe)
    free(device)
    width, height = size
    raise OutOfMemory(
        f"Cannot paint {width} × {height}: out of memory; ask for a smaller 'width' and 'height'"
    )


def reset(pipe: Any) -> None:
    """End an interrupted call of `pipe`: drop what it remembers, off-load what it had loaded."""
    # Multistep schedulers keep the outputs of the last steps.
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    pipe.maybe_free_model_hooks()
    for name in ("_current_timestep", "_attention_kwargs", "_cross_attention_kwargs"):
        if getattr(pipe, name, None) is not None:
            setattr(pipe, name, None)


def forget_locals(error: BaseException) -> None:
    """Clear the local variables of the functions that an exception went through, those of its
    causes included: they hold the tensors of a failed batch for as long as the exception lives."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]


def free(device: str) -> None:
    """Release memory that nothing refers to."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
