"""Houses, plants, vehicles, and what is in the sky."""

from itertools import pairwise

import numpy as np

from tools.demo.brush import (
    BLACK,
    CREAM,
    DARK_WOOD,
    GLASS,
    GOLD,
    LEAF,
    METAL,
    SIDE,
    TYRE,
    WHITE,
    WOOD,
    Brush,
)  # fmt: skip
from tools.demo.scene import Colour
from tools.demo.shapes import Points, box, ellipse, mirrored, moved, rounded, smooth, turned

TILES: Colour = (0.68, 0.32, 0.24)
LAMP_LIGHT: Colour = (1.0, 0.94, 0.7)


def _window(brush: Brush, x: float, low: float, pane: float, *, cross: bool) -> None:
    brush.slab(box(x - pane, low, x + pane, low + 2 * pane), WHITE, bevel=0.03)
    rim = pane * 0.2
    brush.slab(
        box(x - pane + rim, low + rim, x + pane - rim, low + 2 * pane - rim), GLASS,
        normal=(-0.3, -0.3, 0.9), gloss=0.6, bevel=0, drop=0.4, outlined=False,
    )  # fmt: skip
    if cross:
        brush.line([(x, low), (x, low + 2 * pane)], rim * 0.4, WHITE)
        brush.line([(x - pane, low + pane), (x + pane, low + pane)], rim * 0.4, WHITE)


def house(brush: Brush) -> None:
    random = brush.random
    half, wall = random.uniform(0.75, 1.0), random.uniform(0.95, 1.25)
    roof, eaves = random.uniform(0.65, 0.95), half * random.uniform(1.08, 1.2)
    if brush.chance(0.45):
        chimney = half * random.uniform(0.35, 0.55)
        brush.slab(box(chimney, wall, chimney + 0.22, wall + roof * 0.95), (0.62, 0.36, 0.3),
                   texture="bricks")  # fmt: skip
    brush.slab(box(-half, 0, half, wall), bevel=0.02, gloss=0, drop=0.2)
    brush.slab([(-eaves, wall), (0, wall + roof), (eaves, wall)], TILES, texture="tiles",
               normal=(-0.2, -0.5, 0.8), bevel=0.04, gloss=0)  # fmt: skip
    door, leaf = random.uniform(-0.45, 0.45) * half, half * 0.19
    brush.slab(box(door - leaf, 0, door + leaf, wall * 0.58), DARK_WOOD, texture="wooden")
    if brush.chance(0.5):
        brush.part(ellipse(door + leaf * 0.6, wall * 0.28, 0.035, 0.035), GOLD, "ball", drop=0)
    for side in (-1, 1):
        centre, pane = side * half * 0.62, half * 0.18
        if abs(centre - door) > leaf + pane + 0.03 and brush.chance(0.9):
            _window(brush, centre, wall * 0.42, pane, cross=brush.chance(0.5))
    if brush.chance(0.25):
        brush.part(ellipse(0, wall + roof * 0.35, 0.13, 0.13), GLASS, bevel=0.02, gloss=0.5)


def tree(brush: Brush) -> None:
    random, trunk = brush.random, brush.random.uniform(0.1, 0.17)
    if brush.chance(0.65):
        brush.part(smooth([(-trunk * 1.8, 0), (-trunk, 0.3), (-trunk * 0.9, 1.1),
                           (trunk * 0.9, 1.1),
                           (trunk, 0.3), (trunk * 1.8, 0)], steps=5), WOOD, bevel=0.12,
                   texture="wooden", gloss=0)  # fmt: skip
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        waves = random.integers(5, 10) if brush.chance(0.75) else 0
        bulge = 0.78 * (1 + (0.09 * np.abs(np.cos(waves * angle / 2)) if waves else 0 * angle))
        crown = np.stack([bulge * np.cos(angle), 1.45 + 0.92 * bulge * np.sin(angle)], 1)
        brush.part(crown, bevel=0.75, texture="leafy", gloss=0.0)
        return
    brush.slab(box(-trunk, 0, trunk, 0.6), WOOD, texture="wooden", gloss=0)
    for tier in range(3):
        half, low = 0.76 - 0.16 * tier, 0.45 + 0.48 * tier
        skirt = ellipse(0, low, half, 0.07, begin=np.pi)
        fir = np.concatenate([skirt, [(0, low + 0.82)]])
        brush.part(fir, None, "cone", texture="leafy", gloss=0)


