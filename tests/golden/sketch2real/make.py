"""Draws the golden set: sketches as a phone, a scanner or a canvas would deliver them, lines known.

Run by `make golden` only, or `python tests/golden/sketch2real/make.py`. Everything comes out of
this file and fixed seeds; no picture of anyone else's is used. For each case it writes the picture
(`NAME.jpg` or `.png`) and the true centrelines (`NAME.lines.png`, 1 bit), and their sha256 into
`manifest.json`.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

HERE = Path(__file__).parent
WIDTH, HEIGHT = 960, 720
OVERSAMPLING = 2
INK_WIDTH_PX = 4.0

Stroke = np.ndarray
"""(N, 2) points in px of the final page."""


def arc(x: float, y: float, rx: float, ry: float, *span: float) -> Stroke:
    """An ellipse, or its part over `span` (start, end) in degrees."""
    angle = np.radians(np.linspace(*(span or (0, 360)), 60))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def way(*points: tuple[float, float]) -> Stroke:
    return np.array(points, dtype=float)


def village() -> list[Stroke]:
    strokes = [
        way((250, 560), (250, 330), (520, 330), (520, 560), (250, 560)),
        way((220, 330), (385, 190), (550, 330), (220, 330)),
        way((350, 560), (350, 440), (420, 440), (420, 560)),
        way((450, 380), (495, 380), (495, 425), (450, 425), (450, 380)),
        way((680, 570), (685, 440)),
        way((720, 570), (715, 440)),
        arc(700, 360, 85, 90),
        arc(800, 140, 45, 45),
        way((60, 575), (250, 565)),
        way((520, 565), (900, 580)),
    ]
    for angle in np.radians(np.arange(0, 360, 45)):
        ray = np.array([np.cos(angle), np.sin(angle)])
        strokes.append(np.stack([[800, 140] + ray * 60, [800, 140] + ray * 85]))
    return strokes


def cat() -> list[Stroke]:
    return [
        arc(480, 360, 190, 170),
        way((330, 255), (310, 110), (430, 200)),
        way((530, 200), (650, 110), (630, 255)),
        arc(410, 330, 28, 36),
        arc(550, 330, 28, 36),
        arc(410, 335, 8, 10),
        arc(550, 335, 8, 10),
        way((460, 400), (500, 400), (480, 422), (460, 400)),
        arc(450, 425, 30, 30, 0, 130),
        arc(510, 425, 30, 30, 50, 180),
        *(way((390, 410 + d), (230, 390 + 2 * d)) for d in (-15, 5, 25)),
        *(way((570, 410 + d), (730, 390 + 2 * d)) for d in (-15, 5, 25)),
    ]


def hand_drawn(strokes: list[Stroke], seed: int) -> list[Stroke]:
    """The strokes resampled every 3 px with a slow tremor of about 2 px."""
    random = np.random.default_rng(seed)
    drawn = []
    for stroke in strokes:
        steps = np.linalg.norm(np.diff(stroke, axis=0), axis=1)
        along = np.concatenate([[0], np.cumsum(steps)])
        places = np.linspace(0, along[-1], max(8, int(along[-1] / 3)))
        points = np.stack([np.interp(places, along, stroke[:, axis]) for axis in (0, 1)], axis=1)
        knots = max(4, int(along[-1] / 60))
        for axis in (0, 1):
            tremor = random.normal(0, 1.6, knots)
            points[:, axis] += np.interp(places, np.linspace(0, along[-1], knots), tremor)
        drawn.append(points)
    return drawn


@dataclass
class Page:
    """A sheet being photographed: its picture (float, 0 to 1, RGB) and its strokes, in px."""

    pixels: np.ndarray
    strokes: list[Stroke]
    random: np.random.Generator


def sheet(
    strokes: list[Stroke],
    seed: int,
    *,
    paper: tuple[int, int, int] = (246, 244, 238),
    ink: tuple[int, int, int] = (35, 35, 45),
    ruled: Callable[[ImageDraw.ImageDraw, int], None] | None = None,
    width_px: float = INK_WIDTH_PX,
) -> Page:
    """`strokes` in `ink` on `paper`, over its printed lines."""
    drawn = hand_drawn(strokes, seed)
    size = (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING)
    picture = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(picture)
    if ruled:
        ruled(pen, OVERSAMPLING)
    for stroke in drawn:
        points = [(float(x) * OVERSAMPLING, float(y) * OVERSAMPLING) for x, y in stroke]
        pen.line(points, fill=ink, width=round(width_px * OVERSAMPLING), joint="curve")
    small = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return Page(np.asarray(small, dtype=float) / 255, drawn, np.random.default_rng(seed))


def blue_rules(pen: ImageDraw.ImageDraw, scale: int) -> None:
    """Ruled school paper: light blue every 34 px, a light red margin."""
    for y in range(50, HEIGHT, 34):
        pen.line((0, y * scale, WIDTH * scale, y * scale), fill=(172, 202, 232), width=scale * 2)
    pen.line((90 * scale, 0, 90 * scale, HEIGHT * scale), fill=(238, 176, 176), width=scale * 2)


def grey_squares(pen: ImageDraw.ImageDraw, scale: int) -> None:
    """Squared paper: light grey every 30 px both ways."""
    for at in range(15, WIDTH, 30):
        pen.line((at * scale, 0, at * scale, HEIGHT * scale), fill=(206, 208, 214), width=scale * 2)
        pen.line((0, at * scale, WIDTH * scale, at * scale), fill=(206, 208, 214), width=scale * 2)


def lit_from_left(page: Page) -> None:
    """A lamp on the left: the right edge has a third of its light, and it is warm."""
    ramp = np.linspace(1.0, 0.33, WIDTH)[None, :, None]
    page.pixels = page.pixels * ramp * np.array([1.0, 0.94, 0.82])


def under_a_hand(page: Page) -> None:
    """The shadow of a hand and phone with a fairly sharp edge, half as bright, across the page."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (x - 620) * 0.8 + (y - 330) * 0.6 > 0
    shade = ndimage.gaussian_filter(np.where(inside, 0.5, 1.0), 6)
    page.pixels = page.pixels * shade[..., None]


