"""Draw shapes.png, the sample picture: `python draw.py`. The seed is fixed; so is the result."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 480, 360
SEED = 7


def ground() -> Image.Image:
    """A grey-green ground of soft patches with a little noise."""
    rng = np.random.default_rng(SEED)
    patches = Image.fromarray(rng.integers(0, 255, (5, 6), dtype=np.uint8))
    soft = np.asarray(patches.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    base = np.array([150.0, 158.0, 148.0], np.float32)
    pixels = base + (soft[..., None] - 128) * 0.16 + rng.normal(0, 4, (HEIGHT, WIDTH, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Ten corners of a five-pointed star, in px."""
    reach = [radius, radius * 0.43] * 5
    angles = [k * math.pi / 5 - math.pi / 2 for k in range(10)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def main() -> None:
    """Four shapes, drawn at twice the size and scaled down for smooth edges."""
    canvas = ground().resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    pen.ellipse((80, 90, 330, 340), fill=(222, 32, 38))
    pen.regular_polygon((690, 210, 150), 4, rotation=12, fill=(38, 84, 214))
    pen.polygon(star(260, 540, 125), fill=(246, 218, 40))
    pen.regular_polygon((690, 560, 120), 3, rotation=8, fill=(40, 160, 70))
    canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX).save(
        Path(__file__).parent / "shapes.png", optimize=True
    )


if __name__ == "__main__":
    main()
