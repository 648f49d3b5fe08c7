"""Draws sketch.png: a house, a tree and the sun, in the wobbly line of a pen on paper.

Run in this folder: `python draw.py`. The seed is fixed; the file comes out the same.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 768
OVERSAMPLING = 2
PEN_PX = 9
PAPER, PEN = (250, 248, 242), (38, 40, 48)


class Hand:
    """Draws slightly wobbly lines through points given as shares of the page."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        side = SIDE_PX * OVERSAMPLING
        self.page = Image.new("RGB", (side, side), PAPER)
        self._pen = ImageDraw.Draw(self.page)

    def line(self, *points: tuple[float, float], closed: bool = False) -> None:
        """One stroke through `points`."""
        way = np.array([*points, points[0]] if closed else points, dtype=float)
        lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
        count = max(8, int(lengths[-1] * 120))
        along = np.linspace(0, lengths[-1], count)
        knots = max(4, int(lengths[-1] * 10))
        stroke = np.stack(
            [
                np.interp(along, lengths, way[:, axis])
                + np.interp(
                    np.linspace(0, 1, count),
                    np.linspace(0, 1, knots),
                    self.random.normal(0, 0.0025, knots),
                )
                for axis in (0, 1)
            ],
            axis=1,
        )
        scale, width = SIDE_PX * OVERSAMPLING, PEN_PX * OVERSAMPLING
        dots = [(float(x) * scale, float(y) * scale) for x, y in stroke]
        self._pen.line(dots, fill=PEN, width=width, joint="curve")
        for x, y in (dots[0], dots[-1]):  # a round nib
            self._pen.ellipse(
                (x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=PEN
            )

    def ring(self, x: float, y: float, rx: float, ry: float, waves: int = 0) -> None:
        """An ellipse about (x, y), its outline bulging `waves` times, as a treetop's does."""
        angle = np.linspace(0, 2 * np.pi, 64)
        bulge = 1 + (0.07 * np.cos(waves * angle) if waves else 0 * angle)
        self.line(*zip(x + rx * bulge * np.cos(angle), y + ry * bulge * np.sin(angle), strict=True))


def house(hand: Hand, x: float, ground: float, size: float) -> None:
    """Walls, a gable roof, a door and a window, standing on `ground`."""
    w, h = size * 0.95, size * 1.15
    eaves = ground - h
    hand.line((x - w, eaves), (x - w, ground), (x + w, ground), (x + w, eaves))
    hand.line((x - w * 1.15, eaves), (x, eaves - size * 0.85), (x + w * 1.15, eaves), closed=True)
    d = w * 0.17
    hand.line(
        (x - d, ground), (x - d, ground - h * 0.55), (x + d, ground - h * 0.55), (x + d, ground)
    )
    q, wx, wy = w * 0.16, x + w * 0.62, ground - h * 0.62
    hand.line((wx - q, wy - q), (wx + q, wy - q), (wx + q, wy + q), (wx - q, wy + q), closed=True)


def tree(hand: Hand, x: float, ground: float, size: float) -> None:
    """A round tree."""
    t = size * 0.12
    hand.line((x - t, ground), (x - t * 0.8, ground - size * 0.8))
    hand.line((x + t, ground), (x + t * 0.8, ground - size * 0.8))
    hand.line((x - t, ground), (x + t, ground))
    hand.ring(x, ground - size * 1.45, size * 0.7, size * 0.67, waves=7)


def sun(hand: Hand, x: float, y: float, size: float) -> None:
    """A disc with ten rays."""
    hand.ring(x, y, size, size)
    for angle in np.arange(10) * 2 * np.pi / 10 + 0.2:
        dx, dy = np.cos(angle) * size, np.sin(angle) * size
        hand.line((x + dx * 1.3, y + dy * 1.3), (x + dx * 1.8, y + dy * 1.8))


def main() -> None:
    hand = Hand(seed=5)
    house(hand, 0.40, 0.82, 0.23)
    tree(hand, 0.80, 0.80, 0.17)
    sun(hand, 0.80, 0.17, 0.07)
    hand.line((0.0, 0.61), (0.165, 0.612))
    hand.line((0.64, 0.61), (0.69, 0.612))
    hand.line((0.92, 0.608), (1.0, 0.61))
    page = hand.page.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    page.save(Path(__file__).with_name("sketch.png"), optimize=True)


if __name__ == "__main__":
    main()
