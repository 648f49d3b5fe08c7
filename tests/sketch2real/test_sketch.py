"""sketch.py and strokes.py: the lines that were drawn are found, whatever they were drawn on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from errors import InvalidInput
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picture import load_rgb
from PIL import Image, ImageDraw
from scipy import ndimage
from shadows import narrow
from sketch import WORKING_SIDE_PX, find_ink
from strokes import centrelines, stroke_width_px, thinned

GOLDEN = Path(__file__).parents[1] / "golden" / "sketch2real"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text(encoding="utf-8"))
TOLERANCE_PX = MANIFEST["tolerance_px"]


def line_f1(found: np.ndarray, true: np.ndarray, tolerance_px: float = TOLERANCE_PX) -> float:
    """The F1 of two line maps, a pixel counting if the other map has one within the tolerance."""
    precision = (ndimage.distance_transform_edt(~true)[found] <= tolerance_px).mean()
    recall = (ndimage.distance_transform_edt(~found)[true] <= tolerance_px).mean()
    return float(2 * precision * recall / (precision + recall))


def lines_of(pixels: np.ndarray) -> np.ndarray:
    return centrelines(find_ink(pixels).mask)


@pytest.mark.parametrize("name", sorted(MANIFEST["cases"]))
def test_golden_sketches(name: str) -> None:
    """Shadows, tables, noise, rulings, pencil, crayon: F1 of the lines is at least 0.95."""
    for file, digest in MANIFEST["cases"][name].items():
        assert hashlib.sha256((GOLDEN / file).read_bytes()).hexdigest() == digest
    found = lines_of(load_rgb(GOLDEN / f"{name}.jpg", max_side_px=WORKING_SIDE_PX))
    true = np.asarray(Image.open(GOLDEN / f"{name}.lines.png")) > 0
    assert line_f1(found, true) >= 0.95


@pytest.mark.parametrize("level", [0, 1, 64, 127, 128, 254, 255])
def test_a_page_of_one_colour_is_refused(level: int) -> None:
    """An empty canvas and a solid black page have nothing to draw from."""
    with pytest.raises(InvalidInput, match="must show lines, got an empty page"):
        find_ink(np.full((300, 400, 3), level, np.uint8))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    light=st.floats(60, 230),
    grain=st.floats(0, 10),
    slope=st.floats(0, 0.6),
)
def test_an_empty_sheet_is_refused(seed: int, light: float, grain: float, slope: float) -> None:
    """Paper grain and uneven light are not taken for lines."""
    ramp = 1 - slope * np.linspace(0, 1, 400)[None, :, None]
    noise = np.random.default_rng(seed).normal(0, grain, (300, 400, 3))
    page = np.clip(light * ramp + noise, 0, 255).astype(np.uint8)
    with pytest.raises(InvalidInput):
        find_ink(page)


def test_polarity_does_not_matter(pixels: np.ndarray) -> None:
    """White on black gives the lines of black on white."""
    assert (lines_of(pixels) == lines_of(255 - pixels)).all()


@settings(max_examples=15, deadline=None)
@given(
    ink=st.tuples(*[st.integers(0, 255)] * 3),
    paper=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_any_two_colours_that_differ_give_the_same_lines(
    ink: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    """What colour the pen and the paper have does not matter, if one can tell them apart."""
    # Ink is darker paper (or lighter, on a dark ground): all channels move the same way.
    ink = tuple(min(a, b) for a, b in zip(ink, paper, strict=True))
    if max(b - a for a, b in zip(ink, paper, strict=True)) < 80:
        return
    for ground, pen in ((paper, ink), (tuple(255 - c for c in paper), tuple(255 - c for c in ink))):
        page = Image.new("RGB", (320, 240), ground)
        ImageDraw.Draw(page).rectangle((60, 60, 200, 180), outline=pen, width=4)
        true = np.zeros((240, 320), bool)
        true[61:180, [61, 198]] = true[[61, 178], 61:199] = True
        assert line_f1(lines_of(np.asarray(page)), true) > 0.98


@settings(max_examples=8, deadline=None)
@given(
    depth=st.floats(0.0, 0.7),
    direction=st.floats(0, 6.28),
    warmth=st.floats(0.6, 1.0),
    grain=st.floats(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_light_does_not_matter(
    depth: float, direction: float, warmth: float, grain: float, seed: int
) -> None:
    """Whatever side a lamp stands on, however warm, with the grain of a phone: the same lines."""
    page = Image.new("RGB", (400, 300), (240, 238, 232))
    pen = ImageDraw.Draw(page)
    pen.rectangle((80, 70, 200, 190), outline=(40, 40, 50), width=4)
    pen.ellipse((230, 90, 340, 210), outline=(40, 40, 50), width=4)
    plain = np.asarray(page)
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    away = (x * np.cos(direction) + y * np.sin(direction)) / 2**0.5
    light = (1 - depth * (away + 1) / 2)[..., None] * np.array([1.0, (1 + warmth) / 2, warmth])
    noise = np.random.default_rng(seed).normal(0, grain, plain.shape)
    lit = np.clip(plain * light + noise, 0, 255).astype(np.uint8)
    assert line_f1(lines_of(lit), lines_of(plain)) > 0.95


def shaded(page: Image.Image, width: float, blur: float, light: tuple[float, ...]) -> np.ndarray:
    """The page under the shadow of three fingers and a palm; what is left of red, green, blue."""
    mask = Image.new("L", page.size, 0)
    pen = ImageDraw.Draw(mask)
    for left in (390, 480, 570):
        pen.line((left, 200, left + 120, 620), fill=255, width=round(width))
        pen.ellipse(
            [left - width / 2, 200 - width / 2, left + width / 2, 200 + width / 2], fill=255
        )
    pen.rectangle((0, 600, 960, 720), fill=255)
    dark = ndimage.gaussian_filter(np.asarray(mask, float) / 255, blur)[..., None]
    lit = np.asarray(page) * (1 - dark * (1 - np.array(light)))
    grain = np.random.default_rng(0).normal(0, 2, lit.shape)
    return np.clip(lit + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("blur", [4, 8, 12])
@pytest.mark.parametrize("width", [30, 45, 60])
def test_the_shadow_of_fingers_is_no_ink(width: float, blur: float) -> None:
    """Not even where strokes cross it; the light of the sky in it is bluish."""
    page = Image.new("RGB", (960, 720), (240, 238, 232))
    pen = ImageDraw.Draw(page)
    pen.rectangle((180, 160, 480, 460), outline=(40, 40, 50), width=5)
    pen.ellipse((520, 180, 800, 500), outline=(40, 40, 50), width=5)
    pen.line((100, 540, 860, 540), fill=(40, 40, 50), width=5)
    found = lines_of(shaded(page, width, blur, (0.5, 0.52, 0.56)))
    assert line_f1(found, lines_of(np.asarray(page))) > 0.98


@pytest.mark.parametrize(
    ("colour", "blur"), [((120, 120, 120), 0.8), ((30, 30, 30), 4), ((235, 120, 120), 6)]
)
def test_thick_ink_is_no_shadow(colour: tuple[int, int, int], blur: float) -> None:
    """Grey that ends sharply, black that does not, soft colour: ink, however thick."""
    page = Image.new("RGB", (960, 720), (240, 238, 232))
    ImageDraw.Draw(page).ellipse((300, 250, 345, 480), fill=colour)
    soft = ndimage.gaussian_filter(np.asarray(page, np.float32) / 255, (blur, blur, 0))
    is_shadow, _ = narrow(soft[::3, ::3], np.full((240, 320, 3), 0.92, np.float32))
    assert not is_shadow.any()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_page_turns_the_lines(pixels: np.ndarray, turns: int) -> None:
    """No direction is preferred."""
    turned = lines_of(np.ascontiguousarray(np.rot90(pixels, turns)))
    assert line_f1(turned, np.rot90(lines_of(pixels), turns), tolerance_px=2) > 0.99


@pytest.mark.parametrize("width", [1, 2, 3, 5, 9, 15])
def test_stroke_width_is_measured_and_removed(width: int) -> None:
    """A line of any width becomes its centre, one pixel wide; its width is right within a pixel."""
    ink = np.zeros((200, 800), bool)
    ink[100 - width // 2 : 100 - width // 2 + width, 40:760] = True
    assert stroke_width_px(ink) == pytest.approx(width, abs=1)
    lines = centrelines(ink)
    assert (lines.sum(axis=0) <= 1).all()
    assert lines[99:102].any(axis=0)[50:750].all()


def test_specks_go_and_dots_stay() -> None:
    """Dust is dropped; an eye drawn with the same pen is not."""
    ink = np.zeros((200, 300), bool)
    ink[100:105, 40:260] = True
    ink[50:55, 100:105] = True  # an eye
    ink[20, 20] = ink[30, 200] = ink[180:182, 150] = True  # dust
    lines = centrelines(ink)
    assert lines[48:57, 98:107].any()
    assert not lines[:40].any()
    assert not lines[170:].any()


def test_filled_areas_become_outlines() -> None:
    """A disc filled with ink is drawn as a circle, not as the dot that thinning leaves."""
    y, x = np.mgrid[:300, :300]
    radius = np.hypot(y - 150, x - 150)
    lines = centrelines(radius < 80)
    true = np.abs(radius - 78) < 0.7
    assert line_f1(lines, true) > 0.95


def exercise_page(*, is_printed: bool, ground: bool = False, cut: bool = False) -> np.ndarray:
    """A tent and a circle by a dark pen; printed with sloping rulings and one red margin.

    ground: a line is drawn from edge to edge. cut: the rulings are printed over the margin.
    """
    page = Image.new("RGB", (640, 480), (244, 242, 235))
    pen = ImageDraw.Draw(page)
    if is_printed:
        for top in range(20, 480, 26):
            pen.line((0, top, 640, top + 8), fill=(170, 190, 225), width=2)
        pen.line((60, 0, 62, 480), fill=(228, 120, 120), width=3)
        for top in range(20, 480, 26) if cut else ():
            pen.line((0, top, 640, top + 8), fill=(170, 190, 225), width=2)
    pen.polygon([(180, 300), (250, 120), (320, 300)], outline=(40, 40, 50), width=5)
    pen.ellipse((360, 150, 520, 310), outline=(40, 40, 50), width=5)
    if ground:
        pen.line((0, 400, 640, 403), fill=(40, 40, 50), width=5)
    return np.asarray(page)


@pytest.mark.parametrize(("ground", "cut"), [(False, False), (True, False), (False, True)])
def test_printed_lines_go_and_drawn_ones_stay(ground: bool, cut: bool) -> None:
    """A lone margin goes, and the pieces of rulings within shapes; a drawn ground line stays."""
    bare = lines_of(exercise_page(is_printed=False, ground=ground))
    found = lines_of(exercise_page(is_printed=True, ground=ground, cut=cut))
    assert line_f1(found, bare, tolerance_px=3) > 0.99
    assert (~bare & found & (ndimage.distance_transform_edt(~bare) > 4)).sum() < 10
    assert found[390:415].any(axis=0).mean() > 0.95 or not ground


@pytest.mark.parametrize("grain", [0.06, 0.12])
def test_a_page_on_a_white_table_under_a_shadow_is_no_photograph(grain: float) -> None:
    """A striped table as light as the page, and a hand's soft shadow over half of both."""
    page = exercise_page(is_printed=False).astype(float) / 255
    y, x = np.mgrid[:640, :860].astype(float)
    table = 0.93 * (1 + grain * np.sin(x / 5))[..., None] * np.array([1.0, 0.985, 0.95])
    table[80:560, 110:750] = page
    hand = np.hypot(x - 700, y - 560) < 330
    table *= 1 - 0.6 * ndimage.gaussian_filter(hand.astype(float), 14)[..., None]
    ink = find_ink((table.clip(0, 1) * 255).astype(np.uint8))
    assert not ink.is_photo
    found = centrelines(ink.mask)[80:560, 110:750]
    assert line_f1(found, lines_of(exercise_page(is_printed=False)), tolerance_px=3) > 0.97