def flower(brush: Brush) -> None:
    brush.limb([(0, 0), (0.03, 0.7), (0, 1.4)], 0.05, LEAF)
    for side in (-1, 1):
        if brush.chance(0.65):
            leaf = moved(turned(ellipse(0.3, 0, 0.34, 0.12), 0.5), 0.02, 0.42)
            brush.part(leaf if side > 0 else mirrored(leaf), LEAF, bevel=0.1)
    petals = int(brush.random.integers(5, 9))
    width = min(0.26, 1.25 / petals)
    for angle in 0.3 + np.arange(petals) * 2 * np.pi / petals:
        brush.part(
            moved(turned(ellipse(0.42, 0, 0.27, width), angle), 0, 1.5), bevel=0.16, gloss=0.1
        )
    brush.part(ellipse(0, 1.5, 0.21, 0.21), (0.95, 0.76, 0.2), "ball", gloss=0.05)


def tulip(brush: Brush) -> None:
    brush.limb([(0, 0), (0.03, 0.7), (0, 1.3)], 0.05, LEAF)
    for side in (-1, 1):
        leaf = smooth(
            [(side * 0.03, 0.05), (side * 0.3, 0.5), (side * 0.5, 1.1), (side * 0.16, 0.7)]
        )
        brush.part(leaf, LEAF, bevel=0.1)
    cup = [(0, 1.15), (-0.36, 1.3), (-0.44, 2.0), (-0.2, 1.78), (0, 2.05), (0.2, 1.78), (0.44, 2.0),
           (0.36, 1.3)]  # fmt: skip
    brush.part(smooth(cup, steps=6), bevel=0.32, gloss=0.15)


def mushroom(brush: Brush) -> None:
    half = brush.random.uniform(0.2, 0.3)
    stem = smooth([(-half * 1.2, 0.02), (-half * 0.85, 0.5), (-half * 0.85, 1), (half * 0.85, 1),
                   (half * 0.85, 0.5), (half * 1.2, 0.02)], steps=5)  # fmt: skip
    brush.part(stem, CREAM, bevel=half)
    low = ellipse(0, 0.85, 0.9, 0.15, begin=np.pi)
    dome = np.concatenate([ellipse(0, 0.85, 0.9, 0.85, end=np.pi), low])
    brush.part(dome, shape="ball", gloss=0.35)
    if brush.chance(0.6):
        for x, y, r in ((-0.45, 1.12, 0.13), (0.05, 1.42, 0.14), (0.48, 1.1, 0.12)):
            brush.part(ellipse(x, y, r, r * 0.9), WHITE, bevel=0.05, drop=0.1)


def sun(brush: Brush) -> None:
    centre = brush.placed([(0, 0)])[0]
    gold: Colour = (1.0, 0.84, 0.3)
    brush.scene.glow((float(centre[0]), float(centre[1])), brush.size * 1.3, (1.0, 0.95, 0.7))
    turn, rays = brush.random.uniform(0, 1), int(brush.random.integers(8, 13))
    if brush.chance(0.8):
        for angle in turn + np.arange(rays) * 2 * np.pi / rays:
            out = np.array((np.cos(angle), np.sin(angle)))
            brush.line(np.stack([out * 1.3, out * 1.85]), 0.06, gold)
    disc = ellipse(0, 0, 1, 1)
    brush.part(disc, gold, "flat", bevel=0.5, normal=(0, -0.3, 0.9), gloss=0)


def cloud(brush: Brush) -> None:
    bumps = int(brush.random.integers(5, 9))
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    bulge = 0.98 + 0.24 * np.abs(np.sin(angle * bumps / 2 + 0.4))
    outline = np.stack([1.3 * bulge * np.cos(angle), 0.62 * bulge * np.sin(angle)], 1)
    white: Colour = (1.08, 1.09, 1.12)
    brush.part(outline, white, bevel=0.6, gloss=0)
    puffs = ((-0.8, -0.02, 0.46), (0.82, -0.06, 0.44), (0.36, 0.17, 0.44), (-0.26, 0.2, 0.46))
    for x, y, radius in puffs:
        puff = ellipse(x, y, radius * 1.1, radius * 0.9)
        brush.part(puff, white, bevel=0.7, gloss=0, drop=0.12, outlined=False)


