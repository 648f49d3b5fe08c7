"""The picture with its detections drawn on it."""

import colorsys
import io
import tempfile
from collections.abc import Sequence

from cog import Path
from outputs import Detection
from PIL import Image, ImageDraw, ImageFont

MAX_SIDE_PX = 2048
"""Longest side of the drawn picture, which is part of the JSON output."""

_GOLDEN = 0.618034  # successive multiples are far apart on the hue circle


def shrunk(picture: Image.Image) -> Image.Image:
    """The RGB picture to draw on, at most MAX_SIDE_PX a side: a copy."""
    scale = min(1.0, MAX_SIDE_PX / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def annotate(canvas: Image.Image, detections: Sequence[Detection]) -> bytes:
    """Draw boxes and labels on the canvas, one colour per label.

    Labels in scripts that Pillow's built-in font lacks show as boxes.
    Returns: a JPEG.
    """
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    width = max(1, round(side / 300))
    font = ImageFont.load_default(size=max(10, round(side / 60)))
    for found in reversed(detections):  # the best on top
        colour = label_colour(found["label_index"])
        x1, y1, x2, y2 = (
            fraction * side_px
            for fraction, side_px in zip(found["box_normalized"], canvas.size * 2, strict=True)
        )
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)
        _caption(pen, f"{found['label']} {found['score']:.2f}", (x1, y1), font, colour)
    jpeg = io.BytesIO()
    canvas.save(jpeg, "JPEG", quality=90)
    return jpeg.getvalue()


def label_colour(index: int) -> tuple[int, int, int]:
    """A saturated RGB colour for the label of this index, always the same."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN) % 1.0, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _caption(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
) -> None:
    """A filled label above the box's corner, or inside it where there is no room above."""
    x, y = corner
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    height = bottom - top + 4
    base = y - height if y >= height else y
    pen.rectangle((x, base, x + right - left + 6, base + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # BT.601 luma
    pen.text((x + 3 - left, base + 2 - top), text, font=font, fill="black" if dark else "white")


def save(jpeg: bytes) -> Path:
    """Write it to the temp directory, from which coglet reads it."""
    with tempfile.NamedTemporaryFile(prefix="annotated-", suffix=".jpg", delete=False) as file:
        file.write(jpeg)
    return Path(file.name)
