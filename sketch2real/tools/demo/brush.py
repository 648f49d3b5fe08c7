"""Draws one thing onto a scene, part by part, in the thing's own coordinates.

x to the right, y up, feet at y = 0; a thing is about 2 high.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tools.demo.scene import OPEN, Colour, Layers, Scene, Shape
from tools.demo.shapes import Outline, Points, band, ellipse

Setting = Literal["table", "floor", "land", "water", "sky"]
FRONT: Colour = (0.0, 0.0, 1.0)
TOP: Colour = (0.0, -0.9, 0.5)
SIDE: Colour = (0.9, 0.0, 0.35)

WOOD: Colour = (0.60, 0.40, 0.23)
DARK_WOOD: Colour = (0.40, 0.26, 0.16)
CREAM: Colour = (0.93, 0.87, 0.74)
WHITE: Colour = (0.96, 0.96, 0.95)
GLASS: Colour = (0.60, 0.80, 0.92)
BLACK: Colour = (0.10, 0.10, 0.12)
METAL: Colour = (0.66, 0.68, 0.71)
LEAF: Colour = (0.28, 0.58, 0.22)
SKIN: Colour = (0.95, 0.76, 0.62)
GOLD: Colour = (0.93, 0.74, 0.26)
TYRE: Colour = (0.15, 0.15, 0.17)
CORAL: Colour = (0.93, 0.55, 0.55)


@dataclass
class Brush:
    """x, ground: where the feet stand, in shares of the page. size: page shares per own unit.

    stretch: across against along. lean: radians. flipped: left and right change places. material:
    "" or the texture of what is dyed. gloss: of what is dyed.
    """

    scene: Scene
    x: float
    ground: float
    size: float
    stretch: float = 1.0
    lean: float = 0.0
    flipped: bool = False
    material: str = ""
    gloss: float = 0.3
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = self.scene.random

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def placed(self, points: Outline) -> Points:
        """(N, 2) own coordinates as page coordinates."""
        own = np.asarray(points, np.float32) * (self.stretch * (-1 if self.flipped else 1), -1.0)
        cosine, sine = np.cos(self.lean), np.sin(self.lean)
        rotated = own @ np.array([[cosine, sine], [-sine, cosine]])
        return np.asarray(rotated * self.size + (self.x, self.ground), np.float32)

    def part(
        self,
        points: Outline,
        colour: Colour | None = None,
        shape: Shape = "pillow",
        *,
        bevel: float = 0.25,
        normal: Colour = FRONT,
        gloss: float | None = None,
        texture: str | None = None,
        outlined: bool = True,
        drop: float = 0.35,
    ) -> None:
        """A polygon in front of what was drawn so far, in the caption's colour if none is given.

        bevel: radius of the round rim, in own units. drop: depth of its shadow on the parts behind.
        """
        page = self.placed(points)
        facing = (-normal[0] if self.flipped else normal[0], normal[1], normal[2])
        dyed = colour is None
        surface = (self.material if dyed else "") if texture is None else texture
        shine = (self.gloss if dyed else 0.15) if gloss is None else gloss
        self.scene.shade(
            page, colour, shape, bevel=bevel * self.size, normal=facing, gloss=shine,
            texture=surface, scale=self.size, drop=drop,
        )  # fmt: skip
        self.scene.erase(page)
        if not outlined:
            return
        if len(page) == 4 and self.chance(OPEN):
            self.scene.stroke(page)  # people often leave out the bottom line of a door or a wall
        else:
            self.scene.stroke(page, closed=True)

    def slab(self, points: Outline, colour: Colour | None = None, *, normal: Colour = FRONT,
             bevel: float = 0.05, gloss: float | None = None, texture: str | None = None,
             outlined: bool = True, drop: float = 0.35) -> None:  # fmt: skip
        """A flat part with a narrow round rim."""
        self.part(
            points, colour, "flat", bevel=bevel, normal=normal, gloss=gloss, texture=texture,
            outlined=outlined, drop=drop,
        )  # fmt: skip

    def limb(
        self, points: Outline, widths: float | list[float], colour: Colour | None = None,
        *, gloss: float | None = None, texture: str | None = None, outlined: bool = True,
    ) -> None:  # fmt: skip
        """A round band along `points`."""
        widest = max(widths) if isinstance(widths, list) else widths
        self.part(
            band(points, widths), colour, bevel=widest, gloss=gloss, texture=texture,
            outlined=outlined,
        )  # fmt: skip

    def dot(self, x: float, y: float, radius: float, colour: Colour = BLACK) -> None:
        """An eye, a button: a dot in picture and sketch."""
        outline = ellipse(x, y, radius, radius)
        self.part(outline, colour, "ball", gloss=0.5, drop=0)
        self.scene.erase(self.placed(outline))
        self.scene.stroke(self.placed(ellipse(x, y, radius * 0.45, radius * 0.45)), closed=True)

    def stroke(self, points: Outline) -> None:
        """A line in the sketch alone."""
        self.scene.stroke(self.placed(points))

    def line(self, points: Outline, half_width: float, colour: Colour) -> None:
        """A thin line in picture and sketch."""
        page = self.placed(band(points, half_width))
        self.scene.shade(
            page, colour, "flat", bevel=0, normal=FRONT, gloss=0, drop=0, scale=self.size
        )
        self.scene.stroke(self.placed(points))

    def hole(self, points: Outline, behind: Layers) -> None:
        """Show within `points` what `scene.layers()` returned before: the gap of a handle."""
        page = self.placed(points)
        self.scene.restore(page, behind)
        self.scene.erase(page)
        self.scene.stroke(page, closed=True)


@dataclass(frozen=True)
class Thing:
    """Something that can be drawn.

    draw: draws it with a brush. settings: where it is found, the usual one first. usual: the
    colour word of what a caption dyes. materials: which a caption can name. own_size: relative to
    others. tall: its height in own units, wide: its width. fixed: a caption cannot dye it.
    """

    draw: Callable[[Brush], None]
    settings: tuple[Setting, ...]
    usual: str
    materials: tuple[str, ...] = ()
    own_size: float = 1.0
    tall: float = 2.0
    wide: float = 2.0
    fixed: bool = False
    gloss: float = 0.3
    fur: bool = False
