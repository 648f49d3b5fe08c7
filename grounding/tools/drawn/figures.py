"""Outlines of everything that a scene can hold.

Coordinates are about (0, 0) with a radius near 1, y down. A figure is a list of polygons with the
part that each plays: "main" in the thing's colour, "shade" darker, "light" paler, "dark" nearly
black, "hole" showing the ground. Later polygons lie over earlier ones.
"""

import math
import random
from collections.abc import Callable

Point = tuple[float, float]
Figure = list[tuple[str, list[Point]]]


def ellipse(x: float, y: float, rx: float, ry: float, corners: int = 40) -> list[Point]:
    """Points around an ellipse."""
    turns = [2 * math.pi * k / corners for k in range(corners)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in turns]


def box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    """The corners of a rectangle."""
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _spokes(count: int, inner: float) -> list[Point]:
    angles = [-math.pi / 2 + k * math.pi / count for k in range(2 * count)]
    reach = [1.0, inner] * count
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def _circle(rng: random.Random) -> Figure:
    return [("main", ellipse(0, 0, 1, 1))]


def _square(rng: random.Random) -> Figure:
    return [("main", box(-0.85, -0.85, 0.85, 0.85))]


def _triangle(rng: random.Random) -> Figure:
    angles = [-math.pi / 2 + k * 2 * math.pi / 3 for k in range(3)]
    return [("main", [(math.cos(a), math.sin(a)) for a in angles])]


def _star(rng: random.Random) -> Figure:
    return [("main", _spokes(5, rng.uniform(0.38, 0.48)))]


def _ring(rng: random.Random) -> Figure:
    inner = rng.uniform(0.45, 0.68)
    return [("main", ellipse(0, 0, 1, 1)), ("hole", ellipse(0, 0, inner, inner))]


