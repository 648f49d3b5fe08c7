"""The interface of the engines: run.py uses nothing else of them."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from prompt import Query

MaskGrid = NDArray[np.uint8]
"""(rows, columns) over the whole picture: the probability of a mask, 0 to 255."""

NO_MASKS: Mapping[int, MaskGrid] = MappingProxyType({})


class Prediction(NamedTuple):
    """The model's output for one picture and one chunk of labels."""

    token_probabilities: NDArray[np.float32]
    """(queries, tokens of the prompt), 0 to 1."""
    boxes: NDArray[np.float32]
    """(queries, 4) centre x, centre y, width, height, as fractions of the picture."""
    masks: Mapping[int, MaskGrid] = NO_MASKS
    """By query: those that were asked for and found."""


class DetectInput(NamedTuple):
    """What the model needs of one request."""

    pixels: torch.Tensor
    """(1, 3, H, W) float32, normalised."""
    prompts: tuple[tuple[int, ...], ...]
    """`input_ids` of each chunk of labels."""
    masks_from: float | None = None
    """Lowest score of the boxes whose masks are wanted; None: no masks."""


class Engine(Protocol):
    """A loaded checkpoint."""

    @property
    def name(self) -> str:
        """Of the weights, for the output."""

    @property
    def has_masks(self) -> bool:
        """Whether it can give masks; else `masks_from` is always None."""

    def read_labels(self, labels: Sequence[str]) -> Query:
        """What the labels mean to the model. Raises InvalidInput when that is nothing."""

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """(1, 3, H, W) float32: the picture as the model's input. Any thread may call this."""

    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """For each input a prediction per prompt; all pictures have one size."""


def all_finite(answers: Iterable[Iterable[Prediction]]) -> bool:
    """Whether no score and no box is NaN or infinite."""
    return all(
        np.isfinite(array).all()
        for of_input in answers
        for prediction in of_input
        for array in (prediction.token_probabilities, prediction.boxes)
    )
