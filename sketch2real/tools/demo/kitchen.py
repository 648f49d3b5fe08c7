"""What stands on a table: dishes, fruit, plants in pots."""

import numpy as np

from tools.demo.brush import CREAM, GLASS, GOLD, LEAF, TOP, WHITE, WOOD, Brush
from tools.demo.scene import Colour
from tools.demo.shapes import band, ellipse, moved, profile, smooth, turned

COFFEE: Colour = (0.30, 0.18, 0.11)
CLAY: Colour = (0.76, 0.44, 0.30)
CORK: Colour = (0.72, 0.55, 0.38)


def _opening(brush: Brush, y: float, half: float, lip: float, inside: Colour | None) -> None:
    """The rim of a round vessel seen from above, and what is in it."""
    brush.part(ellipse(0, y, half, lip), None, "flat", bevel=0, normal=TOP, drop=0)
    dark: Colour = inside or (0.16, 0.13, 0.12)
    inner = ellipse(0, y - 0.015, half * 0.87, lip * 0.78)
    brush.part(inner, dark, "flat", bevel=0, normal=(0, -0.4, 0.6), outlined=False, drop=0)


def mug(brush: Brush) -> None:
    half, lip = brush.random.uniform(0.55, 0.75), brush.random.uniform(0.1, 0.2)
    top = 1.55
    flare = brush.random.uniform(0.9, 1.0)
    behind = brush.scene.layers()
    reach = brush.random.uniform(0.4, 0.55)
    arc = [(half * 0.9, 1.22), (half + reach * 0.75, 1.2), (half + reach, 0.82),
           (half + reach * 0.72, 0.42), (half * 0.88, 0.36)]  # fmt: skip
    width = brush.random.uniform(0.08, 0.11)
    inner = [(half * 0.9, 1.1), (half + reach * 0.62, 1.1), (half + reach * 0.78, 0.82),
             (half + reach * 0.6, 0.53), (half * 0.85, 0.48)]  # fmt: skip
    brush.part(band(arc, width), bevel=width)
    brush.hole(smooth(inner), behind)
    foot = ellipse(0, lip * 0.8, half * flare, lip * 0.8, begin=np.pi)
    brush.part(np.concatenate([foot, [(half, top), (-half, top)]]), shape="tube")
    _opening(brush, top, half, lip, COFFEE if brush.chance(0.7) else None)


def bottle(brush: Brush) -> None:
    half = brush.random.uniform(0.34, 0.46)
    neck = brush.random.uniform(0.11, 0.15)
    shoulder = brush.random.uniform(1.1, 1.3)
    cap: Colour = CORK if brush.chance(0.5) else (0.25, 0.26, 0.28)
    brush.part(
        profile([(half * 0.94, 0.06), (half, 0.2), (half, shoulder), (neck * 1.3, shoulder + 0.4),
                 (neck, shoulder + 0.6), (neck, 2.1)], lip=0.06), shape="tube", gloss=0.7,
    )  # fmt: skip
    brush.part(
        [(-neck * 1.1, 2.06), (-neck * 1.1, 2.28), (neck * 1.1, 2.28), (neck * 1.1, 2.06)],
        cap, "tube", drop=0,
    )  # fmt: skip
    if brush.chance(0.6):
        low, high = 0.35, shoulder - 0.2
        brush.part(
            [(-half, low), (-half, high), (half, high), (half, low)], CREAM, "tube", gloss=0,
        )  # fmt: skip


