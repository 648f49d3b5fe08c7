"""What is in a room, and simple solids."""

from itertools import pairwise

import numpy as np

from tools.demo.brush import BLACK, CREAM, DARK_WOOD, GOLD, METAL, SIDE, TOP, WHITE, WOOD, Brush
from tools.demo.scene import Colour
from tools.demo.shapes import band, box, ellipse, moved, rounded, smooth, turned


def ball(brush: Brush) -> None:
    brush.part(ellipse(0, 0.95, 0.95, 0.95), shape="ball", gloss=0.6)


def cube(brush: Brush) -> None:
    depth, half = brush.random.uniform(0.35, 0.6), 0.8
    rise = depth * 0.6
    left, right, top = -half - depth * 0.4, half - depth * 0.4, 1.6
    lid = [(left, top), (left + depth, top + rise), (right + depth, top + rise), (right, top)]
    brush.part(lid, None, "flat", bevel=0, normal=TOP)
    side = [(right, top), (right + depth, top + rise), (right + depth, rise), (right, 0)]
    brush.part(side, None, "flat", bevel=0, normal=SIDE, drop=0)
    brush.part(box(left, 0, right, top), None, "flat", bevel=0, normal=(-0.1, 0.1, 1), drop=0)


def cylinder(brush: Brush) -> None:
    half, lip = brush.random.uniform(0.5, 0.75), 0.17
    foot = ellipse(0, lip, half, lip, begin=np.pi)
    brush.part(np.concatenate([foot, [(half, 1.7), (-half, 1.7)]]), shape="tube")
    brush.part(ellipse(0, 1.7, half, lip), None, "flat", bevel=0, normal=TOP, drop=0)


def cone(brush: Brush) -> None:
    half = brush.random.uniform(0.65, 0.9)
    base = ellipse(0, 0.14, half, 0.14, begin=np.pi)
    brush.part(np.concatenate([base, [(0, 1.95)]]), shape="cone")


def chair(brush: Brush) -> None:
    """Seen from the front's right: two near legs, two far ones, a back."""
    random = brush.random
    half, seat, skew = random.uniform(0.5, 0.62), random.uniform(0.85, 1.0), 0.36
    rise, leg = skew * 0.6, 0.065
    high = random.uniform(1.95, 2.15)
    for x, y in ((-half + skew, rise), (half + skew, rise)):
        brush.slab(box(x - leg, y, x + leg, seat + rise), texture=None)
    slats = brush.chance(0.5)
    posts = (-half + skew, half + skew)
    if slats:
        for height in (0.3, 0.62):
            low = seat + rise + height * (high - seat)
            brush.slab(box(posts[0], low, posts[1], low + 0.17))
        for x in posts:
            brush.slab(box(x - leg, seat + rise * 0.8, x + leg, high + rise))
    else:
        brush.slab(
            rounded(posts[0] - leg, seat + rise, posts[1] + leg, high + rise, 0.16), bevel=0.1
        )
    for x in (-half, half):
        brush.slab(box(x - leg, 0, x + leg, seat))
    top = [(-half - leg, seat), (-half + skew - leg, seat + rise), (half + skew + leg, seat + rise),
           (half + leg, seat)]  # fmt: skip
    brush.part(top, None, "flat", bevel=0, normal=(0, -0.75, 0.6))
    brush.slab(box(-half - leg, seat - 0.13, half + leg, seat), drop=0.25)


def table(brush: Brush) -> None:
    half, top = brush.random.uniform(1.15, 1.4), brush.random.uniform(1.0, 1.2)
    skew, rise, leg = 0.4, 0.3, 0.07
    for x in (-half + skew + 0.2, half + skew - 0.2):
        brush.slab(box(x - leg, rise, x + leg, top))
    for x in (-half + 0.14, half - 0.14):
        brush.slab(box(x - leg, 0, x + leg, top))
    lid = [(-half, top), (-half + skew, top + rise), (half + skew, top + rise), (half, top)]
    brush.part(lid, None, "flat", bevel=0, normal=(0, -0.8, 0.55))
    brush.slab(box(-half, top - 0.13, half, top), drop=0.3)


