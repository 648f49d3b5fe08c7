"""Animals and people."""

from typing import TypedDict

import numpy as np

from tools.demo.brush import BLACK, CORAL, CREAM, SKIN, WHITE, Brush
from tools.demo.scene import Colour
from tools.demo.shapes import Points, ellipse, moved, smooth, turned


class _Surface(TypedDict):
    texture: str
    gloss: float


FUR: _Surface = {"texture": "fur", "gloss": 0.03}
PINK_NOSE: Colour = (0.86, 0.48, 0.50)
BEAK: Colour = (0.96, 0.66, 0.16)
DENIM: Colour = (0.24, 0.34, 0.56)
HAIR: tuple[Colour, ...] = ((0.30, 0.19, 0.12), (0.14, 0.11, 0.10), (0.80, 0.60, 0.28))


def _eyes(brush: Brush, y: float, apart: float, radius: float) -> None:
    for side in (-1, 1):
        brush.part(
            ellipse(side * apart, y, radius, radius * 1.15), (0.97, 0.97, 0.94), bevel=0.05, drop=0
        )
        brush.dot(side * apart, y, radius * 0.62)


def _cat_head(brush: Brush, y: float, scale: float) -> None:
    def at(points: Points) -> Points:
        return moved(np.asarray(points) * scale, 0, y)

    for side in (-1, 1):
        ear = np.array([(side * 0.72, 0.28), (side * 0.62, 1.0), (side * 0.14, 0.6)], np.float32)
        brush.part(at(ear), texture="fur", gloss=0.02, bevel=0.14 * scale)
        inner = np.array([(side * 0.6, 0.4), (side * 0.56, 0.78), (side * 0.28, 0.56)], np.float32)
        brush.part(at(inner), CORAL, outlined=brush.chance(0.3), bevel=0.08, drop=0)
    head = smooth([(0, -0.62), (-0.5, -0.52), (-0.82, -0.1), (-0.72, 0.4), (-0.3, 0.62),
                   (0.3, 0.62),
                   (0.72, 0.4), (0.82, -0.1), (0.5, -0.52)])  # fmt: skip
    brush.part(at(head), texture="fur", gloss=0.02, bevel=0.6 * scale)
    muzzle = ellipse(0, -0.28, 0.34, 0.22)
    brush.part(at(muzzle), CREAM, bevel=0.2 * scale, outlined=False, drop=0.1, texture="fur")
    for side in (-1, 1):
        eye = at(ellipse(side * 0.33, 0.1, 0.13, 0.15))
        brush.part(eye, (0.75, 0.85, 0.42), bevel=0.05, drop=0)
        brush.dot(side * 0.33 * scale, y + 0.1 * scale, 0.085 * scale)
    nose = np.array([(-0.1, -0.14), (0.1, -0.14), (0, -0.25)], np.float32)
    brush.part(at(nose), PINK_NOSE, bevel=0.04, drop=0)
    for side in (-1, 1):
        mouth = smooth([(0, -0.26), (side * 0.08, -0.38), (side * 0.22, -0.34)], closed=False)
        brush.line(at(mouth), 0.016 * scale, (0.25, 0.16, 0.14))
        if brush.chance(0.85):
            for rise in (-0.1, 0.06):
                whisker = np.array([(side * 0.4, -0.26), (side * 1.08, -0.26 + rise)], np.float32)
                brush.line(at(whisker), 0.01, WHITE)


def cat(brush: Brush) -> None:
    kind = brush.random.random()
    if kind < 0.35:  # the head alone
        _cat_head(brush, 0.75, 1.15)
        return
    if kind < 0.7:  # sitting
        brush.limb([(0.5, 0.16), (1.0, 0.2), (1.15, 0.7), (0.95, 1.0)], [0.13, 0.13, 0.12, 0.09],
                   None, **FUR)  # fmt: skip
        body = smooth(
            [(-0.5, 0.02), (-0.66, 0.4), (-0.42, 1.1), (0.42, 1.1), (0.66, 0.4), (0.5, 0.02)]
        )
        brush.part(body, bevel=0.5, **FUR)
        for side in (-1, 1):
            brush.part(ellipse(side * 0.42, 0.12, 0.26, 0.14), bevel=0.13, **FUR)
            brush.part(ellipse(side * 0.14, 0.1, 0.15, 0.11), bevel=0.1, **FUR)
        _cat_head(brush, 1.42, 0.72)
        return
    _four_legs(brush, tail=[(0.95, 0.95), (1.3, 1.2), (1.32, 1.6), (1.2, 1.8)])
    _small_head(brush, -0.94, 1.28)


