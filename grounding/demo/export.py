"""Trained weights become a folder that the package loads."""

from pathlib import Path
from typing import Any

import torch
from transformers import GroundingDinoProcessor

# The Pil class by its module: the class of the bare name wants torchvision.
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

SIDE_PX = 160
"""What the demo weights look at."""


def save_weights(model: Any, tokenizer: Any, folder: Path, side_px: int = SIDE_PX) -> None:
    """float16 safetensors, configuration, tokenizer and image processor.

    model: float32, left as it is.
    """
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    was = model.config.dtype
    model.config.dtype = torch.float16
    model.save_pretrained(folder, state_dict=halves)
    model.config.dtype = was
    images = GroundingDinoImageProcessorPil(size={"height": side_px, "width": side_px})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