def teapot(brush: Brush) -> None:
    behind = brush.scene.layers()
    brush.part(band([(-0.75, 1.2), (-1.25, 1.2), (-1.32, 0.8), (-0.8, 0.45)], 0.09), bevel=0.09)
    brush.hole(smooth([(-0.74, 1.08), (-1.12, 1.08), (-1.18, 0.84), (-0.78, 0.6)]), behind)
    spout = [(0.6, 0.5), (1.0, 0.66), (1.12, 1.05), (1.36, 1.34)]
    brush.part(band(spout, [0.24, 0.18, 0.11, 0.08]), bevel=0.16)
    brush.part(
        smooth([(-0.5, 0.02), (-0.92, 0.5), (-0.78, 1.08), (-0.4, 1.36), (0.4, 1.36), (0.78, 1.08),
                (0.92, 0.5), (0.5, 0.02)]), shape="ball",
    )  # fmt: skip
    brush.part(smooth([(-0.46, 1.34), (-0.3, 1.52), (0.3, 1.52), (0.46, 1.34), (0, 1.26)]))
    brush.part(ellipse(0, 1.62, 0.12, 0.12), shape="ball")


def bowl(brush: Brush) -> None:
    half, lip = 1.0, brush.random.uniform(0.14, 0.24)
    if brush.chance(0.45):  # fruit in it
        for x, colour in (
            (-0.42, (0.85, 0.2, 0.16)),
            (0.4, (0.95, 0.6, 0.15)),
            (0, (0.55, 0.72, 0.2)),
        ):
            brush.part(ellipse(x, 1.05, 0.36, 0.36), colour, "ball", gloss=0.4)
        body = profile([(0.36, 0.0), (0.72, 0.3), (0.93, 0.62), (half, 0.95)], lip=0.06)
        brush.part(body, shape="ball")
        return
    body = profile([(0.36, 0.0), (0.72, 0.3), (0.93, 0.62), (half, 0.95)], lip=0.06)
    brush.part(body, shape="ball")
    brush.part(ellipse(0, 0.95, half, lip), None, "flat", bevel=0, normal=TOP, drop=0)
    brush.part(
        ellipse(0, 0.93, half * 0.9, lip * 0.8), None, "flat", bevel=0, normal=(0.5, 0.3, 0.3),
        outlined=False, drop=0,
    )  # fmt: skip


def apple(brush: Brush) -> None:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    dent = 0.9 * (1 - 0.17 * np.exp(-(((angle - np.pi / 2) / 0.4) ** 2)))
    dent *= 1 - 0.07 * np.exp(-(((angle - 1.5 * np.pi) / 0.35) ** 2))
    if brush.chance(0.7):
        leaf = moved(turned(ellipse(0, 0, 0.3, 0.13), 0.4), 0.36, 1.84)
        brush.part(leaf, LEAF, bevel=0.12)
    body = np.stack([dent * np.cos(angle), 0.85 + dent * np.sin(angle)], 1)
    brush.part(body, shape="ball", gloss=0.55)
    brush.limb([(0.0, 1.5), (0.03, 1.72), (0.12, 1.95)], 0.045, WOOD)


def pear(brush: Brush) -> None:
    if brush.chance(0.6):
        brush.part(moved(turned(ellipse(0, 0, 0.26, 0.12), 0.5), 0.3, 2.0), LEAF, bevel=0.12)
    body = smooth([(0, 0.02), (-0.55, 0.16), (-0.68, 0.62), (-0.4, 1.14), (-0.24, 1.6), (0, 1.8),
                   (0.24, 1.6), (0.4, 1.14), (0.68, 0.62), (0.55, 0.16)])  # fmt: skip
    brush.part(body, bevel=0.65, gloss=0.4)
    brush.limb([(0.0, 1.75), (0.03, 1.95), (0.1, 2.1)], 0.04, WOOD)


def banana(brush: Brush) -> None:
    brush.part(
        smooth([(-1.12, 1.02), (-1.02, 1.1), (-0.72, 0.62), (0.0, 0.44), (0.72, 0.66),
                (1.06, 1.12), (1.18, 1.1), (1.06, 0.5), (0.55, 0.08), (0, -0.02),
                (-0.6, 0.12), (-1.0, 0.6)]),
        bevel=0.26, gloss=0.25,
    )  # fmt: skip
    brush.part(smooth([(1.04, 1.12), (1.08, 1.36), (1.2, 1.34), (1.19, 1.1)]), (0.45, 0.34, 0.12))
    brush.line(smooth([(-0.98, 0.86), (-0.6, 0.38), (0, 0.24), (0.6, 0.38), (1.05, 0.86)],
                      closed=False), 0.018, (0.66, 0.5, 0.1))  # fmt: skip


