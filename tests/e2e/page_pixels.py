"""What a photograph of a result shows, beside the numbers that the box answered with."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.int16]
BOX_COLOURS = ((79, 70, 229), (15, 118, 110))  # of the first two labels, in app.css
NEAR = 40  # of 255, in each colour: a blurred edge, another way of scaling


def pixels(picture: Path | bytes, size: tuple[int, int] | None = None) -> Pixels:
    """Rows of RGB pixels, of the picture scaled to `size` (width, height) where it is given."""
    opened = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
    with opened as image:
        rgb = image.convert("RGB")
        return np.asarray(rgb.resize(size) if size else rgb, dtype=np.int16)


def share_alike(one: Pixels, other: Pixels | tuple[int, ...]) -> float:
    """The share of pixels that look the same in both, or are of one colour."""
    return float((np.abs(one - np.array(other)).max(axis=-1) < NEAR).mean())


def check_timeline(picture: Path, drawn: dict[str, Any], output: dict[str, Any]) -> None:
    """Sound is high where the box heard speech and flat elsewhere; each interval has its colour at
    its time; each word is written where it was said."""
    image = pixels(picture)
    length: float = drawn["seconds"]
    px_per_s = drawn["width"] / length
    wave = image[: round(drawn["wave"]["height"])]
    ground = np.median(wave[:8].reshape(-1, 3), axis=0)
    heights = (np.abs(wave - ground).max(axis=2) > NEAR).sum(axis=0)
    seconds = np.arange(len(heights)) / px_per_s
    spoken = np.zeros(len(heights), dtype=bool)
    for part in output["speech_segments"]:
        spoken |= (seconds >= part["start"]) & (seconds <= part["end"])
    assert heights.max() > 60, "the loudest sound fills the strip"
    assert heights[spoken].mean() > 4 * heights[~spoken].mean()
    tracks = [output[k] for k in ("words", "pauses", "filled_pauses", "speech_segments")]
    tracks = [items for items in tracks if items]
    assert [len(lane) for lane in drawn["lanes"]] == [len(items) for items in tracks]
    for items, lane in zip(tracks, drawn["lanes"], strict=True):
        for item, mark in zip(items, lane, strict=True):
            assert abs(mark["left"] - item["start"] * px_per_s) < 1.5
            top, left = round(mark["top"]), round(mark["left"])
            if mark["text"]:
                word = image[top : top + 20, left + 4 : left + 24]
                assert mark["text"] == item["text"]
                assert (word.max(axis=2) < 128).sum() > 10, item
            elif mark["width"] > 6:
                colour = tuple(map(int, re.findall(r"\d+", mark["colour"])[:3]))
                middle = image[top + 8, left + 3 : left + round(mark["width"]) - 3]
                assert share_alike(middle, colour) == 1


def check_boxes(picture: Path, seen: dict[str, Any], output: dict[str, Any], photo: Path) -> None:
    """The photo is there, and each detection's four edges, in its label's colour."""
    image = pixels(picture)
    (under,) = seen["under"]
    with Image.open(photo) as sent:
        scale = under["width"] / sent.width
    shown = pixels(photo, (image.shape[1], image.shape[0]))
    assert share_alike(image, shown) > 0.85
    labels = list(dict.fromkeys(d["label"] for d in output["detections"]))
    for found in output["detections"]:
        x1, y1, x2, y2 = (round(v * scale) for v in found["box"])
        colour = BOX_COLOURS[labels.index(found["label"])]
        edges = [
            image[y1:y2, x1 : x1 + 2],
            image[y1:y2, x2 - 2 : x2],
            image[y1 : y1 + 2, x1:x2],
            image[y2 - 2 : y2, x1:x2],
        ]
        for edge in edges:  # a tag, or the edge of another box, may cover a part
            assert share_alike(edge, colour) > 0.5, found


def check_comparison(
    folder: Path, cut: float, strokes: list[list[tuple[float, float]]], answer: bytes
) -> None:
    """The slider shows the answered picture, then what was drawn, then each on its own side."""
    painted, drawn, both = (pixels(folder / f"{n}.png") for n in ("painted", "drawn", "both"))
    height, width, _ = painted.shape
    assert share_alike(painted, pixels(answer, (width, height))) > 0.95
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) > 1000, "a painted picture"
    assert share_alike(drawn, (255, 255, 255)) > 0.9
    for (x1, y1), (x2, y2) in (pair for stroke in strokes for pair in pairwise(stroke)):
        x, y = round((x1 + x2) / 2 * width), round((y1 + y2) / 2 * height)
        assert drawn[y - 3 : y + 4, x - 3 : x + 4].min() < 100, (x, y)
    edge = round(width * (100 - cut) / 100)
    assert 0.3 * width < edge < 0.7 * width
    assert share_alike(both[:, : edge - 2], painted[:, : edge - 2]) == 1
    assert share_alike(both[:, edge + 2 :], drawn[:, edge + 2 :]) == 1