def moon(brush: Brush) -> None:
    centre = brush.placed([(0, 0)])[0]
    brush.scene.glow((float(centre[0]), float(centre[1])), brush.size, (1.0, 0.98, 0.85))
    outer = ellipse(0, 0, 1, 1, begin=0.9, end=2 * np.pi - 0.9)
    inner = ellipse(0.55, 0, 0.8, 0.8, begin=1.4, end=2 * np.pi - 1.4)[::-1]
    brush.part(np.concatenate([outer, inner]), (0.98, 0.94, 0.75), bevel=0.3, gloss=0)


def star(brush: Brush) -> None:
    angle = np.pi / 2 + np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    points = np.stack([radius * np.cos(angle), 1 + radius * np.sin(angle)], 1)
    brush.part(points, bevel=0.3, gloss=0.4)


def _wheel(brush: Brush, x: float, radius: float, *, hub: bool) -> None:
    brush.part(ellipse(x, radius, radius, radius), TYRE, bevel=0.08, gloss=0.1)
    if hub:
        brush.part(ellipse(x, radius, radius * 0.5, radius * 0.5), METAL, bevel=0.06, gloss=0.6)


def car(brush: Brush) -> None:
    half, random = 1.25, brush.random
    wheel, roof = random.uniform(0.24, 0.29), random.uniform(1.15, 1.3)
    cabin = smooth([(-0.74, 0.66), (-0.46, roof - 0.06), (-0.2, roof), (0.3, roof),
                    (0.5, roof - 0.07),
                    (0.8, 0.66)], steps=6)  # fmt: skip
    brush.part(cabin, bevel=0.16, gloss=0.5)
    glass = {"normal": (-0.2, -0.35, 0.9), "gloss": 0.7, "bevel": 0.0, "drop": 0.0}
    for window in (
        [(-0.52, 0.7), (-0.32, roof - 0.12), (-0.02, roof - 0.1), (-0.02, 0.7)],
        [(0.08, 0.7), (0.08, roof - 0.1), (0.32, roof - 0.12), (0.56, 0.7)],
    ):
        brush.slab(window, (0.55, 0.72, 0.82), **glass)  # type: ignore[arg-type]
    body = smooth([(-half, 0.26), (-half - 0.02, 0.56), (-half * 0.8, 0.7), (-0.6, 0.75),
                   (0.7, 0.75),
                   (half * 0.86, 0.68), (half, 0.5), (half, 0.26), (0, 0.22)], steps=6)  # fmt: skip
    brush.part(body, bevel=0.2, gloss=0.55)
    brush.part(ellipse(-half + 0.1, 0.54, 0.09, 0.08), LAMP_LIGHT, "ball", gloss=0.6, drop=0)
    for x in (-0.72, 0.72):
        _wheel(brush, x, wheel, hub=brush.chance(0.75))


def bus(brush: Brush) -> None:
    half, top = brush.random.uniform(1.25, 1.5), brush.random.uniform(1.35, 1.6)
    brush.part(rounded(-half, 0.22, half, top, 0.16), bevel=0.12, gloss=0.5)
    count = int(brush.random.integers(3, 5))
    edges = np.linspace(-half + 0.12, half - 0.5, count + 1)
    for left, right in pairwise(edges):
        brush.slab(
            rounded(left + 0.04, top - 0.62, right - 0.04, top - 0.2, 0.05), GLASS, gloss=0.6,
            normal=(-0.25, -0.3, 0.9), bevel=0, drop=0,
        )  # fmt: skip
    brush.slab(rounded(half - 0.42, 0.3, half - 0.1, top - 0.2, 0.04), GLASS, gloss=0.6,
               normal=(-0.25, -0.3, 0.9), bevel=0, drop=0)  # fmt: skip
    brush.slab(box(-half, 0.5, half - 0.46, 0.6), CREAM, bevel=0, drop=0, outlined=False)
    for x in (-half * 0.6, half * 0.55):
        _wheel(brush, x, 0.26, hub=brush.chance(0.75))


