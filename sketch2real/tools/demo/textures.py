"""Surfaces: how much light a material returns at (x, y), about 1 on average, and noise for them.

x, y: float32 arrays of one shape, in units of the thing's own size, y down.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Grey = npt.NDArray[np.float32]

NOISE_PX = 512


def _noise(grains: tuple[tuple[float, float, float], ...], seed: int) -> Grey:
    """Noise that repeats at its borders, mean 0, deviation 1, of (down, across, weight) grains."""
    random = np.random.default_rng(seed)
    total = np.zeros((NOISE_PX, NOISE_PX), np.float32)
    for down, across, weight in grains:
        white = random.normal(0, 1, total.shape).astype(np.float32)
        soft = ndimage.gaussian_filter(white, (down, across), mode="wrap")
        total += weight * soft / soft.std()
    return np.asarray((total - total.mean()) / total.std(), np.float32)


CLOUDY = _noise(((40, 60, 1.0), (16, 24, 0.5), (6, 9, 0.25)), 1)
GRAIN = _noise(((1.2, 40, 1.0), (5, 70, 0.8)), 2)
GRASS = _noise(((3.5, 1.1, 1.0), (9, 16, 0.7)), 3)
FUR = _noise(((4.0, 1.6, 1.0),), 4)
RIPPLES = _noise(((1.6, 16, 1.0), (4, 40, 0.8)), 5)


def sampled(noise: Grey, x: Grey, y: Grey) -> Grey:
    """`noise` at (x, y) in pixels, without interpolation."""
    column, row = x.astype(np.int32) % NOISE_PX, y.astype(np.int32) % NOISE_PX
    return noise[row, column]


def _wooden(x: Grey, y: Grey) -> Grey:
    grain = sampled(GRAIN, x * 120 + 77, y * 120)
    rings = np.sin(y * 26 + 2.2 * sampled(CLOUDY, x * 60, y * 60))
    return np.asarray(0.97 + 0.09 * grain + 0.06 * rings, np.float32)


def _striped(x: Grey, y: Grey) -> Grey:
    return np.where(np.sin(y * 12.0) > 0, np.float32(1.06), np.float32(0.52))


def _spotted(x: Grey, y: Grey) -> Grey:
    row = np.floor(y / 0.36)
    u, v = (x / 0.36 + 0.5 * (row % 2)) % 1 - 0.5, (y / 0.36) % 1 - 0.5
    return np.where(u * u + v * v < 0.085, np.float32(0.5), np.float32(1.05))


def _woollen(x: Grey, y: Grey) -> Grey:
    rows = np.abs(np.sin(y * 34 + np.sin(x * 50) * 0.9))
    return np.asarray(0.78 + 0.3 * rows, np.float32)


def _fur(x: Grey, y: Grey) -> Grey:
    return np.asarray(1 + 0.085 * sampled(FUR, x * 130, y * 130), np.float32)


def _leafy(x: Grey, y: Grey) -> Grey:
    return np.asarray(1 + 0.15 * sampled(CLOUDY, x * 300, y * 380), np.float32)


def _bricks(x: Grey, y: Grey) -> Grey:
    row = np.floor(y / 0.13)
    u, v = (x / 0.3 + 0.5 * (row % 2)) % 1, (y / 0.13) % 1
    return np.where((u < 0.06) | (v < 0.13), np.float32(0.8), np.float32(1.0))


def _tiles(x: Grey, y: Grey) -> Grey:
    row = np.floor(y / 0.15)
    u, v = (x / 0.17 + 0.5 * (row % 2)) % 1, (y / 0.15) % 1
    return np.asarray(1.05 - 0.25 * v**3 - 0.12 * (u < 0.1), np.float32)


def _ribbed(x: Grey, y: Grey) -> Grey:
    return np.asarray(0.98 + 0.1 * np.sin(x * 22), np.float32)


TEXTURES: dict[str, Callable[[Grey, Grey], Grey]] = {
    "wooden": _wooden,
    "striped": _striped,
    "spotted": _spotted,
    "woollen": _woollen,
    "fur": _fur,
    "leafy": _leafy,
    "bricks": _bricks,
    "tiles": _tiles,
    "ribbed": _ribbed,
}