def _four_legs(brush: Brush, tail: list[tuple[float, float]]) -> None:
    """A body in profile that looks to the left."""
    brush.limb(tail, [0.1, 0.1, 0.09, 0.07][: len(tail)], None, **FUR)
    for x in (-0.5, 0.78):
        brush.limb([(x, 0.7), (x, 0.1)], [0.15, 0.11], None, **FUR)
    body = smooth([(-0.95, 0.75), (-0.9, 1.15), (-0.2, 1.2), (0.6, 1.16), (1.0, 1.0), (1.02, 0.72),
                   (0.5, 0.56), (-0.5, 0.54)])  # fmt: skip
    brush.part(body, bevel=0.34, **FUR)
    for x in (-0.72, 0.6):
        brush.limb([(x, 0.74), (x, 0.1)], [0.17, 0.12], None, **FUR)


def _small_head(brush: Brush, x: float, y: float) -> None:
    for ex in (-0.3, 0.2):
        ear = [(x + ex - 0.16, y + 0.2), (x + ex, y + 0.6), (x + ex + 0.2, y + 0.24)]
        brush.part(ear, bevel=0.1, **FUR)
    brush.part(ellipse(x - 0.05, y, 0.44, 0.4), bevel=0.4, **FUR)
    brush.dot(x - 0.2, y + 0.08, 0.06)
    brush.dot(x + 0.1, y + 0.08, 0.06)
    brush.dot(x - 0.1, y - 0.08, 0.045, PINK_NOSE)
    mouth = smooth([(x - 0.24, y - 0.16), (x - 0.1, y - 0.22), (x + 0.06, y - 0.16)], closed=False)
    brush.line(mouth, 0.014, (0.25, 0.16, 0.14))


def _dog_face(brush: Brush, y: float, scale: float) -> None:
    def at(points: Points) -> Points:
        return moved(np.asarray(points) * scale, 0, y)

    head = smooth([(0, -0.66), (-0.44, -0.5), (-0.66, 0.0), (-0.56, 0.5), (0, 0.68), (0.56, 0.5),
                   (0.66, 0.0), (0.44, -0.5)])  # fmt: skip
    brush.part(at(head), bevel=0.5 * scale, **FUR)
    for side in (-1, 1):
        ear = smooth([(side * 0.42, 0.6), (side * 0.82, 0.5), (side * 0.98, 0.0),
                      (side * 0.84, -0.32),
                      (side * 0.62, -0.1), (side * 0.5, 0.3)])  # fmt: skip
        brush.part(at(ear), (0.36, 0.23, 0.15), bevel=0.2 * scale, texture="fur", gloss=0.02)
    brush.part(
        at(ellipse(0, -0.32, 0.4, 0.3)), CREAM, bevel=0.28 * scale, texture="fur", gloss=0.02
    )
    for side in (-1, 1):
        brush.dot(side * 0.28 * scale, y + 0.14 * scale, 0.095 * scale)
    brush.part(at(ellipse(0, -0.16, 0.15, 0.11)), BLACK, "ball", gloss=0.6, drop=0)
    brush.line(at(np.array([(0, -0.27), (0, -0.4)], np.float32)), 0.016, (0.2, 0.14, 0.12))
    for side in (-1, 1):
        mouth = smooth([(0, -0.4), (side * 0.12, -0.48), (side * 0.24, -0.4)], closed=False)
        brush.line(at(mouth), 0.016, (0.2, 0.14, 0.12))
    if brush.chance(0.4):
        tongue = smooth([(-0.09, -0.45), (-0.08, -0.68), (0.08, -0.68), (0.09, -0.45)])
        brush.part(at(tongue), (0.92, 0.48, 0.52), bevel=0.08)


