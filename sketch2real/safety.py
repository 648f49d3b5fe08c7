"""Checks finished pictures. They are flagged, and withheld only where `SAFETY_WITHHOLD` is 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image

# CLIP's channel statistics (Radford et al. 2021), as in the checker's preprocessor_config.json.
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)

WITHHELD_GREY = (128, 128, 128)


class SafetyChecker:
    """CompVis' checker for nudity (CLIP ViT-L/14 against 17 concepts), from Stable Diffusion.

    It does not detect violence, symbols or real people.
    """

    def __init__(self, source: str, device: str) -> None:
        self._device = device
        # In float32: half precision would save only 0.6 GB.
        self._model: Any = StableDiffusionSafetyChecker.from_pretrained(source).to(device).eval()
        self._side_px = int(self._model.config.vision_config.image_size)

    def flags(self, pictures: Sequence[Image.Image]) -> list[bool]:
        """For each RGB picture, whether the checker objects to it."""
        batch = torch.from_numpy(np.stack([self._prepared(picture) for picture in pictures]))
        # The model blacks out its `images` in place: it gets dummies.
        scratch = [np.zeros((1, 1, 3), dtype=np.float32) for _ in pictures]
        _, flags = self._model(clip_input=batch.to(self._device), images=scratch)
        return [bool(flag) for flag in flags]

    def _prepared(self, picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(3, side, side) float32: shorter side to size, centre cut out, CLIP's normalisation."""
        side = self._side_px
        scale = side / min(picture.size)
        size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
        small = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        pixels = np.asarray(small.crop((left, top, left + side, top + side)), dtype=np.float32)
        normal = (pixels / 255.0 - _MEAN) / _DEVIATION
        return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)


def withheld(pictures: Sequence[Image.Image], flags: Sequence[bool]) -> list[Image.Image]:
    """`pictures` with each flagged one replaced by plain grey of its size."""
    return [
        Image.new("RGB", picture.size, WITHHELD_GREY) if flag else picture
        for picture, flag in zip(pictures, flags, strict=True)
    ]