def test_a_photograph_gives_its_edges() -> None:
    """A picture without paper (shaded things all over) is taken for a photograph."""
    y, x = np.mgrid[:480, :640].astype(float)
    random = np.random.default_rng(3)
    photo = np.zeros((480, 640, 3))
    for _ in range(120):
        cy, cx, radius = random.uniform(0, 480), random.uniform(0, 640), random.uniform(20, 60)
        inside = np.hypot(y - cy, x - cx) < radius
        shade = np.clip(1 - ((x - cx) + (y - cy)) / radius * 0.5, 0, 1.5)[..., None]
        photo[inside] = (shade * random.uniform(40, 200, 3))[inside]
    ink = find_ink(np.clip(photo, 0, 255).astype(np.uint8))
    assert ink.is_photo
    assert 0.01 < ink.mask.mean() < 0.2


@settings(max_examples=40, deadline=None)
@given(
    cells=st.lists(st.tuples(st.integers(1, 28), st.integers(1, 38)), min_size=1, max_size=200),
    grow=st.integers(0, 3),
)
def test_thinning_keeps_what_is_connected(cells: list[tuple[int, int]], grow: int) -> None:
    """A skeleton lies in its ink, has its pieces and holes, and thinning it changes nothing."""
    ink = np.zeros((30, 40), bool)
    for row, column in cells:
        ink[row, column] = True
    ink = ndimage.binary_dilation(ink, iterations=grow) if grow else ink
    skeleton = thinned(ink)
    assert not (skeleton & ~ink).any()
    assert (thinned(skeleton) == skeleton).all()
    assert pieces_and_holes(skeleton) == pieces_and_holes(ink)


