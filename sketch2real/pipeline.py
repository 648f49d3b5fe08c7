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
from PIL import Image
from request import Painter, Request
from weights import Preset

TOGETHER = 4
"""Pictures in one batch on a GPU, if memory allows."""

WARM_ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
"""The most common of `condition.ASPECTS`, painted once at set-up: each size needs its own kernels,
and with `COMPILE=1` the second size makes the compiled blocks general."""

diffusers.utils.logging.disable_progress_bar()


def load(preset: Preset, device: str, dtype: torch.dtype, memory_gib: float) -> Painter:
    """The painter of `preset` on `device`, its parts off-loaded between uses if the GPU is small.

    memory_gib: total memory of the GPU, 0 without one.
    """
    together = TOGETHER if device.startswith("cuda") else 1
    if preset.pipeline == "Flux2KleinPipeline":
        return KleinPainter(preset, device, dtype, memory_gib, together)
    pipe = controlnet.load(preset, dtype)
    speed.place(pipe, preset, device, memory_gib)
    return controlnet.ControlNetPainter(preset, pipe, device, together)


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
