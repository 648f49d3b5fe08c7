"""A page on which things are drawn twice: as a shaded picture and as a sketch.

Things are given in their own coordinates: x to the right, y up, feet at y = 0. Page coordinates are
shares of its side, x to the right, y down.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Points = npt.NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
Shape = Literal["flat", "ball", "tube", "cone"]

SIDE_PX = 128
OVERSAMPLING = 2
_PX = SIDE_PX * OVERSAMPLING

_ALONG = (np.arange(_PX, dtype=np.float32) + 0.5) / _PX
_Y, _X = np.meshgrid(_ALONG, _ALONG, indexing="ij")

LIGHT = np.array((-0.45, -0.65, 0.61), np.float32)
"""Unit vector to the lamp: from the upper left in front of the page, in every scene. Lines do not
show where the light is; if it moved, the model would learn an average, which is a blur."""

AMBIENT = 0.38


@dataclass
class Scene:
    """The picture and the sketch so far.

    pen_px: stroke width at `SIDE_PX`. wobble: standard deviation of a stroke's knots, in shares of
    the page. picture: (px, px, 3) float32 in 0 to 1. regions: where each thing's main part shows.
    """

    random: np.random.Generator
    pen_px: float = 1.9
    wobble: float = 0.003
    picture: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.zeros((_PX, _PX, 3), np.float32)
    )
    regions: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sketch = Image.new("L", (_PX, _PX), 0)
        self._pen = ImageDraw.Draw(self._sketch)

    def fill(
        self, horizon: float, above: tuple[Colour, Colour], below: tuple[Colour, Colour]
    ) -> None:
        """Paint the background: gradients of (upper, lower) colour that meet at `horizon`."""
        far = np.clip(_Y / horizon, 0, 1)[..., None]
        near = np.clip((_Y - horizon) / (1 - horizon), 0, 1)[..., None]
        upper = np.array(above[0]) * (1 - far) + np.array(above[1]) * far
        lower = np.array(below[0]) * (1 - near) + np.array(below[1]) * near
        self.picture = np.where(far < 1, upper, lower).astype(np.float32)

    def stroke(self, points: Points, *, closed: bool = False) -> None:
        """One line of the sketch through `points` (N, 2), never quite straight."""
        way = np.concatenate([points, points[:1]]) if closed else points
        lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        total = float(lengths[-1])
        count, knots = max(int(total * 70), 6), max(int(total * 8), 3)
        along = np.linspace(0, total, count)
        line = np.stack([np.interp(along, lengths, way[:, axis]) for axis in (0, 1)], axis=1)
        bend = self.random.normal(0, self.wobble, (knots, 2))
        if closed:
            bend[-1] = bend[0]
        at = np.linspace(0, total, knots)
        line += np.stack([np.interp(along, at, bend[:, axis]) for axis in (0, 1)], axis=1)
        width = max(1, round(self.pen_px * OVERSAMPLING))
        self._pen.line([(x * _PX, y * _PX) for x, y in line], fill=255, width=width, joint="curve")

    def erase(self, points: Points) -> None:
        """Remove the sketch lines behind the polygon `points`."""
        self._pen.polygon([(x * _PX, y * _PX) for x, y in points], fill=0)

    def shade(
        self, points: Points, colour: Colour, shape: Shape, normal: Colour, gloss: float
    ) -> None:
        """Fill the polygon `points` (N, 2) with `colour`, lit as the front of `shape`.

        Lambert's diffuse term and Blinn's (1977) specular one. normal: of a flat part, towards the
        viewer is +z. gloss: weight of the highlight.
        """
        box = self._box(points)
        if box is None:
            return
        rows, columns = box
        cover = self.cover(points)[box][..., None]
        u, v = self._within(points, _X[box], _Y[box])
        normals = _normals(u, v, shape, normal)
        lit = AMBIENT + (1.15 - AMBIENT) * np.clip(normals @ LIGHT, 0, 1)
        half = LIGHT + np.array((0, 0, 1), np.float32)
        shine = gloss * np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** 20
        paint = np.clip(np.array(colour, np.float32) * lit[..., None] + shine[..., None], 0, 1)
        under = self.picture[rows, columns]
        self.picture[rows, columns] = under * (1 - cover) + paint * cover

    def show(self, points: Points, *, main: bool) -> None:
        """Record that the polygon `points` hides what is behind it; `main`: add it to the last
        region."""
        box = self._box(points)
        if box is None:
            return
        inside = self.cover(points)[box] > 0.5
        for region in self.regions:
            region[box] &= ~inside
        if main:
            self.regions[-1][box] |= inside

    def begin_thing(self) -> None:
        """`show(main=True)` belongs to a new thing from now on."""
        self.regions.append(np.zeros((_PX, _PX), np.bool_))

    def darken(self, centre: tuple[float, float], radii: tuple[float, float], depth: float) -> None:
        """A soft shadow on the ground, an ellipse of `radii` about `centre`."""
        u = (_X - centre[0] - radii[0] * 0.2) / (radii[0] * 1.25)
        v = (_Y - centre[1]) / (radii[1] * 1.3)
        self.picture *= (1 - depth * np.clip(1.1 - u * u - v * v, 0, 1))[..., None]

    def glow(self, centre: tuple[float, float], radius: float, colour: Colour) -> None:
        """A halo that fades to nothing at about two radii."""
        far = ((_X - centre[0]) ** 2 + (_Y - centre[1]) ** 2) / (radius * 1.5) ** 2
        share = (0.5 * np.exp(-far))[..., None].astype(np.float32)
        self.picture = self.picture * (1 - share) + np.array(colour, np.float32) * share

    def finished_picture(self) -> npt.NDArray[np.uint8]:
        """(SIDE_PX, SIDE_PX, 3) sRGB."""
        exact = np.clip(self.picture, 0, 1) * 255
        small = exact.reshape(SIDE_PX, OVERSAMPLING, SIDE_PX, OVERSAMPLING, 3).mean((1, 3))
        return np.asarray(small.round(), np.uint8)

    def finished_sketch(self) -> npt.NDArray[np.uint8]:
        """(SIDE_PX, SIDE_PX), white lines on black with soft edges."""
        return np.asarray(self._sketch.reduce(OVERSAMPLING))

    def finished_regions(self) -> list[npt.NDArray[np.bool_]]:
        """(SIDE_PX, SIDE_PX) each, in the order of `begin_thing`."""
        blocks = (SIDE_PX, OVERSAMPLING, SIDE_PX, OVERSAMPLING)
        return [np.asarray(region.reshape(blocks).all((1, 3))) for region in self.regions]

    @staticmethod
    def _box(points: Points) -> tuple[slice, slice] | None:
        low = np.clip(np.floor(points.min(0) * _PX).astype(int) - 1, 0, _PX)
        high = np.clip(np.ceil(points.max(0) * _PX).astype(int) + 2, 0, _PX)
        if (high <= low).any():
            return None
        return slice(low[1], high[1]), slice(low[0], high[0])

    @staticmethod
    def cover(points: Points) -> npt.NDArray[np.float32]:
        """(px, px) float32, 1 within the polygon and 0 outside."""
        mask = Image.new("L", (_PX, _PX), 0)
        ImageDraw.Draw(mask).polygon([(x * _PX, y * _PX) for x, y in points], fill=255)
        return np.asarray(mask, np.float32) / np.float32(255)

    @staticmethod
    def _within(points: Points, x: Points, y: Points) -> tuple[Points, Points]:
        """Page coordinates as -1 to 1 across the polygon's bounding box."""
        low, high = points.min(0), points.max(0)
        centre, half = (low + high) / 2, (high - low) / 2 + 1e-5
        return (x - centre[0]) / half[0], (y - centre[1]) / half[1]


def _normals(u: Points, v: Points, shape: Shape, flat: Colour) -> Points:
    """(rows, columns, 3) unit normals towards the viewer of `shape` seen from the front."""
    if shape == "ball":
        rim = np.clip(u * u + v * v, 0, 1)
        normals = np.stack([u, v, np.sqrt(1 - rim) + 0.05], -1)
    elif shape == "tube":
        across = np.clip(u, -1, 1)
        normals = np.stack([across, 0 * u, np.sqrt(1 - across**2) + 0.05], -1)
    elif shape == "cone":
        across = np.clip(u / np.clip((v + 1) / 2, 0.02, 1), -1, 1)
        normals = np.stack([across, -0.35 + 0 * u, np.sqrt(1 - across**2) + 0.05], -1)
    else:
        normals = np.broadcast_to(np.array(flat, np.float32), (*u.shape, 3))
    unit = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.asarray(unit, np.float32)
