"""The things in the scenes: simple ones that people sketch, drawn part by part.

Each has one main colour, its usual one unless the prompt names another: an outline does not show a
colour, and a model that must guess paints things in several.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tools.demo.scene import Colour, Points, Scene, Shape

Setting = Literal["land", "water", "sky", "table"]
FRONT: Colour = (0.0, 0.0, 1.0)
OPEN_SHARE = 0.25
"""Share of boxes without a bottom line."""

COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.18, 0.16),
    "orange": (0.92, 0.52, 0.14),
    "yellow": (0.94, 0.80, 0.22),
    "green": (0.26, 0.62, 0.28),
    "blue": (0.20, 0.42, 0.80),
    "purple": (0.54, 0.28, 0.68),
    "pink": (0.92, 0.48, 0.64),
}
BROWN: Colour = (0.46, 0.30, 0.18)
CREAM: Colour = (0.90, 0.83, 0.68)
WHITE: Colour = (0.95, 0.95, 0.93)
GLASS: Colour = (0.62, 0.82, 0.93)
BLACK: Colour = (0.14, 0.14, 0.16)


@dataclass
class Brush:
    """Draws one thing onto a scene.

    x, ground: where its feet stand, in shares of the page. size: page shares per own unit.
    stretch: across against along. lean: radians. mirrored: left and right change places.
    """

    scene: Scene
    x: float
    ground: float
    size: float
    colour: Colour
    stretch: float = 1.0
    lean: float = 0.0
    mirrored: bool = False
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = self.scene.random

    def placed(self, points: Sequence[tuple[float, float]] | Points) -> Points:
        """(N, 2) own coordinates as page coordinates."""
        own = np.array(points, np.float32) * (self.stretch * (-1 if self.mirrored else 1), -1.0)
        cosine, sine = np.cos(self.lean), np.sin(self.lean)
        turned = own @ np.array([[cosine, sine], [-sine, cosine]])
        return np.asarray(turned * self.size + (self.x, self.ground), np.float32)

    def part(
        self,
        points: Sequence[tuple[float, float]] | Points,
        colour: Colour | None = None,
        shape: Shape = "flat",
        *,
        normal: Colour = FRONT,
        gloss: float = 0.0,
        outlined: bool = True,
    ) -> None:
        """A polygon in front of what was drawn so far, in the main colour if none is given."""
        page = self.placed(points)
        facing = (-normal[0] if self.mirrored else normal[0], normal[1], normal[2])
        self.scene.shade(page, colour or self.colour, shape, facing, gloss)
        self.scene.show(page, main=colour is None)
        self.scene.erase(page)
        if outlined:
            # People often leave out the bottom line of a door or a wall: the last one of a box.
            is_open = len(page) == 4 and self.random.random() < OPEN_SHARE
            self.scene.stroke(page, closed=not is_open)

    def stroke(self, *points: tuple[float, float]) -> None:
        """A line in the sketch alone."""
        self.scene.stroke(self.placed(points))

    def shadow(self, half_width: float, half_height: float = 0.22) -> None:
        """On the ground below."""
        radii = (half_width * self.size * self.stretch, half_height * self.size)
        self.scene.darken((self.x, self.ground), radii, 0.45)


def ellipse(
    x: float, y: float, rx: float, ry: float, *, begin: float = 0.0, end: float = 2 * np.pi
) -> Points:
    """Points counter-clockwise about (x, y), from angle `begin` to `end`, y up."""
    closed = end - begin > 6.28
    angle = np.linspace(begin, end, 40, endpoint=not closed)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1).astype(np.float32)


def box(left: float, bottom: float, right: float, top: float) -> list[tuple[float, float]]:
    """The corners of an upright rectangle."""
    return [(left, bottom), (left, top), (right, top), (right, bottom)]


def ball(brush: Brush) -> None:
    brush.shadow(0.9)
    brush.part(ellipse(0, 0.95, 0.95, 0.95), shape="ball", gloss=0.55)


def cube(brush: Brush) -> None:
    depth, half = brush.random.uniform(0.35, 0.6), 0.8
    rise = depth * 0.6
    brush.shadow(1.0)
    left, right, top = -half - depth * 0.4, half - depth * 0.4, 1.6
    lid = [(left, top), (left + depth, top + rise), (right + depth, top + rise), (right, top)]
    brush.part(lid, normal=(0, -1, 0.3))
    side = [(right, top), (right + depth, top + rise), (right + depth, rise), (right, 0)]
    brush.part(side, normal=(1, 0, 0.3))
    brush.part(box(left, 0, right, top))


def cylinder(brush: Brush) -> None:
    half, lip = brush.random.uniform(0.5, 0.75), 0.17
    brush.shadow(half * 1.2)
    brush.part(
        np.concatenate([ellipse(0, lip, half, lip, begin=np.pi), [(half, 1.7), (-half, 1.7)]]),
        shape="tube", gloss=0.25,
    )  # fmt: skip
    brush.part(ellipse(0, 1.7, half, lip), normal=(0, -0.9, 0.5))


def cone(brush: Brush) -> None:
    half = brush.random.uniform(0.65, 0.9)
    brush.shadow(half * 1.1)
    base = ellipse(0, 0.14, half, 0.14, begin=np.pi)
    brush.part(np.concatenate([base, [(0, 1.95)]]), shape="cone", gloss=0.2)


def mug(brush: Brush) -> None:
    half, lip = brush.random.uniform(0.55, 0.72), 0.17
    brush.shadow(half * 1.2)
    ring = np.concatenate([ellipse(half, 0.8, 0.42, 0.46), ellipse(half, 0.8, 0.42, 0.46)[:1]])
    hole = ellipse(half, 0.8, 0.24, 0.28)
    behind = brush.scene.picture.copy()
    brush.part(ring, shape="ball")
    _see_through(brush, hole, behind)
    body = np.concatenate([ellipse(0, lip, half, lip, begin=np.pi), [(half, 1.5), (-half, 1.5)]])
    brush.part(body, shape="tube", gloss=0.3)
    brush.part(ellipse(0, 1.5, half, lip), normal=(0, -0.9, 0.5))
    brush.part(ellipse(0, 1.48, half * 0.84, lip * 0.72), (0.32, 0.20, 0.12), outlined=False)


def _see_through(brush: Brush, hole: Points, behind: Points) -> None:
    """Restore the earlier background within `hole`."""
    page = brush.placed(hole)
    cover = brush.scene.cover(page)[..., None]
    brush.scene.picture = brush.scene.picture * (1 - cover) + behind * cover
    brush.scene.show(page, main=False)
    brush.scene.stroke(page, closed=True)


def apple(brush: Brush) -> None:
    brush.shadow(0.85)
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    dent = 0.9 * (1 - 0.16 * np.exp(-(((angle - np.pi / 2) / 0.4) ** 2)))
    brush.part([(-0.04, 1.5), (0.06, 1.98), (0.15, 1.98), (0.06, 1.5)], BROWN)
    leaf = ellipse(0, 0, 0.3, 0.12) @ np.array([[0.94, 0.34], [-0.34, 0.94]])
    brush.part(np.add(leaf, (0.42, 1.85)), COLOURS["green"])
    body = np.stack([dent * np.cos(angle), 0.85 + dent * np.sin(angle)], 1)
    brush.part(body, shape="ball", gloss=0.5)


def house(brush: Brush) -> None:
    random = brush.random
    half, wall = random.uniform(0.75, 1.0), random.uniform(0.95, 1.25)
    roof, eaves = random.uniform(0.65, 0.95), half * random.uniform(1.05, 1.2)
    brush.shadow(half * 1.1, 0.12)
    if random.random() < 0.35:
        chimney = half * random.uniform(0.35, 0.55)
        brush.part(box(chimney, wall, chimney + 0.2, wall + roof * 0.95), (0.60, 0.34, 0.28))
    brush.part(box(-half, 0, half, wall))
    tiles: Colour = (0.66, 0.26, 0.20)
    brush.part([(-eaves, wall), (0, wall + roof), (eaves, wall)], tiles, normal=(-0.3, -0.6, 0.7))
    door, leaf = random.uniform(-0.4, 0.4) * half, half * 0.18
    brush.part(box(door - leaf, 0, door + leaf, wall * 0.56), BROWN)
    for side in (-1, 1):
        centre, pane = side * half * 0.64, half * 0.17
        if abs(centre - door) > leaf + pane + 0.03 and random.random() < 0.85:
            low = wall * 0.42
            brush.part(box(centre - pane, low, centre + pane, low + 2 * pane), GLASS)
            if random.random() < 0.3:
                brush.stroke((centre, low), (centre, low + 2 * pane))
                brush.stroke((centre - pane, low + pane), (centre + pane, low + pane))


def tree(brush: Brush) -> None:
    random, trunk = brush.random, brush.random.uniform(0.09, 0.17)
    brush.shadow(0.6, 0.14)
    if random.random() < 0.7:
        brush.part([(-trunk, 0), (-trunk * 0.8, 1), (trunk * 0.8, 1), (trunk, 0)], BROWN, "tube")
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        waves = random.integers(5, 10) if random.random() < 0.75 else 0
        bulge = 0.74 * (1 + (0.07 * np.cos(waves * angle) if waves else 0 * angle))
        crown = np.stack([bulge * np.cos(angle), 1.42 + 0.95 * bulge * np.sin(angle)], 1)
        brush.part(crown, (0.24, 0.54, 0.22), "ball")
        brush.scene.show(brush.placed(crown), main=True)
        return
    brush.part(box(-trunk, 0, trunk, 0.6), BROWN, "tube")
    for tier in range(3):
        half, low = 0.72 - 0.16 * tier, 0.5 + 0.46 * tier
        fir = [(-half, low), (0, low + 0.78), (half, low)]
        brush.part(fir, (0.18, 0.46, 0.26), "cone")
        brush.scene.show(brush.placed(fir), main=True)


def sun(brush: Brush) -> None:
    centre = brush.placed([(0, 0)])[0]
    gold: Colour = (1.0, 0.82, 0.25)
    brush.scene.glow((float(centre[0]), float(centre[1])), brush.size, (1.0, 0.94, 0.65))
    turn, rays = brush.random.uniform(0, 1), brush.random.integers(8, 13)
    if brush.random.random() < 0.85:
        for angle in turn + np.arange(rays) * 2 * np.pi / rays:
            out, across = (
                np.array((np.cos(angle), np.sin(angle))),
                np.array((-np.sin(angle), np.cos(angle))),
            )
            near, far = out * 1.28, out * 1.8
            beam = np.stack(
                [
                    near - across * 0.09,
                    far - across * 0.09,
                    far + across * 0.09,
                    near + across * 0.09,
                ]
            )
            brush.scene.shade(brush.placed(beam), gold, "flat", (0, -0.7, 0.7), 0.0)
            brush.stroke(tuple(near), tuple(far))
    brush.part(ellipse(0, 0, 1, 1), gold, normal=(0, -0.7, 0.7))
    brush.scene.show(brush.placed(ellipse(0, 0, 1, 1)), main=True)


def cloud(brush: Brush) -> None:
    bumps = brush.random.integers(4, 7)
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    bulge = 1 + 0.16 * np.abs(np.sin(angle * bumps / 2 + 0.4))
    brush.part(
        np.stack([1.3 * bulge * np.cos(angle), 0.6 * bulge * np.sin(angle)], 1), WHITE, "ball"
    )


def car(brush: Brush) -> None:
    half, random = 1.2, brush.random
    brush.shadow(half, 0.16)
    low, wheel = 0.22, random.uniform(0.22, 0.28)
    cabin = [(-0.62, 0.68), (-0.40, 1.22), (0.36, 1.22), (0.68, 0.68)]
    brush.part(cabin, normal=(-0.2, -0.3, 1))
    if random.random() < 0.85:
        brush.part(
            [(-0.48, 0.70), (-0.32, 1.11), (0.30, 1.11), (0.53, 0.70)], GLASS, normal=(0, -0.3, 1)
        )
        if random.random() < 0.5:
            brush.stroke((0, 0.70), (0, 1.11))
    body = [
        (-half, low),
        (-half * 0.97, 0.62),
        (-0.6, 0.72),
        (0.68, 0.72),
        (half, 0.60),
        (half, low),
    ]
    brush.part(body, normal=(-0.1, -0.15, 1))
    for side in (-0.55, 0.55):
        brush.part(ellipse(side * half, low, wheel, wheel), BLACK, "ball")
        if random.random() < 0.6:
            brush.part(ellipse(side * half, low, wheel * 0.42, wheel * 0.42), (0.75, 0.75, 0.77))


def boat(brush: Brush) -> None:
    random, half = brush.random, 1.05
    brush.part(box(-0.03, 0.4, 0.03, 1.9), BROWN)
    brush.part([(0.06, 1.85), (0.06, 0.6), (half * 0.85, 0.6)], WHITE, normal=(0, -0.4, 1))
    if random.random() < 0.6:
        brush.part([(-0.06, 1.6), (-0.06, 0.6), (-half * 0.62, 0.6)], WHITE, normal=(0, -0.2, 1))
    brush.part([(-half, 0.46), (half, 0.46), (half * 0.7, 0), (-half * 0.7, 0)], normal=(0, 0.1, 1))


def fish(brush: Brush) -> None:
    tail = [(-0.72, 0.9), (-1.3, 1.35), (-1.12, 0.9), (-1.3, 0.45)]
    brush.part(tail)
    if brush.random.random() < 0.6:
        brush.part([(-0.25, 1.3), (-0.3, 1.72), (0.3, 1.32)])
    brush.part(ellipse(0, 0.9, 0.95, 0.55), shape="ball", gloss=0.4)
    brush.part(ellipse(0.55, 1.02, 0.12, 0.12), WHITE)
    brush.part(ellipse(0.57, 1.02, 0.055, 0.055), BLACK, outlined=False)


def flower(brush: Brush) -> None:
    brush.shadow(0.35, 0.09)
    green = COLOURS["green"]
    brush.part(box(-0.05, 0, 0.05, 1.45), green)
    if brush.random.random() < 0.7:
        leaf = ellipse(0, 0, 0.32, 0.13) @ np.array([[0.87, 0.49], [-0.49, 0.87]])
        brush.part(np.add(leaf, (0.3, 0.55)), green)
    petals = brush.random.integers(5, 8)
    for angle in 0.3 + np.arange(petals) * 2 * np.pi / petals:
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        petal = (ellipse(0.40, 0, 0.27, 0.2)) @ turn
        brush.part(np.add(petal, (0, 1.45)), normal=(-0.25, -0.4, 0.8))
    brush.part(ellipse(0, 1.45, 0.2, 0.2), COLOURS["yellow"], "ball")


def mushroom(brush: Brush) -> None:
    brush.shadow(0.5, 0.15)
    half = brush.random.uniform(0.2, 0.3)
    brush.part(
        [(-half * 1.15, 0), (-half * 0.85, 1), (half * 0.85, 1), (half * 1.15, 0)], CREAM, "tube"
    )
    low = ellipse(0, 0.85, 0.9, 0.15, begin=np.pi)
    brush.part(
        np.concatenate([ellipse(0, 0.85, 0.9, 0.85, end=np.pi), low]), shape="ball", gloss=0.2
    )
    if brush.random.random() < 0.5:
        for x, y, r in ((-0.42, 1.15, 0.13), (0.05, 1.42, 0.14), (0.45, 1.12, 0.12)):
            brush.part(ellipse(x, y, r, r * 0.9), WHITE)


@dataclass(frozen=True)
class Thing:
    """draw: draws it with a brush. usual: its main colour. dyeable: whether a prompt can name
    another colour. own_size: relative to other things."""

    draw: Callable[[Brush], None]
    setting: Setting
    usual: Colour
    dyeable: bool = True
    own_size: float = 1.0


THINGS: dict[str, Thing] = {
    "ball": Thing(ball, "table", COLOURS["red"]),
    "cube": Thing(cube, "table", COLOURS["yellow"]),
    "cylinder": Thing(cylinder, "table", COLOURS["blue"]),
    "cone": Thing(cone, "table", COLOURS["orange"]),
    "mug": Thing(mug, "table", COLOURS["blue"]),
    "apple": Thing(apple, "table", COLOURS["red"]),
    "house": Thing(house, "land", CREAM),
    "tree": Thing(tree, "land", COLOURS["green"], dyeable=False),
    "car": Thing(car, "land", COLOURS["red"], own_size=0.9),
    "flower": Thing(flower, "land", COLOURS["pink"]),
    "mushroom": Thing(mushroom, "land", COLOURS["red"]),
    "boat": Thing(boat, "water", COLOURS["red"]),
    "fish": Thing(fish, "water", COLOURS["orange"], own_size=0.8),
    "sun": Thing(sun, "sky", COLOURS["yellow"], dyeable=False, own_size=0.45),
    "cloud": Thing(cloud, "sky", WHITE, dyeable=False, own_size=0.45),
}