def dog(brush: Brush) -> None:
    kind = brush.random.random()
    if kind < 0.3:
        _dog_face(brush, 0.85, 1.2)
        return
    if kind < 0.65:  # sitting
        brush.limb([(0.5, 0.2), (0.95, 0.3), (1.1, 0.7)], [0.11, 0.1, 0.06], None, **FUR)
        body = smooth(
            [(-0.46, 0.02), (-0.6, 0.4), (-0.4, 1.1), (0.4, 1.1), (0.6, 0.4), (0.46, 0.02)]
        )
        brush.part(body, bevel=0.45, **FUR)
        for side in (-1, 1):
            brush.limb([(side * 0.2, 0.7), (side * 0.2, 0.12)], [0.15, 0.13], None, **FUR)
        _dog_face(brush, 1.42, 0.68)
        return
    _four_legs(brush, tail=[(0.95, 1.0), (1.2, 1.2), (1.28, 1.5)])
    head = smooth([(-1.5, 1.24), (-1.42, 1.42), (-1.1, 1.5), (-0.86, 1.72), (-0.5, 1.6),
                   (-0.52, 1.16),
                   (-0.8, 1.0), (-1.3, 1.08)])  # fmt: skip
    brush.part(head, bevel=0.25, **FUR)
    ear = smooth([(-0.72, 1.66), (-0.5, 1.62), (-0.42, 1.2), (-0.58, 1.06), (-0.7, 1.3)])
    brush.part(ear, (0.36, 0.23, 0.15), bevel=0.14, texture="fur", gloss=0.02)
    brush.dot(-0.95, 1.46, 0.06)
    brush.dot(-1.46, 1.33, 0.09)


def rabbit(brush: Brush) -> None:
    for side in (-1, 1):
        ear = turned(ellipse(side * 0.26, 2.1, 0.17, 0.58), -side * 0.16, (side * 0.2, 1.6))
        brush.part(ear, bevel=0.16, **FUR)
        inner = turned(ellipse(side * 0.26, 2.1, 0.08, 0.42), -side * 0.16, (side * 0.2, 1.6))
        brush.part(inner, CORAL, bevel=0.07, drop=0, gloss=0)
    body = smooth([(0, 0.02), (-0.55, 0.1), (-0.62, 0.5), (-0.36, 1.0), (0.36, 1.0), (0.62, 0.5),
                   (0.55, 0.1)])  # fmt: skip
    brush.part(body, bevel=0.5, **FUR)
    brush.part(ellipse(0, 0.5, 0.32, 0.38), WHITE, bevel=0.3, texture="fur", gloss=0, drop=0.1)
    for side in (-1, 1):
        brush.part(ellipse(side * 0.38, 0.12, 0.26, 0.13), bevel=0.12, **FUR)
    brush.part(ellipse(0, 1.32, 0.54, 0.48), bevel=0.46, **FUR)
    for side in (-1, 1):
        brush.dot(side * 0.2, 1.4, 0.07)
    brush.dot(0, 1.24, 0.06, PINK_NOSE)
    brush.slab([(-0.08, 0.98), (-0.08, 1.1), (0.08, 1.1), (0.08, 0.98)], WHITE, drop=0)


def bird(brush: Brush) -> None:
    tail = [(-0.8, 0.85), (-1.45, 1.1), (-1.4, 0.75), (-0.82, 0.55)]
    brush.part(tail, bevel=0.08, gloss=0.05)
    for x in (-0.08, 0.16):
        brush.line([(x, 0.4), (x + 0.04, 0.0), (x + 0.16, 0.0)], 0.03, BEAK)
    body = smooth([(-0.9, 0.75), (-0.5, 1.1), (0.1, 1.3), (0.4, 1.62), (0.82, 1.64), (0.98, 1.32),
                   (0.86, 0.85), (0.4, 0.4), (-0.3, 0.35)])  # fmt: skip
    brush.part([(0.92, 1.48), (1.34, 1.36), (0.94, 1.26)], BEAK, bevel=0.08)
    brush.part(body, bevel=0.5, texture="fur", gloss=0.06)
    belly = smooth([(0.78, 1.0), (0.75, 0.75), (0.36, 0.46), (-0.1, 0.42), (0.3, 0.75)])
    brush.part(belly, CREAM, bevel=0.2, outlined=False, drop=0, gloss=0)
    wing = smooth([(0.3, 1.08), (-0.2, 1.12), (-1.0, 0.78), (-0.4, 0.62), (0.16, 0.7)])
    brush.part(wing, bevel=0.18, gloss=0.06)
    brush.dot(0.64, 1.42, 0.07)


