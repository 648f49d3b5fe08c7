"""Scenes by seed: each seed gives one pair of a sketch and its picture, on every machine."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tools.demo.scene import Colour, Scene
from tools.demo.things import COLOURS, THINGS, Brush, Setting

HELD_OUT = 10_000_000
"""Training uses no seed from here on."""

PROMPTED_SHARE = 0.3
LOW_HORIZON = 0.72
PLAIN_HORIZON = 0.6
"""The horizon of a scene whose sketch has none."""

_SKY: tuple[Colour, Colour] = ((0.36, 0.62, 0.92), (0.82, 0.91, 0.98))
_WALL: tuple[Colour, Colour] = ((0.90, 0.86, 0.79), (0.80, 0.75, 0.68))
_GROUND: dict[Setting, tuple[Colour, Colour]] = {
    "land": ((0.42, 0.66, 0.30), (0.30, 0.54, 0.22)),
    "water": ((0.24, 0.52, 0.76), (0.10, 0.33, 0.60)),
    "table": ((0.58, 0.42, 0.28), (0.72, 0.54, 0.37)),
}


class Pair(NamedTuple):
    """sketch: (128, 128) uint8, white on black. picture: (128, 128, 3) uint8 sRGB.

    prompt: "" or the name of the first thing. regions: (128, 128) bool, where the main part of each
    thing shows; dyed: whether that part is of one saturated hue (a cloud or a cream wall is not).
    """

    sketch: npt.NDArray[np.uint8]
    picture: npt.NDArray[np.uint8]
    prompt: str
    regions: list[npt.NDArray[np.bool_]]
    dyed: list[bool]


def make(seed: int) -> Pair:
    """The pair of `seed`."""
    random = np.random.default_rng(seed)
    scene = Scene(random, pen_px=random.uniform(1.6, 2.3), wobble=random.uniform(0.001, 0.006))
    names = list(THINGS)
    first = names[random.integers(len(names))]
    setting = THINGS[first].setting
    ground: Setting = "land" if setting == "sky" else setting
    horizon = _background(scene, ground)
    count = int(random.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))
    standing = [name for name in names if THINGS[name].setting == ground]
    others = [standing[random.integers(len(standing))] for _ in range(count - 1)]
    prompted = bool(random.random() < PROMPTED_SHARE)
    colour_word = _colour_word(random, first) if prompted else ""
    dyed: list[bool] = []
    for name in _overhead(random, first, ground):
        size, x = random.uniform(0.06, 0.11), random.uniform(0.14, 0.86)
        y = random.uniform(0.12, max(0.14, horizon * 0.42))
        _draw(scene, name, (x, y, size), dyed)
    on_ground = [name for name in (first, *others) if THINGS[name].setting == ground]
    for place, name, main in _places(random, on_ground, horizon, len(on_ground)):
        _draw(scene, name, place, dyed, colour_word if main and name == first else "")
    prompt = f"{colour_word} {first}".strip() if prompted else ""
    return Pair(
        scene.finished_sketch(), scene.finished_picture(), prompt, scene.finished_regions(), dyed
    )


def _background(scene: Scene, ground: Setting) -> float:
    """Paint the background, draw the horizon in three of four sketches; returns its height."""
    random = scene.random
    drawn = random.random() < 0.75
    horizon = float(random.uniform(0.48, 0.84)) if drawn else PLAIN_HORIZON
    above = _WALL if ground == "table" else _SKY
    scene.fill(horizon, _jittered(random, above), _jittered(random, _GROUND[ground]))
    if drawn:
        scene.stroke(np.array([(-0.02, horizon), (1.02, horizon)], np.float32))
    return horizon


def _jittered(random: np.random.Generator, ends: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
    shift = random.normal(0, 0.02, 3)
    upper, lower = (np.clip(np.array(end) + shift, 0, 1) for end in ends)
    return (upper[0], upper[1], upper[2]), (lower[0], lower[1], lower[2])


def _colour_word(random: np.random.Generator, name: str) -> str:
    """A random colour for a thing that can have any, in three of four prompts."""
    if not THINGS[name].dyeable or random.random() < 0.25:
        return ""
    return list(COLOURS)[random.integers(len(COLOURS))]


def _overhead(random: np.random.Generator, first: str, ground: Setting) -> list[str]:
    """What is in the sky."""
    if ground == "table":
        return []
    names = [first] if THINGS[first].setting == "sky" else []
    return names + [name for name in ("sun", "cloud") if name != first and random.random() < 0.3]


def _places(
    random: np.random.Generator, names: list[str], horizon: float, count: int
) -> list[tuple[tuple[float, float, float], str, bool]]:
    """(x, ground, size), name, whether it is the first thing; the rearmost come first."""
    across = [random.uniform(0.3, 0.7)] if count == 1 else list(np.linspace(0.2, 0.8, count))
    random.shuffle(across)
    placed = []
    for index, name in enumerate(names):
        size = random.uniform(0.17, 0.34) if count == 1 else random.uniform(0.12, 0.2)
        if horizon > LOW_HORIZON:  # all stand on this line
            ground = horizon + random.uniform(0.0, 0.04)
        else:
            ground = random.uniform(max(horizon + 0.07, 0.68), 0.93)
        x = across[index] + (random.uniform(-0.05, 0.05) if count > 1 else 0.0)
        placed.append(((x, ground, size * THINGS[name].own_size), name, index == 0))
    return sorted(placed, key=lambda item: item[0][1])


def _draw(
    scene: Scene, name: str, place: tuple[float, float, float], dyed: list[bool], word: str = ""
) -> None:
    random, thing = scene.random, THINGS[name]
    colour = COLOURS[word] if word else thing.usual
    shades = np.clip(np.array(colour) + random.normal(0, 0.025, 3), 0.03, 0.97)
    scene.begin_thing()
    floats = thing.setting == "sky" or name == "fish"
    lean = 0.0 if floats else float(random.normal(0, 0.02))
    thing.draw(
        Brush(
            scene, *place, (shades[0], shades[1], shades[2]),
            stretch=float(random.uniform(0.88, 1.15)), lean=lean,
            mirrored=bool(random.random() < 0.5),
        )
    )  # fmt: skip
    dyed.append(max(shades) - min(shades) > 0.3 and name != "cloud")