def sofa(brush: Brush) -> None:
    half = brush.random.uniform(1.2, 1.4)
    for x in (-half + 0.1, half - 0.1):
        brush.slab(box(x - 0.06, 0, x + 0.06, 0.2), DARK_WOOD)
    brush.part(rounded(-half + 0.12, 0.4, half - 0.12, 1.42, 0.22), bevel=0.22, gloss=0.06)
    brush.part(rounded(-half + 0.1, 0.16, half - 0.1, 0.5, 0.08), bevel=0.1, gloss=0.06)
    halves = ((-half + 0.2, 0.0), (0.0, half - 0.2))
    for left, right in halves if brush.chance(0.7) else ((-half + 0.2, half - 0.2),):
        brush.part(rounded(left, 0.46, right, 0.78, 0.12), bevel=0.14, gloss=0.06)
    for side in (-1, 1):
        left = side * half - 0.2
        brush.part(rounded(left, 0.14, left + 0.4, 0.98, 0.19), bevel=0.19, gloss=0.06)


def bed(brush: Brush) -> None:
    brush.part(rounded(-1.5, 0.2, -1.34, 1.4, 0.08), WOOD, bevel=0.06, texture="wooden")
    brush.slab(box(1.28, 0.05, 1.42, 0.9), WOOD, texture="wooden")
    brush.slab(box(-1.44, 0, -1.32, 0.4), WOOD, texture="wooden")
    brush.slab(box(-1.36, 0.22, 1.3, 0.5), WOOD, texture="wooden")
    brush.part(rounded(-1.34, 0.46, 1.3, 0.76, 0.1), WHITE, bevel=0.12, gloss=0)
    brush.part(rounded(-1.3, 0.7, -0.68, 1.0, 0.14), WHITE, bevel=0.14, gloss=0)
    blanket = smooth([(-0.6, 0.42), (-0.66, 0.8), (-0.4, 0.92), (0.4, 0.9), (1.2, 0.86),
                      (1.3, 0.62), (1.28, 0.36), (0.4, 0.38)])  # fmt: skip
    brush.part(blanket, bevel=0.2, gloss=0.03)


def lamp(brush: Brush) -> None:
    brush.part(ellipse(0, 0.1, 0.42, 0.11), DARK_WOOD, bevel=0.08)
    if brush.chance(0.5):
        brush.slab(box(-0.045, 0.12, 0.045, 1.3), METAL)
    else:
        body = smooth([(-0.1, 0.14), (-0.3, 0.5), (-0.1, 0.95), (-0.06, 1.3), (0.06, 1.3),
                       (0.1, 0.95), (0.3, 0.5), (0.1, 0.14)])  # fmt: skip
        brush.part(body, CREAM, bevel=0.28, gloss=0.5)
    top = brush.random.uniform(0.28, 0.45)
    centre = brush.placed([(0, 1.5)])[0]
    brush.scene.glow((float(centre[0]), float(centre[1])), brush.size * 0.7, (1.0, 0.93, 0.75))
    shade = [(-0.75, 1.18), (-top, 2.0), (top, 2.0), (0.75, 1.18)]
    brush.part(shade, None, "tube", gloss=0.05)


def book(brush: Brush) -> None:
    if brush.chance(0.5):  # lying open
        for side in (-1, 1):
            cover = [(0, 0.0), (side * 1.25, 0.12), (side * 1.25, 0.98), (0, 0.86)]
            brush.slab(cover, drop=0)
            page = smooth([(0, 0.08), (side * 0.5, 0.24), (side * 1.15, 0.2), (side * 1.15, 1.0),
                           (side * 0.5, 1.06), (0, 0.92)], steps=5)  # fmt: skip
            brush.part(page, (0.97, 0.95, 0.9), "flat", bevel=0.05, normal=(-0.2 * side, -0.4, 0.9))
            for row in np.linspace(0.38, 0.84, 4):
                brush.line([(side * 0.25, row), (side * 1.0, row)], 0.014, (0.55, 0.55, 0.56))
        return
    paper: Colour = (0.95, 0.93, 0.88)
    brush.slab([(-0.62, 0), (-0.62, 1.7), (-0.44, 1.84), (0.86, 1.84), (0.86, 0.14), (0.7, 0)])
    brush.slab([(-0.58, 1.7), (-0.4, 1.8), (0.8, 1.8), (0.66, 1.7)], paper, normal=TOP, drop=0)
    brush.slab([(0.66, 0.02), (0.66, 1.7), (0.8, 1.8), (0.8, 0.14)], paper, normal=SIDE, drop=0)
    brush.slab(rounded(-0.64, 0, 0.66, 1.7, 0.06))
    brush.slab(rounded(-0.36, 1.0, 0.4, 1.36, 0.04), CREAM)