def on_a_table(page: Page) -> None:
    """Photographed at an angle on a dark wooden table, the page's corners in view."""
    corners = np.array([(90, 60), (880, 30), (930, 690), (30, 660)], dtype=float)
    page_corners = np.array([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], dtype=float)
    forth, back = homography(page_corners, corners), homography(corners, page_corners)
    picture = Image.fromarray((page.pixels * 255).round().astype(np.uint8))
    coefficients = tuple((back / back[2, 2]).ravel()[:8])
    warped = picture.transform(
        (WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    inside = Image.new("L", (WIDTH, HEIGHT), 255).transform(
        (WIDTH, HEIGHT), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    grain = ndimage.gaussian_filter(page.random.normal(0, 1, (HEIGHT, WIDTH)), (1, 40)) * 0.4
    table = np.array([0.33, 0.22, 0.14]) * (1 + grain[..., None])
    cover = np.asarray(inside, dtype=float)[..., None] / 255
    page.pixels = np.asarray(warped, dtype=float) / 255 * cover + table * (1 - cover)
    page.strokes = [carried(forth, stroke) for stroke in page.strokes]


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3), taking the four `source` points to the four `target` points."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution = np.linalg.solve(np.array(rows), target.ravel())
    return np.append(solution, 1.0).reshape(3, 3)


def carried(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(moved[:, :2] / moved[:, 2:])


def by_night(page: Page) -> None:
    """Too little light: dim, a soft focus and the grain of a high ISO."""
    soft = ndimage.gaussian_filter(page.pixels, (1.0, 1.0, 0)) * 0.45
    page.pixels = soft + page.random.normal(0, 0.03, soft.shape)


def negative(page: Page) -> None:
    page.pixels = 1.0 - page.pixels


CASES: dict[str, Callable[[], Page]] = {}


def case(make: Callable[[], Page]) -> Callable[[], Page]:
    CASES[make.__name__] = make
    return make


def changed(page: Page, *changes: Callable[[Page], None]) -> Page:
    for change in changes:
        change(page)
    return page


@case
def canvas() -> Page:
    return sheet(village(), 1, paper=(255, 255, 255), ink=(0, 0, 0))


@case
def chalkboard() -> Page:
    return sheet(cat(), 2, paper=(0, 0, 0), ink=(255, 255, 255))


@case
def lamp() -> Page:
    return changed(sheet(village(), 3), lit_from_left)


@case
def hand_shadow() -> Page:
    return changed(sheet(cat(), 4), under_a_hand)


@case
def table() -> Page:
    return changed(sheet(village(), 5), on_a_table, lit_from_left)


@case
def night() -> Page:
    return changed(sheet(cat(), 6), by_night)


@case
def ruled() -> Page:
    return changed(sheet(cat(), 7, ruled=blue_rules), lit_from_left)


@case
def squared() -> Page:
    return changed(sheet(village(), 8, ruled=grey_squares), under_a_hand)


@case
def pencil() -> Page:
    return changed(sheet(cat(), 9, ink=(172, 170, 168), width_px=3.0), lit_from_left)


@case
def crayon() -> Page:
    return sheet(village(), 10, ink=(250, 214, 60), width_px=8.0)


def lines_of(page: Page) -> Image.Image:
    """The true centrelines, 1 px wide, where they lie in the picture."""
    truth = Image.new("1", (WIDTH, HEIGHT), 0)
    pen = ImageDraw.Draw(truth)
    for stroke in page.strokes:
        pen.line([(float(x), float(y)) for x, y in stroke], fill=1, width=1)
    return truth


def photograph(page: Page) -> Image.Image:
    """What the sensor delivers: light noise, 8 bits, a phone's slight sharpening."""
    noisy = page.pixels + page.random.normal(0, 0.008, page.pixels.shape)
    picture = Image.fromarray((np.clip(noisy, 0, 1) * 255).round().astype(np.uint8))
    return picture.filter(ImageFilter.UnsharpMask(1, 40, 2))


def main() -> None:
    manifest = {}
    for name, make in CASES.items():
        page = make()
        picture, truth = HERE / f"{name}.jpg", HERE / f"{name}.lines.png"
        photograph(page).save(picture, quality=82)
        lines_of(page).save(truth, optimize=True)
        manifest[name] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (picture, truth)
        }
    text = {
        "source": "drawn by make.py in this folder, fixed seeds",
        "licence": "this project's",
        "tolerance_px": 4,
        "cases": manifest,
    }
    (HERE / "manifest.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