def _cross(rng: random.Random) -> Figure:
    t = rng.uniform(0.25, 0.38)
    quarter = [(-t, -1.0), (t, -1.0), (t, -t)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [("main", [point for part in turned for point in part])]


def _heart(rng: random.Random) -> Figure:
    turns = [2 * math.pi * k / 40 for k in range(40)]
    depth = [
        13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        for t in turns
    ]
    return [("main", [(math.sin(t) ** 3, -d / 16) for t, d in zip(turns, depth, strict=True)])]


def _arrow(rng: random.Random) -> Figure:
    w, h = rng.uniform(0.2, 0.3), rng.uniform(0.6, 0.8)
    head = [(0.1, -h), (1.0, 0.0), (0.1, h)]
    return [("main", [(-1.0, -w), (0.1, -w), *head, (0.1, w), (-1.0, w)])]


def _house(rng: random.Random) -> Figure:
    door = rng.uniform(-0.45, 0.2)
    return [
        ("main", box(-0.72, -0.2, 0.72, 0.95)),
        ("shade", [(-0.95, -0.2), (0.0, -0.95), (0.95, -0.2)]),
        ("dark", box(door, 0.35, door + 0.3, 0.95)),
    ]


def _tree(rng: random.Random) -> Figure:
    trunk = ("dark", box(-0.14, 0.1, 0.14, 1.0))
    if rng.random() < 0.5:
        return [trunk, ("main", ellipse(0, -0.35, rng.uniform(0.6, 0.8), 0.65))]
    top = [(0.0, -1.0), (0.7, 0.0), (-0.7, 0.0)]
    return [trunk, ("main", [(x, y * 0.8 + 0.45) for x, y in top]), ("main", top)]


def _sun(rng: random.Random) -> Figure:
    rays = rng.choice((8, 10, 12))
    return [("main", _spokes(rays, 0.66)), ("light", ellipse(0, 0, 0.5, 0.5))]


def _boat(rng: random.Random) -> Figure:
    return [
        ("dark", box(-0.05, -1.0, 0.05, 0.4)),
        ("main", [(-1.0, 0.35), (1.0, 0.35), (0.65, 0.95), (-0.65, 0.95)]),
        ("light", [(0.1, -0.95), (0.8, 0.2), (0.1, 0.2)]),
    ]


def _car(rng: random.Random) -> Figure:
    return [
        ("main", [(-0.55, 0.0), (-0.3, -0.5), (0.4, -0.5), (0.65, 0.0)]),
        ("main", box(-1.0, -0.05, 1.0, 0.4)),
        ("light", [(-0.35, -0.05), (-0.2, -0.38), (0.3, -0.38), (0.45, -0.05)]),
        ("dark", ellipse(-0.55, 0.4, 0.24, 0.24, 20)),
        ("dark", ellipse(0.55, 0.4, 0.24, 0.24, 20)),
    ]


def _fish(rng: random.Random) -> Figure:
    return [
        ("main", [(0.3, 0.0), (1.0, -0.5), (1.0, 0.5)]),
        ("main", ellipse(-0.25, 0, 0.75, rng.uniform(0.38, 0.5))),
        ("dark", ellipse(-0.65, -0.1, 0.09, 0.09, 12)),
    ]


def _flower(rng: random.Random) -> Figure:
    petals = rng.choice((5, 6, 7))
    size = 1.7 / petals
    turns = [2 * math.pi * k / petals for k in range(petals)]
    around: Figure = [
        ("main", ellipse(0.64 * math.cos(a), 0.64 * math.sin(a), size, size, 20)) for a in turns
    ]
    return [*around, ("light", ellipse(0, 0, 0.32, 0.32, 20))]


def _cloud(rng: random.Random) -> Figure:
    return [
        ("main", ellipse(-0.5, 0.15, 0.48, 0.38)),
        ("main", ellipse(0.5, 0.15, 0.48, 0.36)),
        ("main", ellipse(rng.uniform(-0.15, 0.15), -0.12, 0.52, 0.5)),
        ("main", box(-0.5, 0.1, 0.5, 0.5)),
    ]


def _moon(rng: random.Random) -> Figure:
    outer = [(math.cos(a), math.sin(a)) for a in (math.pi * (0.5 + k / 24) for k in range(25))]
    inner = rng.uniform(0.45, 0.65)
    return [("main", [(x + 0.4, y) for x, y in outer + [(x * inner, y) for x, y in outer[::-1]]])]


def _cup(rng: random.Random) -> Figure:
    return [
        ("main", ellipse(0.5, 0.0, 0.45, 0.42)),
        ("hole", ellipse(0.5, 0.0, 0.25, 0.24)),
        ("main", [(-0.85, -0.75), (0.5, -0.75), (0.35, 0.8), (-0.7, 0.8)]),
        ("shade", box(-0.85, -0.85, 0.5, -0.65)),
    ]


def _umbrella(rng: random.Random) -> Figure:
    dome = [(math.cos(a), math.sin(a)) for a in (math.pi * (1 + k / 24) for k in range(25))]
    scallops = [(0.66, 0.0), (0.5, -0.14), (0.33, 0.0), (0.0, -0.16), (-0.33, 0.0), (-0.5, -0.14)]
    return [
        ("dark", box(-0.06, -0.3, 0.06, 1.0)),
        ("dark", box(-0.3, 0.88, 0.06, 1.0)),
        ("main", [*dome, *scallops, (-0.66, 0.0)]),
    ]


def _mushroom(rng: random.Random) -> Figure:
    dome = [(math.cos(a), math.sin(a)) for a in (math.pi * (1 + k / 24) for k in range(25))]
    return [
        ("light", [(-0.28, -0.05), (0.28, -0.05), (0.38, 0.95), (-0.38, 0.95)]),
        ("main", [(x, y * 0.95 + 0.05) for x, y in dome]),
        ("light", ellipse(-0.35, -0.35, 0.14, 0.14, 16)),
        ("light", ellipse(0.3, -0.45, 0.14, 0.14, 16)),
    ]


FIGURES: dict[str, Callable[[random.Random], Figure]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "arrow": _arrow,
    "house": _house,
    "tree": _tree,
    "sun": _sun,
    "boat": _boat,
    "car": _car,
    "fish": _fish,
    "flower": _flower,
    "cloud": _cloud,
    "moon": _moon,
    "cup": _cup,
    "umbrella": _umbrella,
    "mushroom": _mushroom,
}