def duck(brush: Brush) -> None:
    body = smooth([(-1.2, 0.85), (-1.1, 0.3), (-0.5, 0.02), (0.4, 0.02), (0.95, 0.4), (0.86, 0.86),
                   (0.3, 0.8), (-0.5, 0.74)])  # fmt: skip
    brush.part(smooth([(0.98, 1.36), (1.45, 1.34), (1.5, 1.22), (1.0, 1.16)]), BEAK, bevel=0.08)
    brush.part(body, bevel=0.4, gloss=0.15)
    brush.part(ellipse(0.64, 1.28, 0.46, 0.44), bevel=0.42, gloss=0.15, drop=0.2)
    wing = smooth([(0.3, 0.68), (-0.3, 0.72), (-0.95, 0.66), (-0.5, 0.3), (0.1, 0.3)])
    brush.part(wing, bevel=0.2, gloss=0.15)
    brush.dot(0.78, 1.38, 0.07)


def fish(brush: Brush) -> None:
    brush.part(smooth([(-0.7, 0.9), (-1.3, 1.4), (-1.14, 0.9), (-1.3, 0.4)], steps=6), bevel=0.12)
    if brush.chance(0.7):
        brush.part(smooth([(-0.4, 1.25), (-0.25, 1.72), (0.35, 1.3)], steps=6), bevel=0.1)
    if brush.chance(0.4):
        brush.part(smooth([(-0.1, 0.5), (-0.35, 0.14), (0.2, 0.48)], steps=6), bevel=0.1)
    body = smooth([(-0.88, 0.9), (-0.4, 1.28), (0.2, 1.42), (0.78, 1.2), (1.0, 0.92), (0.78, 0.6),
                   (0.2, 0.4), (-0.4, 0.54)])  # fmt: skip
    brush.part(body, bevel=0.45, gloss=0.5)
    if brush.chance(0.5):
        gill = smooth([(0.36, 1.22), (0.28, 0.9), (0.36, 0.6)], closed=False)
        brush.line(gill, 0.02, (0.3, 0.2, 0.15))
    brush.part(ellipse(0.62, 1.03, 0.14, 0.14), WHITE, bevel=0.06, drop=0)
    brush.dot(0.64, 1.03, 0.075)


def butterfly(brush: Brush) -> None:
    for side in (-1, 1):
        low = smooth([(side * 0.05, 0.85), (side * 0.7, 0.8), (side * 0.85, 0.35),
                      (side * 0.5, 0.1),
                      (side * 0.15, 0.45)])  # fmt: skip
        brush.part(low, bevel=0.08, gloss=0.1)
        high = smooth([(side * 0.05, 0.9), (side * 0.3, 1.6), (side * 0.95, 1.85),
                       (side * 1.15, 1.4),
                       (side * 0.8, 0.95)])  # fmt: skip
        brush.part(high, bevel=0.08, gloss=0.1)
        if brush.chance(0.7):
            brush.part(ellipse(side * 0.72, 1.38, 0.2, 0.2), CREAM, bevel=0.04, drop=0)
        feeler = smooth([(side * 0.03, 1.35), (side * 0.12, 1.7), (side * 0.3, 1.85)], closed=False)
        brush.line(feeler, 0.018, BLACK)
    brush.limb([(0, 0.4), (0, 1.3)], [0.07, 0.1], BLACK)


def snail(brush: Brush) -> None:
    flesh: Colour = (0.80, 0.68, 0.50)
    for x in (0.98, 1.2):
        brush.limb([(1.02, 0.7), (x, 1.1)], 0.035, flesh)
        brush.dot(x, 1.14, 0.06)
    slug = smooth([(-1.2, 0.0), (-0.6, 0.26), (0.5, 0.3), (0.85, 0.8), (1.15, 0.82), (1.22, 0.5),
                   (1.0, 0.1), (0.5, 0.0)])  # fmt: skip
    brush.part(slug, flesh, bevel=0.16)
    brush.part(ellipse(-0.1, 0.82, 0.72, 0.68), bevel=0.6, gloss=0.35)
    turns = np.linspace(0, 4.4 * np.pi, 60)
    radius = 0.05 + 0.56 * turns / turns[-1]
    spiral = np.stack([-0.1 + radius * np.cos(turns), 0.82 + radius * 0.94 * np.sin(turns)], 1)
    brush.line(spiral, 0.022, (0.32, 0.2, 0.13))


