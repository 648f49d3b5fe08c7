"""Resizes and normalises an RGB picture as in the model's training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MIN_SIDE_PX = 32
"""Shortest side of the model's input: the coarsest feature map of Swin has stride 32."""

ON_DEVICE_PIXELS = 16_000_000
"""Largest picture that is resized on the GPU: 200 MB as float32. Larger ones are resized on the
CPU."""

_MODES = {int(Image.Resampling.BILINEAR): "bilinear", int(Image.Resampling.BICUBIC): "bicubic"}


def target_size(width: int, height: int, limits: Mapping[str, int | None]) -> tuple[int, int]:
    """The size of the model's input for a picture.

    limits: the processor's own `size`: either height and width, or shortest_edge and
    longest_edge. With edges the rounding is transformers', to the pixel
    (image_transforms.get_size_with_aspect_ratio), except that no side is below MIN_SIDE_PX: a
    picture of 8000 × 1 would otherwise have no pixels. Beyond an aspect of 5 to 3, where the
    longest edge decides, the original's rounding can be a few px larger (2000 × 160: 1337 instead
    of 1333).

    Returns: (width, height) in px.

    >>> target_size(640, 480, {"shortest_edge": 800, "longest_edge": 1333})
    (1066, 800)
    """
    if limits.get("height") and limits.get("width"):
        return int(limits["width"] or 0), int(limits["height"] or 0)
    short, long = float(limits["shortest_edge"] or 0), limits.get("longest_edge")
    small, large = min(width, height), max(width, height)
    if long is not None and large / small * short > long:
        short = long * small / large
    edge = round(short)
    scaled = int(short * large / small)
    if small == edge:
        scaled = large
    new = (edge, scaled) if width < height else (scaled, edge)
    return max(new[0], MIN_SIDE_PX), max(new[1], MIN_SIDE_PX)


def bucket(width: int, height: int) -> tuple[int, int]:
    """The nearest of the sizes that compiled code is kept for: the shorter side in steps of 32 px
    (Swin's coarsest stride), the longer in steps of 64.

    All common aspects from 1:1 to 16:9, portrait or landscape, then share some 20 sizes (27 up to
    2:1). The picture is stretched by at most 4.5 %, which does not matter for boxes as fractions.

    >>> bucket(1066, 800)
    (1088, 800)
    """
    small, large = min(width, height), max(width, height)
    short = max(MIN_SIDE_PX, round(small / 32) * 32)
    long = max(short, round(large / 64) * 64)
    return (short, long) if width < height else (long, short)


def to_tensor(
    picture: Image.Image,
    processor: Any,
    device: torch.device | None = None,
    *,
    in_buckets: bool = False,
) -> torch.Tensor:
    """Resize and normalise with the weights' own image processor.

    processor: transformers' GroundingDinoImageProcessorPil. device: of the result;
    on a CUDA device pictures up to ON_DEVICE_PIXELS are resized there. in_buckets: to the size
    that `bucket` names, unless the processor asks for a fixed one.
    Returns: (1, 3, H, W) float32, channels RGB, normalised by the processor's mean and std.
    """
    limits = {
        key: getattr(processor.size, key, None)
        for key in ("height", "width", "shortest_edge", "longest_edge")
    }
    size = target_size(*picture.size, limits)
    if in_buckets and not limits["height"]:
        size = bucket(*size)
    fits = picture.width * picture.height <= ON_DEVICE_PIXELS
    if device is not None and device.type == "cuda" and fits:
        return resize_on(device, picture, size, processor)
    pixels = processor(
        np.asarray(picture),
        size={"height": size[1], "width": size[0]},
        input_data_format="channels_last",  # or a height of 3 px would be channels
        return_tensors="pt",
    )["pixel_values"]
    return torch.as_tensor(pixels, dtype=torch.float32)


@torch.inference_mode()
def resize_on(
    device: torch.device, picture: Image.Image, size: tuple[int, int], processor: Any
) -> torch.Tensor:
    """The processor's steps in torch, on a device.

    size: width, height in px. The filter is antialiased as Pillow's and the result rounded to
    whole levels as there; Pillow rounds between its two passes as well, so that single values
    differ by one level of 255.
    Returns: (1, 3, H, W) float32 on the device.
    """
    mode = _MODES[int(processor.resample)]
    pixels = torch.from_numpy(np.array(picture)).to(device).permute(2, 0, 1)[None].float()
    if picture.size != size:
        pixels = F.interpolate(
            pixels, size=(size[1], size[0]), mode=mode, antialias=True, align_corners=False
        )
        pixels = pixels.round().clamp(0, 255)
    mean, std = (
        torch.tensor(list(values), device=device).view(1, 3, 1, 1)
        for values in (processor.image_mean, processor.image_std)
    )
    normalised: torch.Tensor = (pixels * processor.rescale_factor - mean) / std
    return normalised