def bicycle(brush: Brush) -> None:
    wheel, front, back = 0.55, 0.95, -0.95
    for x in (back, front):
        ring = ellipse(x, wheel, wheel, wheel)
        closed = np.concatenate([ring, ring[:1]])
        for spoke in np.arange(8) * np.pi / 4 if brush.chance(0.4) else ():
            end = (x + wheel * np.cos(spoke), wheel + wheel * np.sin(spoke))
            brush.line([(x, wheel), end], 0.012, METAL)
        brush.line(closed, 0.055, TYRE)
    pedals, seat, head = (-0.12, 0.5), (-0.38, 1.22), (0.62, 1.2)
    frame: tuple[tuple[tuple[float, float], ...], ...] = (
        ((back, wheel), pedals), ((back, wheel), seat), (pedals, seat), (pedals, head),
        (seat, head),
        (head, (front, wheel)),
    )  # fmt: skip
    for tube in frame:
        brush.limb(list(tube), 0.06)
    brush.limb([seat, (-0.44, 1.42)], 0.045, METAL)
    brush.part(smooth([(-0.72, 1.44), (-0.4, 1.54), (-0.16, 1.46), (-0.4, 1.4)]), BLACK, bevel=0.06)
    brush.limb([head, (0.56, 1.5), (0.78, 1.6), (0.92, 1.52)], 0.045, METAL)
    brush.part(ellipse(*pedals, 0.13, 0.13), METAL, bevel=0.05, gloss=0.6)


def train(brush: Brush) -> None:
    brush.slab(box(0.3, 0.35, 1.25, 1.55), gloss=0.4)
    brush.slab(box(0.18, 1.5, 1.37, 1.68), (0.22, 0.22, 0.25))
    brush.slab(box(0.5, 0.95, 1.05, 1.36), GLASS, gloss=0.6, normal=(-0.2, -0.3, 0.9), bevel=0)
    brush.part([(-0.95, 0.98), (-1.05, 1.5), (-0.6, 1.5), (-0.7, 0.98)], (0.22, 0.22, 0.25), "tube")
    brush.part(rounded(-1.25, 0.42, 0.32, 1.08, 0.12), bevel=0.3, gloss=0.5)
    brush.slab(box(-1.35, 0.28, 1.3, 0.44), (0.22, 0.22, 0.25))
    for x, radius in ((-0.9, 0.22), (-0.3, 0.22), (0.75, 0.34)):
        brush.part(ellipse(x, radius, radius, radius), (0.3, 0.3, 0.33), bevel=0.06, gloss=0.4)
        brush.part(ellipse(x, radius, radius * 0.4, radius * 0.4), METAL, bevel=0.06, gloss=0.5)


def boat(brush: Brush) -> None:
    half = 1.08
    brush.slab(box(-0.035, 0.4, 0.035, 2.0), WOOD)
    brush.part([(0.07, 1.92), (0.07, 0.6), (half * 0.85, 0.6)], WHITE, bevel=0.1, gloss=0,
               normal=(-0.2, -0.2, 1))  # fmt: skip
    if brush.chance(0.65):
        brush.part([(-0.07, 1.66), (-0.07, 0.6), (-half * 0.66, 0.6)], WHITE, bevel=0.1, gloss=0)
    hull = np.array([(-half, 0.5), (half, 0.5), (half * 0.9, 0.2), (half * 0.66, 0),
                     (-half * 0.66, 0),
                     (-half * 0.9, 0.2)], np.float32)  # fmt: skip
    brush.part(hull, bevel=0.2, gloss=0.4)


def rocket(brush: Brush) -> None:
    for side in (-1, 1):
        fin = smooth([(side * 0.3, 0.75), (side * 0.75, 0.3), (side * 0.72, 0.02),
                      (side * 0.3, 0.3)],
                     steps=5)  # fmt: skip
        brush.part(fin, (0.3, 0.32, 0.36), bevel=0.08)
    flame = smooth([(-0.2, 0.25), (-0.22, 0.0), (0, -0.4), (0.22, 0.0), (0.2, 0.25)])
    brush.part(flame, (1.0, 0.66, 0.18), "flat", bevel=0, normal=(-0.4, -0.6, 0.6))
    body = smooth(
        [(-0.28, 0.2), (-0.4, 0.8), (-0.34, 1.4), (0, 2.1), (0.34, 1.4), (0.4, 0.8), (0.28, 0.2)]
    )
    brush.part(body, bevel=0.38, gloss=0.6)
    brush.part(ellipse(0, 1.15, 0.17, 0.17), METAL, bevel=0.05, gloss=0.5)
    brush.part(ellipse(0, 1.15, 0.11, 0.11), GLASS, "ball", gloss=0.7, drop=0)