def clock(brush: Brush) -> None:
    centre = 1.0
    if brush.chance(0.5):  # an alarm clock
        for side in (-1, 1):
            brush.limb([(side * 0.5, 0.3), (side * 0.68, 0.05)], 0.07, METAL)
            brush.part(
                turned(ellipse(side * 0.62, 1.82, 0.3, 0.2), -side * 0.7, (side * 0.62, 1.82)),
                METAL, bevel=0.2, gloss=0.7,
            )  # fmt: skip
    brush.part(ellipse(0, centre, 0.92, 0.92), bevel=0.16, gloss=0.5)
    brush.part(ellipse(0, centre, 0.74, 0.74), (0.98, 0.97, 0.93), bevel=0.02, gloss=0, drop=0)
    for hour in range(12):
        angle = hour * np.pi / 6
        out = np.array((np.sin(angle), np.cos(angle)))
        length = 0.16 if hour % 3 == 0 else 0.09
        ends = moved(np.stack([out * 0.66, out * (0.66 - length)]), 0, centre)
        brush.line(ends, 0.022, BLACK)
    for length, angle in (
        (0.36, brush.random.uniform(0, 6.3)),
        (0.55, brush.random.uniform(0, 6.3)),
    ):
        end = (length * np.sin(angle), centre + length * np.cos(angle))
        brush.line([(0, centre), end], 0.035, BLACK)
    brush.dot(0, centre, 0.06)


def hat(brush: Brush) -> None:
    if brush.chance(0.5):  # a top hat
        brush.part(ellipse(0, 0.22, 1.1, 0.24), None, "flat", bevel=0.08, normal=(0, -0.6, 0.7))
        brush.part(
            np.concatenate([ellipse(0, 0.3, 0.66, 0.14, begin=np.pi), [(0.72, 1.5), (-0.72, 1.5)]]),
            shape="tube", gloss=0.25,
        )  # fmt: skip
        brush.part(ellipse(0, 1.5, 0.72, 0.15), None, "flat", bevel=0, normal=TOP, drop=0)
        ribbon = np.concatenate(
            [
                ellipse(0, 0.3, 0.67, 0.14, begin=np.pi),
                ellipse(0, 0.56, 0.68, 0.14, begin=np.pi)[::-1],
            ]
        )
        brush.part(ribbon, (0.82, 0.75, 0.6), "tube", gloss=0, drop=0)
        return
    brush.part(smooth([(-1.25, 0.2), (-0.6, 0.42), (0.6, 0.42), (1.25, 0.2), (0.6, 0.0),
                       (-0.6, 0.0)]),
               bevel=0.12, gloss=0.05)  # fmt: skip
    crown = smooth([(-0.66, 0.3), (-0.6, 0.85), (-0.3, 1.14), (0, 1.02), (0.3, 1.14), (0.6, 0.85),
                    (0.66, 0.3), (0, 0.18)])  # fmt: skip
    brush.part(crown, bevel=0.4, gloss=0.05)
    ribbon = np.concatenate([
        smooth([(-0.665, 0.3), (0, 0.17), (0.665, 0.3)], closed=False),
        smooth([(0.65, 0.5), (0, 0.37), (-0.65, 0.5)], closed=False),
    ])  # fmt: skip
    brush.part(ribbon, (0.25, 0.2, 0.2), "tube", gloss=0, drop=0)


def shoe(brush: Brush) -> None:
    sole: Colour = (0.95, 0.94, 0.92)
    brush.part(
        smooth([(-1.0, 0.62), (-0.98, 1.16), (-0.5, 1.24), (-0.36, 1.05), (0.1, 0.78), (0.7, 0.62),
                (1.12, 0.4), (1.14, 0.16), (0, 0.12), (-0.98, 0.14)]), bevel=0.35, gloss=0.2,
    )  # fmt: skip
    brush.part(rounded(-1.06, 0, 1.2, 0.2, 0.1), sole, bevel=0.08, gloss=0.1)
    brush.part(
        smooth([(-0.88, 1.13), (-0.5, 1.19), (-0.42, 1.1), (-0.66, 1.04)]), (0.2, 0.17, 0.17),
        bevel=0.05, outlined=True, drop=0,
    )  # fmt: skip
    for k in range(3):
        x, y = -0.26 + 0.2 * k, 0.96 - 0.12 * k
        brush.line([(x - 0.09, y - 0.14), (x + 0.07, y + 0.04)], 0.028, sole)


