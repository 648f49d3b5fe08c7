"""An RGB picture becomes the tensor that the model was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

MIN_SIDE_PX = 32
"""Shortest side handed to the model: the coarsest feature map of Swin has stride 32."""


def target_size(width: int, height: int, limits: Mapping[str, int | None]) -> tuple[int, int]:
    """Size at which the model looks at a picture.

    limits: the processor's own `size`: either height and width, or shortest_edge and
    longest_edge. With edges the rounding is transformers', to the pixel
    (image_transforms.get_size_with_aspect_ratio), save that no side falls below MIN_SIDE_PX: a
    picture of 8000 × 1 would otherwise vanish. Beyond an aspect of 5 to 3, where the longest edge
    decides, the original's rounding can be a few px larger (2000 × 160: 1337 instead of 1333).

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


def to_tensor(picture: Image.Image, processor: Any) -> torch.Tensor:
    """Resize and normalise by the processor that came with the weights.

    processor: transformers' GroundingDinoImageProcessorPil.
    Returns: (1, 3, H, W) float32, channels RGB, normalised by the processor's mean and std.
    """
    size = processor.size
    limits = {
        key: getattr(size, key, None)
        for key in ("height", "width", "shortest_edge", "longest_edge")
    }
    width, height = target_size(*picture.size, limits)
    pixels = processor(
        np.asarray(picture),
        size={"height": height, "width": width},
        input_data_format="channels_last",  # else a picture 3 px high is taken for channels first
        return_tensors="pt",
    )["pixel_values"]
    return torch.as_tensor(pixels, dtype=torch.float32)
