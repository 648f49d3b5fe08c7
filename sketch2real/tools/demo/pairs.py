"""Scenes by seed: each seed gives one sketch and its picture, on every machine."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tools.demo import backgrounds, captions
from tools.demo.brush import Brush, Setting
from tools.demo.scene import DYE_FULL, Pen, Scene
from tools.demo.things import THINGS

HELD_OUT = 10_000_000
"""Training uses no seed from here on."""

MOST_THINGS = 4
OPEN_HORIZON = 0.58
"""The highest feet of several things in a sketch without a horizon."""

CENTRED = ("sun", "cloud", "moon")
"""Drawn about their middle."""

FLYING = (*CENTRED, "butterfly", "balloon", "plane", "star")

Bytes = npt.NDArray[np.uint8]


class Place(NamedTuple):
    """Where a thing's feet stand, in shares of the page, and page shares per own unit."""

    x: float
    ground: float
    size: float


@dataclass(frozen=True)
class Drawn:
    """A scene in any colours: the picture is base + dye / DYE_FULL × colour of the thing in `slot`.

    sketch: (256, 256) uint8, white on black. base: (256, 256, 3) uint8 sRGB. dye: (256, 256) uint8.
    slot: (256, 256) uint8, 0 for no thing, n for the nth. things: (name, material) of each.
    """

    sketch: Bytes
    base: Bytes
    dye: Bytes
    slot: Bytes
    things: list[tuple[str, str]]


@dataclass(frozen=True)
class Pair:
    """A scene with a caption. picture: (256, 256, 3) uint8 sRGB.

    regions: where the dyed part of each thing shows; words: the colour word for it, "" for none.
    """

    sketch: Bytes
    picture: Bytes
    prompt: str
    regions: list[npt.NDArray[np.bool_]]
    words: list[str]


def make(seed: int, *, plain: bool = False) -> Pair:
    """The pair of `seed`. plain: every thing has a colour word of a clear hue, for evaluation."""
    drawn = draw(seed)
    said = captions.say(np.random.default_rng((seed, 1)), drawn.things, plain=plain)
    numbers = range(1, len(drawn.things) + 1)
    regions = [(drawn.slot == number) & (drawn.dye > DYE_FULL * 0.15) for number in numbers]
    return Pair(drawn.sketch, coloured(drawn, said.colours), said.caption, regions, said.words)


def coloured(drawn: Drawn, colours: list[tuple[float, float, float]]) -> Bytes:
    """The picture with these colours of its things."""
    table = np.array([(0, 0, 0), *colours], np.float32) * (255 / DYE_FULL)
    exact = drawn.base + drawn.dye[..., None] * table[drawn.slot]
    return np.asarray(np.clip(exact + 0.5, 0, 255), np.uint8)


def draw(seed: int) -> Drawn:
    """The scene of `seed`."""
    random = np.random.default_rng(seed)
    scene = Scene(random, _pen(random))
    names = list(THINGS)
    first = names[int(random.integers(len(names)))]
    settings = THINGS[first].settings
    setting: Setting = settings[0 if random.random() < 0.7 else -1]
    alone = bool(random.random() < 0.55)
    if setting == "sky" and not alone:
        setting = "land"
    has_horizon = bool(setting != "sky" and random.random() < (0.4 if alone else 0.7))
    horizon = float(random.uniform(0.45, 0.82)) if has_horizon else None
    places = (_alone if alone else _several)(random, first, setting, horizon)
    # Without a line, the meadow ends a little above the feet of what stands on it.
    feet = min((place[1] for name, place in places if not _flies(name)), default=0.7)
    meets = float(np.clip(feet - 0.1, 0.36, 0.62)) if horizon is None else horizon
    limit = backgrounds.paint(scene, setting, meets, is_drawn=horizon is not None)
    if horizon is not None:
        scene.stroke(np.array([(-0.02, horizon), (1.02, horizon)], np.float32))
    things = [_draw(scene, name, setting, place, limit) for name, place in places]
    base, dye, slot = scene.finished()
    return Drawn(scene.finished_sketch(), base, dye, slot, things)


def _pen(random: np.random.Generator) -> Pen:
    """A style of line. Cleaning gives all strokes one width, hence most are of that width."""
    width = random.uniform(3.3, 4.6)
    kind = random.random()
    if kind < 0.3:  # a steady hand
        return Pen(width, random.uniform(0.0, 0.003))
    if kind < 0.5:  # thin or thick
        return Pen(random.choice([random.uniform(1.6, 3.0), random.uniform(5, 7.5)]), 0.003)
    if kind < 0.7:  # a finger
        return Pen(width, random.uniform(0.004, 0.009), random.uniform(0.0, 0.0016))
    if kind < 0.82:  # strokes that are repeated and go too far
        return Pen(width, random.uniform(0.003, 0.006), 0.0, random.uniform(0.3, 0.9),
                   random.uniform(0, 0.015))  # fmt: skip
    if kind < 0.92:  # unclosed
        return Pen(width, random.uniform(0.002, 0.005), gaps=random.uniform(0.05, 0.2))
    return Pen(  # a pencil
        random.uniform(2.0, 3.4), random.uniform(0.002, 0.005), random.uniform(0.0004, 0.0012),
        random.uniform(0.2, 0.7), random.uniform(0, 0.01), random.uniform(0, 0.12),
    )  # fmt: skip