def pieces_and_holes(mask: np.ndarray) -> tuple[int, int]:
    """How many pieces (8-connected) a mask has, and how many holes (4-connected)."""
    around = np.pad(~mask, 1, constant_values=True)
    return ndimage.label(mask, np.ones((3, 3)))[1], ndimage.label(around)[1] - 1


@settings(max_examples=60, deadline=None)
@example(radius=3.5, centre=(0.0, 0.5), pen=2)  # its centre lies between two pixels
@example(radius=4.8, centre=(0.5, 0.5), pen=2)
@given(
    radius=st.floats(1.2, 19.0),
    centre=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    pen=st.sampled_from([2, 5, 9]),
)
def test_a_dot_stays_a_dot(radius: float, centre: tuple[float, float], pen: int) -> None:
    """Beside lines of any pen, an eye is in place and is no ring; drawn again it is as large."""
    y, x = np.mgrid[:400, :500]
    ink = np.hypot(y - 200 - centre[0], x - 250 - centre[1]) <= radius
    eye = ink.copy()
    ink[60 : 60 + pen, 40:460] = ink[340 : 340 + pen, 40:460] = True
    lines = centrelines(ink)
    assert not (lines & ~ink).any()
    dot = lines & eye
    assert pieces_and_holes(dot) == (1, 0)
    again = ndimage.distance_transform_edt(~dot) <= pen / 2
    wanted_px = max(radius, pen / 2)
    assert (again.sum() / np.pi) ** 0.5 == pytest.approx(wanted_px, abs=1.6)


@settings(max_examples=40, deadline=None)
@given(
    marks=st.lists(
        st.tuples(
            st.integers(0, 239), st.integers(0, 319), st.floats(1.2, 40.0), st.floats(0.0, 0.9)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_nothing_drawn_disappears(marks: list[tuple[int, int, float, float]]) -> None:
    """Of discs and rings of any size, each piece that is no speck has a line, in its ink."""
    y, x = np.mgrid[:240, :320]
    ink = np.zeros((240, 320), bool)
    for row, column, radius, hollow in marks:
        distance = np.hypot(y - row, x - column)
        ink |= (distance <= radius) & (distance >= radius * hollow)
    lines = centrelines(ink)
    assert not (lines & ~ink).any()
    pieces, _ = ndimage.label(ink, np.ones((3, 3)))
    areas = np.bincount(pieces.ravel())
    speck = 0.4 * min(stroke_width_px(ink), 320 / 200) ** 2
    drawn = set(np.flatnonzero(areas >= max(4, speck))) - {0}
    assert drawn <= set(np.unique(pieces[lines]))
