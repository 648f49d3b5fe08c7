"""A page on which things are drawn twice: as a shaded picture and as a sketch.

Page coordinates are shares of its side, x to the right, y down. The picture is kept in two layers:
`base`, and the light that falls on what a caption can dye. The picture in any colours is then
base + dye × colour of the thing, so that a drawn scene serves for many captions.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.demo import textures
from tools.demo.shapes import Points

Colour = tuple[float, float, float]
Shape = Literal["flat", "ball", "tube", "cone", "pillow"]
Grey = npt.NDArray[np.float32]

SIDE_PX = 256
OVERSAMPLING = 2
_PX = SIDE_PX * OVERSAMPLING
_COARSE = 4
"""Soft shadows are found in a picture this many times smaller."""

LIGHT = np.array((-0.45, -0.65, 0.61), np.float32)
"""Unit vector to the lamp: from the upper left in front of the page, in every scene. Lines do not
show where the light is; if it moved, the model would learn an average, which is a blur."""

_VIEW = np.array((0, 0, 1), np.float32)
_HALF = (LIGHT + _VIEW) / np.linalg.norm(LIGHT + _VIEW)
AMBIENT, LAMP = 0.52, 0.62
SHADOW_ACROSS, SHADOW_UP = 0.62, 0.26
"""Where the shadow of a point lies on the ground: this share of its height to the right, and up the
page, since the ground is seen at a low angle."""

OPEN = 0.25
"""Share of outlines that are not closed."""


@dataclass
class Pen:
    """A style of line.

    width_px: at `SIDE_PX`. wobble: standard deviation of a stroke's knots, in shares of the page.
    shake: the same of a tremor with short waves. twice: share of outlines drawn a second time.
    overshoot: how far strokes go past their end. gaps: share of a stroke left out, in pieces.
    """

    width_px: float = 3.8
    wobble: float = 0.003
    shake: float = 0.0
    twice: float = 0.0
    overshoot: float = 0.0
    gaps: float = 0.0


class Layers(NamedTuple):
    """The picture at one time, see `Scene`."""

    base: Grey
    dye: Grey
    slot: npt.NDArray[np.uint8]


@dataclass
class Scene:
    """The picture and the sketch so far. base: (px, px, 3) float32; dye: (px, px) float32."""

    random: np.random.Generator
    pen: Pen = field(default_factory=Pen)

    def __post_init__(self) -> None:
        self.base = np.zeros((_PX, _PX, 3), np.float32)
        self.dye = np.zeros((_PX, _PX), np.float32)
        self.slot = np.zeros((_PX, _PX), np.uint8)
        self._mask = np.zeros((_PX, _PX), np.bool_)
        self._sketch = Image.new("L", (_PX, _PX), 0)
        self._draw = ImageDraw.Draw(self._sketch)
        self._things = 0

    def begin_thing(self) -> int:
        """What is dyed belongs to a new thing from now on; returns its number, from 1."""
        self._mask = np.zeros((_PX, _PX), np.bool_)
        self._things += 1
        return self._things

    def end_thing(self, ground: float | None, limit: float = 0.0) -> None:
        """Let the thing cast its shadow on the ground at height `ground`, not above `limit`."""
        if ground is None or not self._mask.any():
            return
        small = self._mask[::_COARSE, ::_COARSE].astype(np.float32)
        side = len(small)
        g = ground * side
        # Row r and column c of the shadow show the thing's row g - (g - r) / SHADOW_UP.
        matrix = np.array([[1 / SHADOW_UP, 0], [SHADOW_ACROSS / SHADOW_UP, 1]])
        offset = (g - g / SHADOW_UP, -g * SHADOW_ACROSS / SHADOW_UP)
        cast = ndimage.affine_transform(small, matrix, offset, order=1)
        rows = np.arange(side, dtype=np.float32)[:, None]
        cast *= np.clip((rows / side - limit) * 40, 0, 1)
        near = np.exp(-(((rows - g - 0.5) / (side * 0.014)) ** 2))
        touching = small[max(0, int(g - side * 0.06)) : int(g) + 1].max(0, initial=0.0)
        contact = ndimage.gaussian_filter1d(touching, side * 0.012)[None] * near
        soft = ndimage.gaussian_filter(cast, side * 0.011)
        shade = np.clip(0.5 * soft + 0.42 * contact, 0, 0.72)
        wide = np.asarray(Image.fromarray(shade).resize((_PX, _PX), Image.Resampling.BILINEAR))
        self._darken(np.where(self._mask, np.float32(1), 1 - wide))

    def _darken(self, factor: Grey) -> None:
        self.base *= factor[..., None]
        self.dye *= factor

    def shade(
        self,
        points: Points,
        colour: Colour | None,
        shape: Shape,
        *,
        bevel: float,
        normal: Colour,
        gloss: float,
        texture: str = "",
        scale: float = 0.1,
        drop: float = 0.0,
    ) -> None:
        """Fill the polygon `points` (N, 2), lit as the front of `shape`.

        Lambert's diffuse term, Blinn's (1977) specular one, and light from the sky at grazing
        angles. colour: None for what a caption dyes. bevel: width of the round rim of a flat part,
        in shares of the page; normal: of a flat part, towards the viewer is +z. gloss: weight of
        the highlight. scale: of the texture, in shares of the page. drop: depth of the shadow that
        the part throws on the same thing's parts behind it.
        """
        area = _window(points, margin=6 if drop else 1)
        if area is None:
            return
        rows, columns = area
        cover = _cover(points, area)
        if drop:
            self._drop_shadow(area, cover, drop)
        normals = _normals(points, area, cover, shape, bevel=bevel, flat=normal)
        facing = np.clip(normals @ LIGHT, 0, 1)
        sky = 0.5 - 0.5 * normals[..., 1]
        lit = AMBIENT * (0.72 + 0.42 * sky) + LAMP * facing
        if texture:
            y, x = np.mgrid[rows, columns].astype(np.float32) / _PX
            low = points.min(0)
            lit *= textures.TEXTURES[texture]((x - low[0]) / scale, (y - low[1]) / scale)
        shine = gloss * np.clip(normals @ _HALF, 0, 1) ** (12 + 50 * gloss)
        shine += 0.16 * gloss * (1 - np.clip(normals[..., 2], 0, 1)) ** 3 * sky
        light = cover[..., None]
        self.base[area] *= 1 - light
        self.dye[area] *= 1 - cover
        inside = cover > 0.5
        if colour is None:
            self.base[area] += (light * shine[..., None]).astype(np.float32)
            self.dye[area] += cover * lit
            self.slot[area][inside] = self._things
        else:
            paint = np.array(colour, np.float32) * lit[..., None] + shine[..., None]
            self.base[area] += (light * np.minimum(paint, 1)).astype(np.float32)
            self.slot[area][inside] = 0
        self._mask[area] |= inside

    def _drop_shadow(self, area: tuple[slice, slice], cover: Grey, depth: float) -> None:
        step = max(1, round(0.008 * _PX))
        moved = np.zeros_like(cover)
        moved[step:, step:] = cover[:-step, :-step]
        soft = ndimage.uniform_filter(ndimage.uniform_filter(moved, 2 * step + 1), 2 * step + 1)
        factor = np.where(self._mask[area], 1 - depth * soft, 1).astype(np.float32)
        self.base[area] *= factor[..., None]
        self.dye[area] *= factor

    def fill(self, picture: npt.NDArray[np.float32]) -> None:
        """Paint the background, (px, px, 3) in 0 to 1."""
        self.base[:] = picture

    def glow(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """A halo that fades to nothing at about two radii."""
        y, x = np.ogrid[:_PX, :_PX]
        far = ((x / _PX - centre[0]) ** 2 + (y / _PX - centre[1]) ** 2) / (radius * 1.5) ** 2
        share = (0.5 * np.exp(-far)).astype(np.float32)
        self.base += share[..., None] * (np.array(colour, np.float32) - self.base)

    def restore(self, points: Points, earlier: Layers) -> None:
        """Show again, within the polygon, what `layers` returned earlier: a hole in a thing."""
        area = _window(points, margin=1)
        if area is None:
            return
        inside = _cover(points, area) > 0.5
        self.base[area][inside] = earlier.base[area][inside]
        self.dye[area][inside] = earlier.dye[area][inside]
        self.slot[area][inside] = earlier.slot[area][inside]
        self._mask[area] &= ~inside

    def layers(self) -> Layers:
        """A copy for `restore`."""
        return Layers(self.base.copy(), self.dye.copy(), self.slot.copy())

    def stroke(self, points: Points, *, closed: bool = False) -> None:
        """One line of the sketch through `points` (N, 2), never quite straight."""
        self._one_stroke(points, closed)
        if self.random.random() < self.pen.twice:
            self._one_stroke(points, closed)

    def _one_stroke(self, points: Points, closed: bool) -> None:
        pen, random = self.pen, self.random
        way = np.concatenate([points, points[:1]]) if closed else np.asarray(points)
        lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        total = float(lengths[-1])
        if total < 1e-4:
            return
        begin = -pen.overshoot if not closed else 0.0
        count, knots = max(int(total * 120), 8), max(int(total * 8), 3)
        along = np.linspace(begin, total - begin, count)
        line = np.stack([np.interp(along, lengths, way[:, axis]) for axis in (0, 1)], axis=1)
        for sway, places in ((pen.wobble, knots), (pen.shake, max(int(total * 45), 4))):
            if sway:
                bend = random.normal(0, min(sway, total * 0.03), (places, 2))
                if closed and pen.overshoot == 0:
                    bend[-1] = bend[0]
                at = np.linspace(begin, total - begin, places)
                line += np.stack([np.interp(along, at, bend[:, axis]) for axis in (0, 1)], axis=1)
        width = max(2, round(pen.width_px * OVERSAMPLING * random.uniform(0.9, 1.1)))
        for piece in _pieces(line * _PX, pen.gaps, total, random):
            way_px = [(float(x), float(y)) for x, y in piece]
            self._draw.line(way_px, fill=255, width=width, joint="curve")
            for x, y in (way_px[0], way_px[-1]):
                r = width / 2 - 0.5
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def erase(self, points: Points) -> None:
        """Remove the sketch lines behind the polygon `points`."""
        self._draw.polygon([(x * _PX, y * _PX) for x, y in points], fill=0)

    def finished(
        self,
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """base (SIDE_PX, SIDE_PX, 3), dye and slot (SIDE_PX, SIDE_PX), uint8.

        dye: 170 is full light. slot: the number of the thing that is dyed there, 0 for none.
        """
        base = np.asarray(_reduced(np.clip(self.base, 0, 1) * 255))
        dye = np.asarray(_reduced(np.clip(self.dye, 0, 1.5) * DYE_FULL))
        blocks = self.slot.reshape(SIDE_PX, OVERSAMPLING, SIDE_PX, OVERSAMPLING)
        return base, dye, np.asarray(blocks.max((1, 3)))

    def finished_sketch(self) -> npt.NDArray[np.uint8]:
        """(SIDE_PX, SIDE_PX), white lines on black with soft edges."""
        return np.asarray(self._sketch.reduce(OVERSAMPLING))


DYE_FULL = 170.0
"""The value of `dye` in uint8 where the light is 1; highlights go to 1.5."""


def _reduced(exact: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray((exact + 0.5).astype(np.uint8)).reduce(OVERSAMPLING)


def _pieces(line: Points, gaps: float, total: float, random: np.random.Generator) -> list[Points]:
    """`line` without some short pieces that are `gaps` of it in all."""
    if gaps <= 0 or random.random() > 0.6:
        return [line]
    holes = max(1, int(total * 3 * random.random()))
    width = max(1, int(len(line) * min(gaps / holes, 0.2)))
    keep = np.ones(len(line), np.bool_)
    for _ in range(holes):
        start = int(random.integers(len(line)))
        keep[start : start + width] = False
    cuts = np.flatnonzero(np.diff(keep.astype(np.int8))) + 1
    parts = np.split(np.arange(len(line)), cuts)
    return [line[part] for part in parts if keep[part[0]] and len(part) > 1]


def _window(points: Points, *, margin: int) -> tuple[slice, slice] | None:
    low = np.clip(np.floor(points.min(0) * _PX).astype(int) - margin, 0, _PX)
    high = np.clip(np.ceil(points.max(0) * _PX).astype(int) + 2 * margin, 0, _PX)
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _cover(points: Points, area: tuple[slice, slice]) -> Grey:
    """float32 within the window, 1 inside the polygon and 0 outside."""
    rows, columns = area
    mask = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start), 0)
    corners = [(float(x * _PX - columns.start), float(y * _PX - rows.start)) for x, y in points]
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    return np.asarray(mask, np.float32)


def _normals(
    points: Points,
    area: tuple[slice, slice],
    cover: Grey,
    shape: Shape,
    *,
    bevel: float,
    flat: Colour,
) -> Grey:
    """(rows, columns, 3) unit normals towards the viewer of `shape` seen from the front."""
    rows, columns = area
    if shape == "pillow" or (shape == "flat" and bevel > 0):
        normals = _inflated(cover, bevel)
        if shape == "flat":
            normals = normals + (np.array(flat, np.float32) - (0, 0, 1)).astype(np.float32)
    elif shape == "flat":
        normals = np.broadcast_to(np.array(flat, np.float32), (*cover.shape, 3))
    else:
        low, high = points.min(0), points.max(0)
        centre, half = (low + high) / 2, (high - low) / 2 + 1e-5
        x = ((np.arange(columns.start, columns.stop) + 0.5) / _PX - centre[0]) / half[0]
        y = ((np.arange(rows.start, rows.stop) + 0.5) / _PX - centre[1]) / half[1]
        u, v = (g.astype(np.float32) for g in np.meshgrid(x, y))
        if shape == "ball":
            rim = np.clip(u * u + v * v, 0, 1)
            normals = np.stack([u, v, np.sqrt(1 - rim) + 0.08], -1)
        elif shape == "tube":
            across = np.clip(u, -1, 1)
            normals = np.stack([across, 0 * u, np.sqrt(1 - across**2) + 0.12], -1)
        else:
            across = np.clip(u / np.clip((v + 1) / 2, 0.02, 1), -1, 1)
            normals = np.stack([across, -0.35 + 0 * u, np.sqrt(1 - across**2) + 0.1], -1)
    unit = normals / np.sqrt((normals * normals).sum(-1, keepdims=True))
    return np.asarray(unit, np.float32)


def _inflated(cover: Grey, bevel: float) -> Grey:
    """Normals of a surface that rises from the outline as a quarter circle of radius `bevel`."""
    step = 2 if min(cover.shape) > 24 else 1
    small = np.pad(cover[::step, ::step], 1)
    away = ndimage.distance_transform_edt(small).astype(np.float32)
    radius = max(bevel * _PX / step, 1.5)
    climb = np.clip(away / radius, 0, 1)
    height = radius * np.sqrt(1 - (1 - climb) ** 2)
    height = ndimage.gaussian_filter(height, max(0.8, radius * 0.16))
    down, across = np.gradient(height)
    thin = np.stack([-across, -down, np.ones_like(across)], -1)[1:-1, 1:-1]
    if step == 1:
        return np.asarray(thin, np.float32)
    return np.asarray(
        np.repeat(np.repeat(thin, step, 0), step, 1)[: cover.shape[0], : cover.shape[1]], np.float32
    )
