"""From the file that was sent to what the model and the pen need of it."""

from pathlib import Path
from typing import NamedTuple

import torch
from draw import shrunk
from outputs import PictureSize
from picture import load_rgb
from PIL import Image
from prediction import Engine


class Prepared(NamedTuple):
    """A picture that has been read; the full-size pixels are let go."""

    size: PictureSize
    pixels: torch.Tensor
    """(1, 3, H, W) float32, as the model wants it."""
    canvas: Image.Image | None
    """RGB, to draw the detections on; None if nobody asked."""


def read(file: Path | str, engine: Engine, annotated: bool) -> Prepared:
    """Decode a picture, resize it for the model, and keep a small copy if it is to be drawn on.

    Raises: InvalidInput as picture.load_rgb.
    """
    picture = load_rgb(file)
    size = PictureSize(width=picture.width, height=picture.height)
    return Prepared(size, engine.prepare(picture), shrunk(picture) if annotated else None)