def cake(brush: Brush) -> None:
    half, top = 0.95, brush.random.uniform(0.85, 1.05)
    candles = int(brush.random.integers(1, 5))
    for x in np.linspace(-0.5, 0.5, candles) if candles > 1 else [0.0]:
        brush.part(
            [(x - 0.05, top), (x - 0.05, top + 0.5), (x + 0.05, top + 0.5), (x + 0.05, top)],
            (0.85, 0.9, 0.95), "tube",
        )  # fmt: skip
        flame = smooth([(x - 0.07, top + 0.62), (x, top + 0.85), (x + 0.07, top + 0.62),
                        (x, top + 0.52)])  # fmt: skip
        brush.part(flame, (1.0, 0.78, 0.25), "flat", bevel=0, normal=(-0.4, -0.6, 0.6), drop=0)
    side = np.concatenate([ellipse(0, 0.16, half, 0.16, begin=np.pi), [(half, top), (-half, top)]])
    brush.part(side, (0.80, 0.58, 0.36), "tube", gloss=0)
    x = np.linspace(-half, half, 61)
    drip = top - 0.16 - 0.16 * np.abs(np.sin(x * 6.4 + 0.4)) ** 0.8
    icing = np.concatenate(
        [np.stack([x, drip - 0.12 * np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))], 1),
         ellipse(0, top, half, 0.2, end=np.pi)]
    )  # fmt: skip
    brush.part(icing, bevel=0.16, gloss=0.35)


def candle(brush: Brush) -> None:
    half = brush.random.uniform(0.2, 0.28)
    saucer = ellipse(0, 0.12, 0.75, 0.14)
    brush.part(saucer, GOLD, bevel=0.08, gloss=0.7)
    body = np.concatenate([ellipse(0, 0.18, half, 0.06, begin=np.pi), [(half, 1.3), (-half, 1.3)]])
    brush.part(body, shape="tube")
    brush.part(ellipse(0, 1.3, half, 0.06), None, "flat", bevel=0, normal=TOP, drop=0)
    centre = brush.placed([(0, 1.65)])[0]
    brush.scene.glow((float(centre[0]), float(centre[1])), brush.size * 0.35, (1, 0.86, 0.5))
    brush.line([(0, 1.3), (0, 1.45)], 0.02, (0.1, 0.1, 0.1))
    flame = smooth([(-0.12, 1.58), (-0.05, 1.78), (0, 2.0), (0.06, 1.78), (0.12, 1.58), (0, 1.42)])
    brush.part(flame, (1, 0.72, 0.2), "flat", bevel=0, normal=(-0.5, -0.7, 0.6), drop=0)
    brush.part(
        smooth([(-0.06, 1.58), (0, 1.78), (0.06, 1.58), (0, 1.46)]), (1, 0.95, 0.7), "flat",
        bevel=0, normal=(-0.5, -0.7, 0.6), drop=0, outlined=False,
    )  # fmt: skip


def _pot(brush: Brush, top: float, half: float) -> None:
    brush.part(
        [(-half * 0.7, 0), (-half, top), (half, top), (half * 0.7, 0)], None, "tube", gloss=0.2
    )
    brush.part(
        [(-half * 1.12, top - 0.02), (-half * 1.12, top + 0.2), (half * 1.12, top + 0.2),
         (half * 1.12, top - 0.02)], None, "tube", gloss=0.2,
    )  # fmt: skip