def person(brush: Brush) -> None:
    """Standing, seen from the front; the caption dyes the shirt or dress."""
    random = brush.random
    hair = HAIR[int(random.integers(len(HAIR)))]
    dress, raised = brush.chance(0.4), brush.chance(0.25)
    for side in (-1, 1):
        legs: Colour = SKIN if dress else DENIM
        brush.limb([(side * 0.16, 0.8), (side * 0.19, 0.12)], [0.15, 0.11], legs, gloss=0.05)
        brush.part(ellipse(side * 0.24, 0.07, 0.18, 0.08), (0.22, 0.16, 0.14), bevel=0.08)
        hand = (side * 0.78, 1.75) if raised and side > 0 else (side * 0.62, 0.82)
        elbow = (side * 0.66, 1.3) if raised and side > 0 else (side * 0.56, 1.1)
        brush.part(ellipse(*hand, 0.1, 0.1), SKIN, bevel=0.1)
        brush.limb([(side * 0.3, 1.42), elbow, (hand[0], hand[1])], [0.13, 0.11, 0.09])
    if dress:
        body = smooth([(-0.2, 1.52), (-0.34, 1.4), (-0.3, 1.1), (-0.56, 0.55), (0, 0.48),
                       (0.56, 0.55),
                       (0.3, 1.1), (0.34, 1.4), (0.2, 1.52)])  # fmt: skip
    else:
        body = smooth([(-0.2, 1.54), (-0.38, 1.44), (-0.34, 1.0), (-0.34, 0.74), (0, 0.7),
                       (0.34, 0.74),
                       (0.34, 1.0), (0.38, 1.44), (0.2, 1.54)])  # fmt: skip
    brush.part(body, bevel=0.3, gloss=0.05)
    long = dress or brush.chance(0.2)
    if long:
        back = smooth([(-0.36, 1.5), (-0.42, 1.95), (0, 2.3), (0.42, 1.95), (0.36, 1.5), (0, 1.56)])
        brush.part(back, hair, bevel=0.2)
    brush.limb([(0, 1.5), (0, 1.64)], 0.09, SKIN, outlined=False)
    brush.part(ellipse(0, 1.9, 0.32, 0.35), SKIN, bevel=0.3, gloss=0.08)
    fringe = np.concatenate([ellipse(0, 1.93, 0.345, 0.36, end=np.pi),
                             smooth([(-0.34, 1.93), (-0.1, 2.1),
                                     (0.34, 1.93)], closed=False)])  # fmt: skip
    brush.part(fringe, hair, bevel=0.12)
    for side in (-1, 1):
        brush.dot(side * 0.12, 1.92, 0.035)
    mouth = smooth([(-0.1, 1.76), (0, 1.72), (0.1, 1.76)], closed=False)
    brush.line(mouth, 0.014, (0.7, 0.3, 0.28))


def portrait(brush: Brush) -> None:
    """A head with a pullover's collar."""
    hair = HAIR[int(brush.random.integers(len(HAIR)))]
    brush.part(smooth([(-1.0, 0.0), (-0.8, 0.36), (-0.25, 0.5), (0.25, 0.5), (0.8, 0.36),
                       (1.0, 0.0)],
                      steps=6), bevel=0.3, gloss=0.05)  # fmt: skip
    long = brush.chance(0.5)
    if long:
        back = smooth([(-0.74, 0.4), (-0.86, 1.3), (-0.5, 2.0), (0, 2.14), (0.5, 2.0), (0.86, 1.3),
                       (0.74, 0.4), (0, 0.5)])  # fmt: skip
        brush.part(back, hair, bevel=0.3, texture="fur")
    brush.limb([(0, 0.36), (0, 0.6)], 0.2, SKIN, outlined=False)
    for side in (-1, 1):
        if not long:
            brush.part(ellipse(side * 0.62, 1.12, 0.12, 0.18), SKIN, bevel=0.1)
    head = smooth([(0, 0.44), (-0.4, 0.6), (-0.6, 1.1), (-0.54, 1.6), (0, 1.9), (0.54, 1.6),
                   (0.6, 1.1),
                   (0.4, 0.6)])  # fmt: skip
    brush.part(head, SKIN, bevel=0.5, gloss=0.1)
    top = np.concatenate([ellipse(0, 1.3, 0.64, 0.72, end=np.pi),
                          smooth([(-0.62, 1.3), (-0.3, 1.62), (0.2, 1.66),
                                  (0.62, 1.3)], closed=False)])  # fmt: skip
    brush.part(top, hair, bevel=0.2, texture="fur")
    for side in (-1, 1):
        brush.part(ellipse(side * 0.24, 1.2, 0.11, 0.075), WHITE, bevel=0.04, drop=0)
        brush.dot(side * 0.24, 1.2, 0.06, (0.25, 0.2, 0.16))
        brow = smooth([(side * 0.12, 1.36), (side * 0.25, 1.4), (side * 0.38, 1.35)], closed=False)
        brush.line(brow, 0.022, hair)
    nose = smooth([(0.02, 1.14), (0.07, 0.96), (-0.03, 0.94)], closed=False)
    brush.line(nose, 0.016, (0.72, 0.5, 0.4))
    mouth = smooth([(-0.22, 0.78), (0, 0.7), (0.22, 0.78)], closed=False)
    brush.line(mouth, 0.03, (0.74, 0.3, 0.3))


