"""Draws pictures from a seed: coloured things on textured grounds, with their boxes."""

import colorsys
import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tools.drawn.figures import FIGURES, Figure, Point
from tools.drawn.vocabulary import OBJECTS, Pair, Thing

_HSV = {  # hue in degrees, saturation, value: from, to
    "red": ((-7, 7), (0.75, 1), (0.65, 1)),
    "orange": ((22, 34), (0.85, 1), (0.9, 1)),
    "yellow": ((52, 62), (0.75, 1), (0.85, 1)),
    "green": ((95, 145), (0.6, 1), (0.4, 0.85)),
    "cyan": ((176, 190), (0.65, 1), (0.8, 1)),
    "blue": ((215, 240), (0.7, 1), (0.55, 1)),
    "purple": ((268, 288), (0.6, 1), (0.45, 0.8)),
    "pink": ((318, 342), (0.35, 0.6), (0.92, 1)),
}
_FINE = 2  # drawn at twice the size and scaled down, for smooth edges
_MAX_OVERLAP = 0.12  # of the smaller of two boxes
_SMALLEST, _LARGEST = 0.13, 0.5  # extent of a thing, before it is stretched

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in px."""


class Scene(NamedTuple):
    """A picture and the things in it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    boxes: list[Box]
    things: list[Thing]


def draw_scene(
    rng: random.Random, width: int, height: int, pairs: Sequence[Pair], most: int = 6
) -> Scene:
    """One to `most` things of the given pairs, as far as there is room, with noise and blur.

    width, height: px. The same state of rng gives the same scene.
    """
    noise = np.random.default_rng(rng.randrange(2**31))
    canvas = _ground(rng, noise, width, height).resize((width * _FINE, height * _FINE), 2)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.choice((0, 0, 1, 3))):
        ends = [rng.randrange(side * _FINE) for side in (width, height, width, height)]
        pen.line(ends, fill=(rng.randrange(256),) * 3, width=rng.randint(1, 4))
    squeeze = 1.0 if rng.random() < 0.6 else rng.uniform(0.72, 1.35)
    boxes: list[Box] = []
    things: list[Thing] = []
    wanted = rng.randint(1, most)
    for _ in range(wanted * 4):
        if len(boxes) == wanted:
            break
        colour, kind = _next_pair(rng, things, pairs)
        figure = _pose(rng, kind, min(width, height), squeeze)
        placed = _place(rng, figure, width, height, boxes)
        if placed is None:
            continue
        figure, box = placed
        striped = rng.random() < 0.15
        _paint(canvas, figure, _shade_of(rng, colour), striped, rng)
        boxes.append(box)
        extent = max(box[2] - box[0], box[3] - box[1]) / min(width, height)
        things.append(Thing(colour, kind, striped, extent))
    return Scene(_finish(rng, noise, canvas, width, height), boxes, things)


def _next_pair(rng: random.Random, things: Sequence[Thing], pairs: Sequence[Pair]) -> Pair:
    """A pair, often one that shares colour or kind with a thing of the scene: those teach most."""
    if things and rng.random() < 0.4:
        like = rng.choice(things)
        alike = [p for p in pairs if p[0] == like.colour or p[1] == like.kind]
        if alike:
            return rng.choice(alike)
    return rng.choice(pairs)


def _shade_of(rng: random.Random, name: str) -> Colour:
    hue, saturation, value = (rng.uniform(low, high) for low, high in _HSV[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return int(255 * red), int(255 * green), int(255 * blue)


def _pose(rng: random.Random, kind: str, side: int, squeeze: float) -> Figure:
    """The figure scaled to px, stretched and rotated about (0, 0)."""
    radius = side * math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST))) / 2
    wide, tall = (1.0, 1.0)
    if rng.random() < 0.4:
        wide, tall = rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.2)
    mirror = rng.choice((-1, 1))
    turn = rng.uniform(0, 2 * math.pi)
    if kind == "heart" or kind in OBJECTS:  # these have an upright orientation
        turn = rng.uniform(-0.4, 0.4)
    if rng.random() < 0.35 and kind != "arrow":
        turn = 0.0
    cos, sin = math.cos(turn), math.sin(turn)

    def move(point: Point) -> Point:
        x, y = point[0] * radius * wide * mirror, point[1] * radius * tall
        return (x * cos - y * sin) * squeeze, x * sin + y * cos

    return [(part, [move(p) for p in points]) for part, points in FIGURES[kind](rng)]