def umbrella(brush: Brush) -> None:
    hook = smooth([(0, 1.3), (0, 0.3), (0.04, 0.08), (0.2, 0.02), (0.34, 0.12), (0.34, 0.24)],
                  closed=False)  # fmt: skip
    brush.limb(hook, 0.04, DARK_WOOD)
    ribs = np.array([-1.25, -0.62, 0.0, 0.62, 1.25])
    scallops = [np.stack([np.linspace(a, b, 9)[:-1],
                          1.16 + 0.13 * np.sin(np.linspace(0, np.pi, 9)[:-1])], 1)
                for a, b in pairwise(ribs)]  # fmt: skip
    dome = ellipse(0, 1.16, 1.25, 0.98, end=np.pi)
    brush.part(np.concatenate([*scallops, dome]), shape="ball", gloss=0.25)
    for rib in ribs[1:-1]:
        curve = smooth([(rib, 1.17), (rib * 0.75, 1.7), (0, 2.12)], closed=False)
        if abs(rib) < 0.1:
            curve = np.array([(0, 1.17), (0, 2.12)], np.float32)
        brush.stroke(curve)
    brush.line([(0, 2.12), (0, 2.28)], 0.03, DARK_WOOD)


def guitar(brush: Brush) -> None:
    brush.slab(box(-0.08, 1.1, 0.08, 2.2), DARK_WOOD)
    brush.slab(rounded(-0.14, 2.15, 0.14, 2.5, 0.05), DARK_WOOD)
    body = smooth([(0, 0), (-0.5, 0.08), (-0.64, 0.42), (-0.44, 0.75), (-0.46, 1.1), (-0.2, 1.3),
                   (0.2, 1.3), (0.46, 1.1), (0.44, 0.75), (0.64, 0.42), (0.5, 0.08)])  # fmt: skip
    brush.part(body, bevel=0.1, gloss=0.5)
    brush.part(ellipse(0, 0.86, 0.18, 0.18), (0.12, 0.08, 0.06), bevel=0, shape="flat", drop=0)
    brush.slab(box(-0.07, 0.98, 0.07, 1.3), DARK_WOOD, drop=0.2)
    brush.slab(box(-0.24, 0.36, 0.24, 0.44), DARK_WOOD)
    for x in (-0.045, 0.0, 0.045):
        page = brush.placed([(x, 0.4), (x + 0.012, 0.4), (x + 0.012, 2.3), (x, 2.3)])
        brush.scene.shade(page, (0.9, 0.88, 0.8), "flat", bevel=0, normal=(0, 0, 1), gloss=0)


def gift(brush: Brush) -> None:
    ribbon: Colour = GOLD
    brush.slab(box(-0.8, 0, 0.8, 1.2), gloss=0.2)
    brush.slab(box(-0.14, 0, 0.14, 1.2), ribbon, gloss=0.5, drop=0)
    brush.slab(box(-0.88, 1.1, 0.88, 1.42), gloss=0.2)
    brush.slab(box(-0.14, 1.1, 0.14, 1.42), ribbon, gloss=0.5, drop=0)
    for side in (-1, 1):
        loop = smooth([(0, 1.42), (side * 0.3, 1.8), (side * 0.62, 1.74), (side * 0.5, 1.5)])
        brush.part(loop, ribbon, bevel=0.1, gloss=0.5)
    brush.part(ellipse(0, 1.5, 0.13, 0.12), ribbon, bevel=0.1, gloss=0.5)


def key(brush: Brush) -> None:
    """Lying: drawn upright, as people do."""
    behind = brush.scene.layers()
    brush.part(band([(0, 1.3), (0, 0.05)], 0.08), bevel=0.08, gloss=0.8)
    for y in (0.14, 0.4):
        brush.slab(box(0.06, y, 0.38, y + 0.14), gloss=0.8)
    brush.part(ellipse(0, 1.6, 0.44, 0.42), bevel=0.12, gloss=0.8)
    brush.hole(moved(ellipse(0, 0, 0.22, 0.2), 0, 1.64), behind)
