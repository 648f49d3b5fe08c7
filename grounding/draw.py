"""The picture with its detections drawn on it."""

import colorsys
import io
import tempfile
from collections.abc import Sequence

import numpy as np
from cog import Path
from fonts import Font, font_for, own_font
from masks import runs
from outputs import Detection
from PIL import Image, ImageDraw
from prediction import MaskGrid

MAX_SIDE_PX = 2048
"""Longest side of the drawn picture, which is part of the JSON output."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, in px."""

_TINT = 0.45  # of the label's colour in a mask
_STEPS = 12  # label heights to try below the top of a box
_GOLDEN = 0.618034  # successive multiples are far apart on the hue circle


def shrunk(picture: Image.Image) -> Image.Image:
    """The RGB picture to draw on, at most MAX_SIDE_PX a side: a copy."""
    scale = min(1.0, MAX_SIDE_PX / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def annotate(
    canvas: Image.Image, detections: Sequence[Detection], grids: Sequence[MaskGrid | None]
) -> bytes:
    """Draw masks, boxes and labels on the canvas, one colour per label.

    grids: the mask of each detection; None where it has none, or none was asked for.
    A label covers no other one where there is room. One in a script that no font of this machine
    has shows as its number in the list of labels.
    Returns: a JPEG.
    """
    pen = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    width = max(1, round(side / 300))
    size_px = max(10, round(side / 50))
    boxes = [_pixels(found["box_normalized"], canvas.size) for found in detections]
    for found, grid in reversed(list(zip(detections, grids, strict=True))):  # the best on top
        if grid is not None:
            _tint(canvas, grid, label_colour(found["label_index"]))
    for found, box in reversed(list(zip(detections, boxes, strict=True))):
        pen.rectangle(box, outline=label_colour(found["label_index"]), width=width)
    taken: list[Box] = []
    captions = []
    for found, box in zip(detections, boxes, strict=True):  # the best one chooses first
        text, font = _text(found, size_px)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        place = _free(box, (right - left + 6, bottom - top + 6), canvas.size, taken)
        taken.append(place)
        captions.append((found, place, text, font, (left, top)))
    for found, place, text, font, (left, top) in reversed(captions):
        colour = label_colour(found["label_index"])
        pen.rectangle(place, fill=colour)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140  # BT.601 luma
        at = (place[0] + 3 - left, place[1] + 3 - top)
        pen.text(at, text, font=font, fill="black" if dark else "white")
    jpeg = io.BytesIO()
    canvas.save(jpeg, "JPEG", quality=90)
    return jpeg.getvalue()


def _tint(canvas: Image.Image, grid: MaskGrid, colour: tuple[int, int, int]) -> None:
    """Mix the colour into the canvas where the mask is; only its columns are held."""
    height = canvas.height
    first, last = runs(grid, *canvas.size)
    if not len(first):
        return
    left, right = int(first[0]) // height, -(-int(last[-1]) // height)
    steps = np.zeros((right - left) * height + 1, np.int8)
    steps[first - left * height] = 1
    steps[last - left * height] = -1
    inside = np.cumsum(steps[:-1], dtype=np.uint8).reshape(right - left, height).T
    canvas.paste(colour, (left, 0), Image.fromarray(inside * np.uint8(round(255 * _TINT))))


def _pixels(fractions: Sequence[float], size: tuple[int, int]) -> Box:
    """A box in px of fractions of the picture, within the picture and never inside out."""
    x1, y1, x2, y2 = (f * side for f, side in zip(fractions, size * 2, strict=True))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _text(found: Detection, size_px: int) -> tuple[str, Font]:
    text = f"{found['label']} {found['score']:.2f}"
    font = font_for(text, size_px)
    if font is not None:
        return text, font
    return f"label {found['label_index'] + 1}: {found['score']:.2f}", own_font(size_px)


def _free(
    box: Box, size: tuple[float, float], canvas: tuple[int, int], taken: Sequence[Box]
) -> Box:
    """Where a label of that size goes: the first place at its box that covers no other label.

    Above the box, inside it, below it, at its right end; then down along its left side. If all are
    taken, its top left corner.
    """
    x1, y1, x2, y2 = box
    width, height = size
    corners = [
        *((x1, y1 - height), (x1, y1), (x1, y2), (x1, y2 - height)),
        *((x2 - width, y1 - height), (x2 - width, y1), (x2 - width, y2)),
        *((x1, y1 + step * height) for step in range(1, _STEPS + 1)),
    ]
    places = [_at(x, y, size, canvas) for x, y in corners]
    inside = [p for (_, y), p in zip(corners, places, strict=True) if p[1] == y]
    clear = (p for p in inside if not any(_overlap(p, other) for other in taken))
    return next(clear, places[1])


def _at(x: float, y: float, size: tuple[float, float], canvas: tuple[int, int]) -> Box:
    """A rectangle of that size, moved into the canvas."""
    left = max(0.0, min(x, canvas[0] - size[0]))
    top = max(0.0, min(y, canvas[1] - size[1]))
    return left, top, left + size[0], top + size[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def label_colour(index: int) -> tuple[int, int, int]:
    """A saturated RGB colour for the label of this index, always the same."""
    red, green, blue = colorsys.hsv_to_rgb((index * _GOLDEN) % 1.0, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def save(jpeg: bytes) -> Path:
    """Write it to the temp directory, from which coglet reads it."""
    with tempfile.NamedTemporaryFile(prefix="annotated-", suffix=".jpg", delete=False) as file:
        file.write(jpeg)
    return Path(file.name)
