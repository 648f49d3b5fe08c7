"""Saves trained weights as a folder that the package loads."""

import copy
from pathlib import Path
from typing import Any

from transformers import GroundingDinoProcessor

# The Pil class by its module: the class of the bare name wants torchvision.
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

SIDE_PX = 160
"""Side of the drawn weights' input."""


def save_weights(model: Any, tokenizer: Any, folder: Path, side_px: int = SIDE_PX) -> None:
    """float16 safetensors, configuration, tokenizer and image processor.

    model: float32, not changed.
    """
    # A copy, since half() works in place; save_pretrained leaves out tied tensors.
    copy.deepcopy(model).half().save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"height": side_px, "width": side_px})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
