"""Outlines: polygons of (N, 2) float32 points, in whatever coordinates their arguments have."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating[Any]]
Outline = Sequence[tuple[float, float]] | Points

QUARTER = np.pi / 2


def ellipse(
    x: float, y: float, rx: float, ry: float, *, begin: float = 0.0, end: float = 2 * np.pi
) -> Points:
    """Points counter-clockwise about (x, y), from angle `begin` to `end`, y up."""
    closed = end - begin > 6.28
    angle = np.linspace(begin, end, 40, endpoint=not closed)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1).astype(np.float32)


def box(left: float, bottom: float, right: float, top: float) -> Points:
    """The corners of an upright rectangle."""
    return np.array([(left, bottom), (left, top), (right, top), (right, bottom)], np.float32)


def rounded(left: float, bottom: float, right: float, top: float, radius: float) -> Points:
    """A rectangle with round corners."""
    r = min(radius, (right - left) / 2, (top - bottom) / 2)
    corners = ((right - r, top - r), (left + r, top - r), (left + r, bottom + r))
    arcs = [*corners, (right - r, bottom + r)]
    angle = np.linspace(0, QUARTER, 8)
    parts = [
        np.stack([x + r * np.cos(angle + k * QUARTER), y + r * np.sin(angle + k * QUARTER)], 1)
        for k, (x, y) in enumerate(arcs)
    ]
    return np.concatenate(parts).astype(np.float32)


def smooth(points: Outline, *, closed: bool = True, steps: int = 10) -> Points:
    """A curve through all `points` (Catmull and Rom 1974)."""
    knots = np.asarray(points, np.float32)
    if closed:
        knots = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        knots = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[None, :, None]
    p0, p1, p2, p3 = (knots[k : len(knots) - 3 + k, None] for k in range(4))
    curve = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    flat = curve.reshape(-1, 2)
    return np.asarray(flat if closed else np.concatenate([flat, knots[-2:-1]]), np.float32)


def band(points: Outline, widths: float | Sequence[float], *, curved: bool = True) -> Points:
    """The outline of a band along `points`: a leg, a tail, a handle.

    widths: half its width, one for all or one per point.
    """
    way = np.asarray(points, np.float32)
    half = np.broadcast_to(np.asarray(widths, np.float32), len(way))
    if curved and len(way) > 2:
        both = np.concatenate([way, half[:, None]], 1)
        way = smooth(way, closed=False, steps=8)
        at = np.linspace(0, len(both) - 1, len(way))
        half = np.interp(at, np.arange(len(both)), both[:, 2]).astype(np.float32)
    along = np.gradient(way, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-6
    across = np.stack([-along[:, 1], along[:, 0]], 1) * half[:, None]
    tip, start = float(half[-1]), float(half[0])
    caps = [
        _cap(way[-1], along[-1], tip),
        _cap(way[0], -along[0], start),
    ]
    return np.concatenate([way + across, caps[0], (way - across)[::-1], caps[1]]).astype(np.float32)


def _cap(end: Points, outwards: Points, radius: float) -> Points:
    """Half a circle at the end of a band, from its left side to its right."""
    angle = np.linspace(QUARTER, -QUARTER, 7)[1:-1, None]
    left = np.array([-outwards[1], outwards[0]], np.float32)
    return np.asarray(end + radius * (np.cos(angle) * outwards + np.sin(angle) * left), np.float32)


def turned(points: Outline, angle: float, about: tuple[float, float] = (0.0, 0.0)) -> Points:
    """`points` turned counter-clockwise by `angle` radians, y up."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, sine], [-sine, cosine]], np.float32)
    return np.asarray((np.asarray(points, np.float32) - about) @ matrix + about, np.float32)


def moved(points: Outline, x: float, y: float) -> Points:
    """`points` shifted by (x, y)."""
    return np.asarray(np.asarray(points, np.float32) + np.array((x, y), np.float32))


def mirrored(points: Outline) -> Points:
    """`points` with left and right exchanged about x = 0."""
    return np.asarray(np.asarray(points, np.float32) * np.array((-1, 1), np.float32))


def profile(half_widths: Sequence[tuple[float, float]], *, lip: float = 0.0) -> Points:
    """The outline of a turned body (vase, bottle) from (half width, height) pairs, bottom first.

    lip: how far its foot bulges downwards, as a round foot seen from above.
    """
    right = smooth(half_widths, closed=False, steps=6)
    left = mirrored(right)[::-1]
    foot = ellipse(0, float(right[0, 1]), float(right[0, 0]), lip, begin=np.pi)
    return np.concatenate([right, left, foot[1:-1]]).astype(np.float32)
