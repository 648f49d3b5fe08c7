"""Loads the painter of a preset, and warms it up.

The runner reaches the models through `load` alone: `controlnet.py` and `klein.py` hold the
painters, `request.py` their common interface.
"""

from collections.abc import Iterator

import controlnet
import diffusers
import speed
import torch
from condition import size_for
from klein import KleinPainter
from memory import free, is_shortage
from PIL import Image
from request import Painter, Request
from weights import Preset

TOGETHER = 4
"""Pictures in one batch on a GPU, if memory allows."""

WARM_ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
"""The most common of `condition.ASPECTS`, painted once at set-up: each size needs its own kernels,
and with `COMPILE=1` the second size makes the compiled blocks general."""

diffusers.utils.logging.disable_progress_bar()
# The class is annotated with AutoencoderKL. An AutoencoderTiny, as `tools/demo` trains now, serves
# as well.
diffusers.utils.logging.get_logger("diffusers.pipelines.pipeline_utils").addFilter(
    lambda record: "Expected types for vae" not in record.getMessage()
)


def load(
    preset: Preset, device: str, dtype: torch.dtype, memory_gib: float, *, offload: bool = False
) -> Painter:
    """The painter of `preset` on `device`, its parts off-loaded between uses if the GPU is small.

    memory_gib: total memory of the GPU, 0 without one. offload: off-load them in any case.
    """
    together = TOGETHER if device.startswith("cuda") else 1
    if preset.pipeline == "Flux2KleinPipeline":
        return KleinPainter(preset, device, dtype, memory_gib, together, offload=offload)
    pipe = controlnet.load(preset, dtype)
    speed.place(pipe, preset, device, memory_gib, offload=offload)
    return controlnet.ControlNetPainter(preset, pipe, device, together)


def load_and_warm(
    preset: Preset, device: str, dtype: torch.dtype, memory_gib: float, *, should_warm: bool
) -> Painter:
    """`load` and, if asked, `warm`; where the memory is too small for it, again with off-loading.

    Another program may hold a part of the GPU, and the need is counted, not certain.
    """
    painter = _tried(preset, device, dtype, memory_gib, should_warm=should_warm)
    if painter is not None:
        return painter
    free(device)
    print(  # noqa: T201 -- the log of set-up
        f"sketch2real: out of memory at set-up; {preset.name}'s parts are off-loaded between uses, "
        "which is slower",
        flush=True,
    )
    painter = load(preset, device, dtype, memory_gib, offload=True)
    if should_warm:
        warm(painter)
    return painter


def _tried(
    preset: Preset, device: str, dtype: torch.dtype, memory_gib: float, *, should_warm: bool
) -> Painter | None:
    """The painter, or None when memory was too small; nothing of it is alive then."""
    try:
        painter = load(preset, device, dtype, memory_gib)
        if should_warm:
            warm(painter)
    except Exception as error:
        if not is_shortage(error):
            raise
        return None
    return painter


def warm(painter: Painter) -> int:
    """Paint one step in each common size, so that no request waits for kernels.

    Returns: how many sizes.
    """
    requests = list(_warming(painter.preset))
    for request in requests:
        painter.paint([request], lambda _step: None)
    return len(requests)


def _warming(preset: Preset) -> Iterator[Request]:
    sizes = [size_for(a, preset.paint_area_px, preset.multiple_px) for a in WARM_ASPECTS]
    for size in dict.fromkeys(sizes):
        yield Request(
            control=Image.new("RGB", size),
            prompt="",
            negative_prompt=None,
            control_scale=preset.control_scale,
            steps=1,
            guidance_scale=preset.guidance_scale,
            seeds=(0,),
        )
