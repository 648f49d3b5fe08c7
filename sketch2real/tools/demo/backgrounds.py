"""What is behind the things: a meadow, water, sky, a room, a table, a studio."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tools.demo import textures
from tools.demo.brush import Setting
from tools.demo.scene import OVERSAMPLING, SIDE_PX, Colour, Scene

Layer = npt.NDArray[np.float32]

_PX = SIDE_PX * OVERSAMPLING
_ALONG = (np.arange(_PX, dtype=np.float32) + 0.5) / _PX
_Y, _X = np.meshgrid(_ALONG, _ALONG, indexing="ij")

_SKY: tuple[Colour, Colour] = ((0.30, 0.56, 0.90), (0.84, 0.92, 0.98))
_WALLS: dict[Setting, Colour] = {"table": (0.86, 0.84, 0.79), "floor": (0.80, 0.83, 0.82)}
_STUDIO: dict[Setting, Colour] = {"table": (0.87, 0.84, 0.80), "floor": (0.82, 0.84, 0.86)}


def paint(scene: Scene, setting: Setting, horizon: float, *, is_drawn: bool) -> float:
    """Paint the background of `setting`; returns where shadows end.

    horizon: its height; is_drawn: whether the sketch shows it. A room without is a studio.
    """
    random = scene.random
    if setting in ("table", "floor"):
        if not is_drawn:
            scene.fill(_studio(random, _STUDIO[setting]))
            return 0.0
        scene.fill(_room(random, setting, horizon))
        return horizon
    picture = _sky(random, 1.0 if setting == "sky" else horizon)
    if setting == "sky":
        scene.fill(picture)
        return 1.0
    below = _meadow(random, horizon) if setting == "land" else _water(random, horizon)
    haze = np.exp(-np.abs(_Y - horizon) * 22)[..., None] * 0.35
    below = below * (1 - haze) + np.array(_SKY[1], np.float32) * 0.8 * haze
    edge = np.clip((_Y - horizon) * _PX / 2 + 0.5, 0, 1)[..., None]
    scene.fill((picture * (1 - edge) + below * edge).astype(np.float32))
    return horizon


def _shifted(random: np.random.Generator, noise: Layer) -> Layer:
    return np.roll(noise, random.integers(0, _PX, 2), (0, 1))


def _mixed(share: npt.NDArray[np.floating[Any]], first: Colour, second: Colour) -> Layer:
    """(px, px, 3): `first` where share is 0, `second` where it is 1."""
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    return np.asarray(a + share[..., None].astype(np.float32) * (b - a))


def _sky(random: np.random.Generator, horizon: float) -> Layer:
    share = np.clip(_Y / horizon, 0, 1) ** 0.9
    veil = np.clip(_shifted(random, textures.CLOUDY) * 0.16 - 0.02, 0, 0.3) * (0.4 + 0.6 * share)
    return _mixed(np.clip(share + veil, 0, 1), *_SKY)


def _meadow(random: np.random.Generator, horizon: float) -> Layer:
    near = np.clip((_Y - horizon) / (1 - horizon + 1e-3), 0, 1)
    blades = _shifted(random, textures.GRASS) * (0.035 + 0.085 * near)
    patches = _shifted(random, textures.CLOUDY) * 0.05
    light = 1 + blades + patches - 0.16 * near
    return np.asarray(_mixed(near, (0.55, 0.72, 0.36), (0.36, 0.60, 0.20)) * light[..., None])


def _water(random: np.random.Generator, horizon: float) -> Layer:
    near = np.clip((_Y - horizon) / (1 - horizon + 1e-3), 0, 1)
    waves = _shifted(random, textures.RIPPLES)
    light = 1 + waves * (0.03 + 0.08 * near)
    glints = np.clip(waves - 1.7, 0, 1)[..., None] * 0.35
    return np.asarray(
        _mixed(near, (0.46, 0.70, 0.86), (0.09, 0.34, 0.58)) * light[..., None] + glints
    )


def _lamplight(strength: float) -> Layer:
    """Brighter at the upper left, darker in the far corners."""
    far = (_X - 0.34) ** 2 + (_Y - 0.26) ** 2
    return np.asarray(1.07 - strength * far, np.float32)


def _studio(random: np.random.Generator, colour: Colour) -> Layer:
    """A seamless backdrop."""
    floor = 0.94 + 0.1 * np.clip((_Y - 0.55) * 2.4, 0, 1)
    light = _lamplight(0.3) * floor + _shifted(random, textures.CLOUDY) * 0.006
    return np.asarray(light[..., None] * np.array(colour, np.float32))


def _room(random: np.random.Generator, setting: Setting, horizon: float) -> Layer:
    plaster = _shifted(random, textures.CLOUDY) * 0.012
    wall = (_lamplight(0.34) + plaster)[..., None] * np.array(_WALLS[setting], np.float32)
    near = np.clip((_Y - horizon) / (1 - horizon + 1e-3), 0, 1)
    grain = _shifted(random, textures.GRAIN) * (0.03 + 0.03 * near)
    depth = 1 / (near * 0.75 + 0.25)
    if setting == "table":
        boards = 1 - 0.16 * np.exp(-((((near * 3.1 + 0.3) % 1) - 0.5) ** 2) / 2e-4)
        ground = _mixed(near, (0.60, 0.42, 0.27), (0.74, 0.53, 0.34))
    else:
        across = (_X - 0.5) * depth * 3.4
        boards = 1 - 0.14 * np.exp(-((across % 1 - 0.5) ** 2) / 6e-4)
        ground = _mixed(near, (0.66, 0.55, 0.44), (0.76, 0.64, 0.50))
    light = (boards + grain) * (0.9 + 0.2 * np.exp(-((_X - 0.4) ** 2 + (near - 0.3) ** 2) * 3))
    edge = np.clip((_Y - horizon) * _PX / 2 + 0.5, 0, 1)[..., None]
    wall *= 1 - 0.2 * np.exp(-np.clip(horizon - _Y, 0, 1) * 30)[..., None]
    return np.asarray(wall * (1 - edge) + ground * light[..., None] * edge)