def teddy(brush: Brush) -> None:
    for side in (-1, 1):
        brush.part(ellipse(side * 0.46, 2.0, 0.22, 0.22), bevel=0.2, **FUR)
        brush.part(ellipse(side * 0.46, 2.0, 0.11, 0.11), CREAM, bevel=0.1, drop=0, gloss=0)
        brush.limb([(side * 0.4, 1.0), (side * 0.82, 0.72)], [0.2, 0.18], None, **FUR)
    brush.part(ellipse(0, 0.68, 0.58, 0.62), bevel=0.55, **FUR)
    brush.part(ellipse(0, 0.62, 0.34, 0.38), CREAM, bevel=0.3, texture="fur", gloss=0, drop=0.1)
    for side in (-1, 1):
        brush.part(ellipse(side * 0.48, 0.2, 0.28, 0.22), bevel=0.2, **FUR)
    brush.part(ellipse(0, 1.6, 0.6, 0.54), bevel=0.5, **FUR)
    brush.part(ellipse(0, 1.44, 0.27, 0.21), CREAM, bevel=0.2, texture="fur", gloss=0, drop=0.15)
    for side in (-1, 1):
        brush.dot(side * 0.22, 1.72, 0.065)
    brush.dot(0, 1.52, 0.075)
    brush.line(smooth([(-0.1, 1.38), (0, 1.33), (0.1, 1.38)], closed=False), 0.016, BLACK)


def tortoise(brush: Brush) -> None:
    skin: Colour = (0.62, 0.66, 0.36)
    brush.limb([(0.9, 0.45), (1.3, 0.7)], [0.17, 0.2], skin)
    brush.part(ellipse(1.4, 0.78, 0.27, 0.22), skin, bevel=0.2)
    brush.dot(1.48, 0.84, 0.05)
    for x in (-0.62, 0.6):
        brush.limb([(x, 0.4), (x, 0.1)], [0.18, 0.16], skin)
    brush.part([(-0.98, 0.42), (-1.35, 0.3), (-0.98, 0.3)], skin, bevel=0.06)
    shell = np.concatenate([ellipse(0, 0.36, 1.08, 0.98, end=np.pi), [(-1.08, 0.3), (1.08, 0.3)]])
    brush.part(shell, shape="ball", gloss=0.3)
    for lines in (
        [(-0.5, 1.14), (-0.32, 0.4)],
        [(0.5, 1.14), (0.32, 0.4)],
        [(-0.95, 0.72), (0.95, 0.72)],
    ):
        brush.line(lines, 0.025, (0.2, 0.22, 0.12))


def frog(brush: Brush) -> None:
    for side in (-1, 1):
        leg = smooth(
            [(side * 0.3, 0.1), (side * 0.7, 0.75), (side * 1.08, 0.5), (side * 0.9, 0.05)]
        )
        brush.part(leg, bevel=0.22, gloss=0.35)
    brush.part(smooth([(-0.6, 0.05), (-0.62, 0.7), (0, 1.0), (0.62, 0.7), (0.6, 0.05)]), bevel=0.4,
               gloss=0.35)  # fmt: skip
    for side in (-1, 1):
        brush.part(ellipse(side * 0.36, 1.32, 0.22, 0.22), bevel=0.2, gloss=0.35)
    brush.part(ellipse(0, 0.98, 0.68, 0.42), bevel=0.4, gloss=0.35)
    for side in (-1, 1):
        brush.part(ellipse(side * 0.36, 1.34, 0.13, 0.13), WHITE, bevel=0.05, drop=0)
        brush.dot(side * 0.36, 1.34, 0.075)
    brush.line(
        smooth([(-0.42, 0.9), (0, 0.76), (0.42, 0.9)], closed=False), 0.02, (0.14, 0.24, 0.1)
    )
