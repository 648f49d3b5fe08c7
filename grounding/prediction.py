"""The interface of the engines: run.py uses nothing else of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


class Prediction(NamedTuple):
    """The model's output for one picture and one chunk of labels."""

    token_probabilities: NDArray[np.float32]
    """(queries, tokens), 0 to 1."""
    boxes: NDArray[np.float32]
    """(queries, 4) centre x, centre y, width, height, as fractions of the picture."""


class DetectInput(NamedTuple):
    """What the model needs of one request."""

    pixels: torch.Tensor
    """(1, 3, H, W) float32, normalised."""
    prompts: tuple[tuple[int, ...], ...]
    """Token ids of each chunk of labels."""


class Engine(Protocol):
    """A loaded checkpoint."""

    name: str
    tokenizer: Any
    max_tokens: int
    """Length of a prompt, special tokens included."""

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """(1, 3, H, W) float32: the picture as the model's input. Any thread may call this."""

    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """For each input a prediction per prompt; all pictures have one size."""
