"""From the uploaded file to the model's input and the canvas to draw on."""

from pathlib import Path
from typing import NamedTuple

import torch
from draw import shrunk
from outputs import PictureSize
from picture import load_rgb
from PIL import Image
from prediction import Engine


class Prepared(NamedTuple):
    """A picture that was read, without its full-size pixels."""

    size: PictureSize
    pixels: torch.Tensor
    """(1, 3, H, W) float32, the model's input."""
    canvas: Image.Image | None
    """RGB, to draw the detections on; None unless `annotated`."""


def read(file: Path | str, engine: Engine, annotated: bool) -> Prepared:
    """Decode a picture, resize it for the model, and keep a small copy to draw on if `annotated`.

    Raises InvalidInput when picture.load_rgb does.
    """
    picture = load_rgb(file)
    size = PictureSize(width=picture.width, height=picture.height)
    return Prepared(size, engine.prepare(picture), shrunk(picture) if annotated else None)