def _flies(name: str) -> bool:
    return "sky" in THINGS[name].settings


def _alone(
    random: np.random.Generator, name: str, setting: Setting, horizon: float | None
) -> list[tuple[str, Place]]:
    """One thing, mostly as large as a cleaned sketch shows it."""
    thing = THINGS[name]
    fitting = min(0.86 / thing.tall, 0.86 / thing.wide)
    size = fitting * (
        random.uniform(0.8, 1.0) if random.random() < 0.7 else random.uniform(0.4, 0.8)
    )
    height = size * thing.tall
    x = 0.5 + np.clip(random.normal(0, 0.3), -0.5, 0.5) * max(0.0, 0.94 - size * thing.wide)
    spare = max(0.0, 0.92 - height)
    if _flies(name):
        middle = 0.5 + np.clip(random.normal(0, 0.25), -0.5, 0.5) * spare
        ground = middle if name in CENTRED else middle + height / 2
    elif horizon is not None and setting != "water":
        ground = random.uniform(min(max(horizon + 0.02, height + 0.04), 0.95), 0.96)
    else:
        ground = 0.5 + height / 2 + np.clip(random.normal(0, 0.2), -0.4, 0.4) * spare
    return [(name, Place(float(x), float(min(ground, 0.97)), float(size)))]


def _several(
    random: np.random.Generator, first: str, setting: Setting, horizon: float | None
) -> list[tuple[str, Place]]:
    """Two to four things; those in the sky first, then from the rear to the front."""
    count = int(random.choice([2, 3, 4], p=[0.55, 0.3, 0.15]))
    level = OPEN_HORIZON if horizon is None else horizon
    overhead = [first] if _flies(first) else []
    if setting in ("land", "water") and random.random() < 0.5:
        near = random.random() < 0.7
        choice = [name for name in (CENTRED if near else FLYING) if name != first]
        overhead.append(choice[int(random.integers(len(choice)))])
    placed = [
        (name, _in_the_sky(random, name, index, level)) for index, name in enumerate(overhead)
    ]
    # No two of a kind: a caption could not tell them apart.
    standing = [
        name for name, thing in THINGS.items() if setting in thing.settings and name != first
    ]
    below = [] if _flies(first) else [first]
    more = min(max(0, count - len(below) - len(overhead)), len(standing))  # few swim
    below += [standing[k] for k in random.choice(len(standing), more, replace=False)]
    share = 0.92 / max(len(below), 1)
    across = 0.04 + share * (np.arange(len(below)) + 0.5)
    random.shuffle(across)
    low = max(level + 0.06, 0.5) if setting == "water" else level + 0.03
    feet = [
        (name, _on_the_ground(random, name, (float(x), share), low))
        for x, name in zip(across, below, strict=True)
    ]
    return placed + sorted(feet, key=lambda item: item[1].ground)


def _in_the_sky(random: np.random.Generator, name: str, index: int, level: float) -> Place:
    thing = THINGS[name]
    size = min(random.uniform(0.2, 0.36) / max(thing.tall, thing.wide), 0.2)
    x, y = random.uniform(0.15, 0.45) + 0.42 * index, random.uniform(0.14, max(0.18, level * 0.5))
    ground = y if name in CENTRED else y + size * thing.tall / 2
    return Place(float(x), float(ground), float(size))


def _on_the_ground(
    random: np.random.Generator, name: str, room: tuple[float, float], highest: float
) -> Place:
    """room: its middle and width in shares of the page. highest: where the feet may be."""
    thing = THINGS[name]
    (x, share), tall = room, random.uniform(0.4, 0.62)
    size = min(share * random.uniform(0.75, 1.15) / thing.wide, tall / thing.tall)
    size *= 0.6 + 0.4 * thing.own_size
    low = max(highest, min(size * thing.tall + 0.03, 0.9))
    ground = random.uniform(min(low, 0.93), 0.95)
    return Place(float(x + random.normal(0, 0.02)), float(ground), float(size))


def _draw(scene: Scene, name: str, setting: Setting, place: Place, limit: float) -> tuple[str, str]:
    """Returns the thing's name and its material."""
    random, thing = scene.random, THINGS[name]
    scene.begin_thing()
    material = ""
    if thing.materials and random.random() < 0.25:
        material = str(thing.materials[int(random.integers(len(thing.materials)))])
    brush = Brush(
        scene, *place,
        stretch=float(random.uniform(0.9, 1.12)),
        lean=float(random.normal(0, 0.05 if _flies(name) else 0.012)),
        flipped=bool(random.random() < 0.5),
        material=material,
        gloss=thing.gloss,
    )  # fmt: skip
    thing.draw(brush)
    casts = not _flies(name) and not (setting == "water" and name == "fish")
    scene.end_thing(place.ground if casts else None, limit)
    return name, material