def _place(
    rng: random.Random, figure: Figure, width: int, height: int, taken: Sequence[Box]
) -> tuple[Figure, Box] | None:
    """A random place in the picture, or None if it covers too much of another thing."""
    xs = [x for part, points in figure if part != "hole" for x, _ in points]
    ys = [y for part, points in figure if part != "hole" for _, y in points]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    if right - left > width - 4 or bottom - top > height - 4:
        return None
    x, y = rng.uniform(2 - left, width - 2 - right), rng.uniform(2 - top, height - 2 - bottom)
    box = (x + left, y + top, x + right, y + bottom)
    if any(_covered(box, other) > _MAX_OVERLAP for other in taken):
        return None
    return [(part, [(x + a, y + b) for a, b in points]) for part, points in figure], box


def _covered(a: Box, b: Box) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    tall = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return wide * tall / smaller


def _paint(
    canvas: Image.Image, figure: Figure, colour: Colour, striped: bool, rng: random.Random
) -> None:
    fine = [(part, [(x * _FINE, y * _FINE) for x, y in points]) for part, points in figure]
    xs = [x for _, points in fine for x, _ in points]
    ys = [y for _, points in fine for _, y in points]
    corner = int(min(xs)) - 1, int(min(ys)) - 1
    size = int(max(xs)) + 2 - corner[0], int(max(ys)) + 2 - corner[1]
    ground = canvas.crop((*corner, corner[0] + size[0], corner[1] + size[1]))
    patch = ground.copy()
    fill = Image.new("RGB", size, colour)
    if striped:
        fill = _stripes(rng, size, colour)
    outline = rng.choice((0, 40, 255)) if rng.random() < 0.3 else None
    sources = {
        "main": fill,
        "shade": Image.new("RGB", size, _mix(colour, 0, 0.35)),
        "light": Image.new("RGB", size, _mix(colour, 245, 0.72)),
        "dark": Image.new("RGB", size, _mix(colour, 25, 0.85)),
        "hole": ground,
    }
    for part, points in fine:
        mask = Image.new("L", size)
        local = [(x - corner[0], y - corner[1]) for x, y in points]
        ImageDraw.Draw(mask).polygon(local, fill=255)
        patch.paste(sources[part], (0, 0), mask)
        if outline is not None and len(figure) == 1:
            ImageDraw.Draw(patch).polygon(local, outline=(outline,) * 3)
    canvas.paste(patch, corner)


def _mix(colour: Colour, grey: int, share: float) -> Colour:
    red, green, blue = (int(c * (1 - share) + grey * share) for c in colour)
    return red, green, blue


def _stripes(rng: random.Random, size: tuple[int, int], colour: Colour) -> Image.Image:
    """Bands of the colour and of white or black, 5 to 9 across the thing."""
    turn = rng.choice((0.0, math.pi / 2, rng.uniform(0, math.pi)))
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    along = columns * math.cos(turn) + rows * math.sin(turn)
    bands = np.sin(along * 2 * math.pi * rng.uniform(2.5, 4.5) / max(size)) > 0.25
    other = rng.choice((15, 240))
    pixels = np.where(bands[..., None], np.uint8(other), np.array(colour, np.uint8))
    return Image.fromarray(pixels.astype(np.uint8))


def _ground(rng: random.Random, noise: np.random.Generator, width: int, height: int) -> Image.Image:
    base = noise.uniform(30, 225, 3) if rng.random() < 0.5 else np.full(3, noise.uniform(20, 235))
    base = base.mean() + (base - base.mean()) * rng.uniform(0, 0.6)
    pixels: NDArray[Any] = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    for cells in (rng.choice((2, 3, 4)), rng.choice((6, 10, 16))):
        if rng.random() >= 0.7:
            continue
        channels = 3 if rng.random() < 0.4 else 1
        coarse = np.repeat(noise.normal(size=(cells, cells, channels)), 3 // channels, 2)
        small = Image.fromarray((coarse * 40 + 128).clip(0, 255).astype(np.uint8))
        patches = np.asarray(small.resize((width, height), rng.choice((0, 2, 3))), np.float32)
        pixels = pixels + (patches - 128) / 40 * rng.uniform(5, 28)
    if rng.random() < 0.25:
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        turn, pitch = rng.uniform(0, math.pi), rng.uniform(0.1, 0.7)
        waves = np.sin((columns * math.cos(turn) + rows * math.sin(turn)) * pitch)
        waves = np.sign(waves) if rng.random() < 0.5 else waves
        pixels = pixels + (waves * rng.uniform(5, 22))[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _finish(
    rng: random.Random, noise: np.random.Generator, canvas: Image.Image, width: int, height: int
) -> NDArray[np.uint8]:
    picture = canvas.resize((width, height), Image.Resampling.BOX)
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    channels = 1 if rng.random() < 0.5 else 3
    grain = noise.normal(size=(height, width, channels)) * rng.uniform(0, 12)
    lit = np.asarray(picture, np.float32) * rng.uniform(0.88, 1.1) + grain
    return lit.clip(0, 255).astype(np.uint8)