def cactus(brush: Brush) -> None:
    green: Colour = (0.30, 0.58, 0.32)
    if brush.chance(0.7):
        brush.limb([(-0.2, 1.05), (-0.62, 1.1), (-0.66, 1.5)], 0.13, green, texture="ribbed")
    if brush.chance(0.7):
        brush.limb([(0.2, 1.25), (0.58, 1.28), (0.62, 1.72)], 0.13, green, texture="ribbed")
    brush.limb([(0, 0.6), (0, 1.3), (0, 1.9)], [0.28, 0.31, 0.26], green, texture="ribbed")
    if brush.chance(0.4):
        brush.part(ellipse(0, 2.2, 0.16, 0.12), (0.93, 0.45, 0.6), "ball")
    _pot(brush, 0.55, 0.46)


def vase(brush: Brush) -> None:
    random = brush.random
    stems = ((-0.55, 2.05), (0.1, 2.25), (0.62, 1.95))
    for x, y in stems:
        brush.line(smooth([(0, 1.0), (x * 0.5, 1.5), (x, y)], closed=False), 0.03, LEAF)
    for index, (x, y) in enumerate(stems):
        petal: Colour = ((0.95, 0.8, 0.3), (0.93, 0.5, 0.6), (0.97, 0.95, 0.92))[index]
        count = 6
        for angle in 0.3 + np.arange(count) * 2 * np.pi / count:
            brush.part(
                moved(turned(ellipse(0.17, 0, 0.13, 0.1), angle), x, y), petal, bevel=0.1, drop=0.2
            )
        brush.part(ellipse(x, y, 0.1, 0.1), (0.75, 0.5, 0.15), "ball")
    waist = random.uniform(0.2, 0.3)
    brush.part(
        profile([(0.26, 0.03), (0.48, 0.4), (0.42, 0.75), (waist, 1.02), (0.34, 1.2)], lip=0.05),
        bevel=0.45, gloss=0.55,
    )  # fmt: skip


def glass(brush: Brush) -> None:
    """A glass of a coloured drink."""
    half, foot, lip = 0.55, brush.random.uniform(0.38, 0.5), 0.13
    top, level = 1.8, brush.random.uniform(1.15, 1.5)
    base = ellipse(0, 0.1, foot, 0.1, begin=np.pi)
    brush.part(np.concatenate([base, [(half, top), (-half, top)]]), GLASS, "tube", gloss=0.8)
    wide = foot + (half - foot) * level / top
    drink = ellipse(0, 0.14, foot * 0.92, 0.08, begin=np.pi)
    brush.part(
        np.concatenate([drink, [(wide * 0.93, level), (-wide * 0.93, level)]]), None, "tube",
        gloss=0.5, drop=0, texture="",
    )  # fmt: skip
    brush.part(
        ellipse(0, level, wide * 0.93, lip * 0.7), None, "flat", bevel=0, normal=TOP, drop=0,
        texture="",
    )  # fmt: skip
    if brush.chance(0.5):
        brush.limb([(0.1, level), (0.3, 2.3)], 0.045, WHITE)
    brush.stroke(ellipse(0, top, half, lip))


def ice_cream(brush: Brush) -> None:
    brush.part(
        smooth([(-0.5, 1.15), (-0.48, 1.6), (0, 2.0), (0.48, 1.6), (0.5, 1.15), (0.25, 1.02),
                (0, 1.12), (-0.25, 1.02)]), bevel=0.5, gloss=0.25,
    )  # fmt: skip
    brush.part([(-0.46, 1.1), (0, 0), (0.46, 1.1)], (0.85, 0.62, 0.34), "cone", gloss=0)
    for k in (-0.25, 0.0, 0.25):
        brush.line([(k - 0.2, 1.1), (k * 0.5 + 0.12, 0.5)], 0.015, (0.6, 0.4, 0.2))
        brush.line([(k + 0.2, 1.1), (k * 0.5 - 0.12, 0.5)], 0.015, (0.6, 0.4, 0.2))
    if brush.chance(0.5):
        brush.part(ellipse(0.05, 2.05, 0.15, 0.15), (0.8, 0.12, 0.18), "ball", gloss=0.6)