def balloon(brush: Brush) -> None:
    """A hot-air balloon."""
    for side in (-1, 1):
        brush.line([(side * 0.3, 0.72), (side * 0.18, 0.36)], 0.015, DARK_WOOD)
    brush.slab(rounded(-0.2, 0, 0.2, 0.38, 0.06), WOOD, texture="woollen")
    envelope = smooth([(-0.26, 0.7), (-0.82, 1.3), (-0.72, 1.9), (0, 2.24), (0.72, 1.9),
                       (0.82, 1.3),
                       (0.26, 0.7)])  # fmt: skip
    brush.part(envelope, bevel=0.75, gloss=0.3)
    for bend in (-0.45, 0.0, 0.45):
        curve = [(bend * 0.4, 0.68), (bend, 1.35), (bend * 0.8, 1.9), (0, 2.22)]
        brush.stroke(smooth(curve, closed=False))


def plane(brush: Brush) -> None:
    brush.part([(-0.95, 0.95), (-1.3, 1.5), (-1.05, 1.5), (-0.6, 1.0)], bevel=0.06, gloss=0.4)
    brush.part([(0.1, 1.0), (-0.25, 1.5), (-0.05, 1.5), (0.5, 1.02)], METAL, bevel=0.05, gloss=0.5)
    body = smooth([(-1.3, 0.9), (-1.1, 1.1), (0.6, 1.12), (1.15, 0.98), (1.3, 0.8), (1.0, 0.64),
                   (0, 0.62), (-0.9, 0.72)])  # fmt: skip
    brush.part(body, bevel=0.24, gloss=0.5)
    for x in np.linspace(-0.6, 0.6, 5):
        brush.part(ellipse(x, 0.94, 0.06, 0.07), GLASS, bevel=0.02, drop=0)
    brush.slab([(0.25, 0.8), (-0.5, 0.22), (-0.25, 0.2), (0.6, 0.78)], METAL, gloss=0.5)


def castle(brush: Brush) -> None:
    def battlements(left: float, right: float, low: float, teeth: int) -> Points:
        xs = np.linspace(left, right, 2 * teeth)
        tops = []
        for k in range(0, 2 * teeth, 2):
            tops += [(xs[k], low + 0.16), (xs[k + 1], low + 0.16)]
            if k + 2 < 2 * teeth:
                tops += [(xs[k + 1], low), (xs[k + 2], low)]
        return np.array([(left, 0), *tops, (right, 0)], np.float32)

    brush.slab(battlements(-0.75, 0.75, 1.0, 5), texture="bricks", gloss=0, bevel=0.02)
    for x in (-0.9, 0.9):
        brush.part(
            battlements(x - 0.32, x + 0.32, 1.45, 3), None, "tube", texture="bricks", gloss=0
        )
        brush.slab(rounded(x - 0.08, 0.95, x + 0.08, 1.25, 0.08), BLACK, bevel=0)
    gate = np.concatenate([ellipse(0, 0.4, 0.26, 0.28, end=np.pi), [(-0.26, 0), (0.26, 0)]])
    brush.slab(gate, DARK_WOOD, texture="wooden")
    if brush.chance(0.5):
        brush.line([(0.9, 1.6), (0.9, 2.1)], 0.02, DARK_WOOD)
        brush.slab([(0.92, 2.1), (1.35, 1.97), (0.92, 1.84)], (0.85, 0.2, 0.18), bevel=0.02)


def tent(brush: Brush) -> None:
    brush.slab([(0.1, 1.5), (1.0, 1.3), (1.7, 0.16), (0.95, 0)], normal=SIDE, bevel=0.03, gloss=0)
    brush.slab([(-0.95, 0), (0.1, 1.5), (0.95, 0)], normal=(-0.2, -0.1, 1), bevel=0.03, gloss=0)
    brush.slab([(-0.25, 0), (0.1, 1.0), (0.42, 0)], (0.2, 0.17, 0.15), bevel=0)
