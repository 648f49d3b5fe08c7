"""Masks as run lengths and polygons, read back by COCO's own tools."""

from io import BytesIO

import draw
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formats import to_coco
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from masks import add_masks, encode, outlines
from outputs import Detection, PictureSize
from PIL import Image
from pycocotools import mask as coco

SIDES = st.integers(1, 60)
# Few levels, so that pieces, openings and saddles are common.
GRIDS = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([3, 99, 250]),
)


def interpolated(grid, width, height):
    """(height, width) the probabilities as transformers' post-processing enlarges them."""
    rows = torch.from_numpy(grid / 255.0)[None, None]
    big = F.interpolate(rows, (height, width), mode="bilinear", align_corners=False)
    return big[0, 0].numpy()


def decoded(mask):
    """(height, width) bool, by pycocotools."""
    packed = coco.frPyObjects(dict(mask), *mask["size"])
    return coco.decode(packed).astype(bool)


def area(polygon):
    """By the shoelace formula."""
    x, y = np.array(polygon).reshape(-1, 2).T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def disc(width, height, x, y, radius):
    """A soft disc in a picture of that size, on a grid of 96 × 96; centre and radius in px."""
    at_y, at_x = np.mgrid[:96, :96] + 0.5
    apart = np.hypot(at_x * width / 96 - x, at_y * height / 96 - y) - radius
    return (255 / (1 + np.exp(np.minimum(apart / 4, 50)))).astype(np.uint8)


@given(GRIDS, SIDES, SIDES)
def test_run_lengths_are_the_interpolated_mask(grid, width, height):
    """By another decoder, for every pixel that is not at the level itself."""
    expected = interpolated(grid, width, height)
    mask = encode(grid, width, height)
    assert mask["size"] == [height, width]
    assert sum(mask["counts"]) == width * height
    assert 0 not in mask["counts"][1:]
    is_clear = np.abs(expected - 0.5) > 1e-6
    assert (decoded(mask) == (expected > 0.5))[is_clear].all()


@given(GRIDS, SIDES, SIDES)
def test_what_is_drawn_is_the_mask(grid, width, height):
    """Each pixel of the mask is mixed with the label's colour, and no other one is touched."""
    canvas = Image.new("RGB", (width, height), "white")
    draw._tint(canvas, grid, (200, 0, 0))
    tinted = (np.array(canvas) != 255).any(axis=2)
    assert (tinted == decoded(encode(grid, width, height))).all()
    assert all(70 <= value < 200 for value in np.array(canvas)[tinted][:, 1])


def test_the_best_mask_is_on_top():
    """Where two overlap the colour of the better one is mixed in last, below all boxes."""
    everywhere = np.full((4, 4), 255, np.uint8)
    found = [
        Detection(
            label=name, label_index=i, score=0.9 - i / 10, box=[0, 0, 400, 400],
            box_normalized=[0.0, 0.0, 1.0, 1.0],
        )
        for i, name in enumerate(("one", "two"))
    ]  # fmt: skip
    drawn = Image.open(
        BytesIO(draw.annotate(Image.new("RGB", (400, 400)), found, [everywhere] * 2))
    )
    pixel = np.array(drawn.getpixel((300, 300)), float)
    best, other = (np.array(draw.label_colour(i), float) for i in range(2))
    mixed = draw._TINT * (best + (1 - draw._TINT) * other)
    assert np.abs(pixel - mixed).max() < 12  # JPEG


@given(GRIDS, SIDES, SIDES)
def test_polygons_lie_in_the_picture_and_have_an_area(grid, width, height):
    """Largest first; none without a mask; a mask that fills the picture is its four corners."""
    pieces = outlines(grid, width, height)
    assert bool(pieces) == bool((grid > 127).any())
    areas = [area(piece) for piece in pieces]
    assert areas == pytest.approx(sorted(areas, reverse=True), abs=0.1)
    for piece in pieces:
        assert len(piece) >= 6
        points = np.array(piece).reshape(-1, 2)
        assert (points >= 0).all()
        assert (points <= [width, height]).all()
    if (grid > 127).all():
        assert sorted(zip(pieces[0][::2], pieces[0][1::2], strict=True)) == [
            (0, 0), (0, height), (width, 0), (width, height),
        ]  # fmt: skip


@given(
    st.integers(200, 900), st.integers(200, 900), st.floats(0, 1), st.floats(0, 1),
    st.floats(0.1, 0.9),
)  # fmt: skip
def test_polygons_and_run_lengths_have_one_area(width, height, x, y, radius):
    """A disc anywhere, cut by the edges of the picture or not."""
    size = min(width, height) * radius / 2
    grid = disc(width, height, x * width, y * height, size)
    pixels = sum(encode(grid, width, height)["counts"][1::2])
    (piece,) = outlines(grid, width, height)
    # A pixel at the outline is in the mask or not: a fraction of one for each px of its length.
    assert area(piece) == pytest.approx(pixels, abs=0.05 * 6.3 * size + 20)


def test_an_opening_and_a_piece_in_it():
    """The opening is not cut out of the polygon; the run lengths have it."""
    ring = np.minimum(disc(400, 400, 200, 200, 160), 255 - disc(400, 400, 200, 200, 100))
    grid = np.maximum(ring, disc(400, 400, 200, 200, 30))
    pieces = outlines(grid, 400, 400)
    assert [round(area(piece) ** 0.5 / np.pi**0.5) for piece in pieces] == [160, 30]
    pixels = sum(encode(grid, 400, 400)["counts"][1::2])
    assert pixels == pytest.approx(np.pi * (160**2 - 100**2 + 30**2), rel=0.01)


def test_corners_that_touch_are_joined_as_the_pixels_are():
    """Two samples across a cell are one piece if the middle of the cell is in the mask."""
    for other, pieces in ((120, 1), (3, 2)):
        grid = np.full((4, 4), other, np.uint8)
        grid[1, 1] = grid[2, 2] = 160
        assert len(outlines(grid, 400, 400)) == pieces
        middle = decoded(encode(grid, 400, 400))[199:201, 199:201]
        assert middle.all() == (pieces == 1)


def test_fifty_megapixels_are_never_held():
    """The run lengths of a large picture cost memory by its sides, not by its pixels."""
    import tracemalloc

    grid = disc(8660, 5773, 4000, 3000, 2500)
    tracemalloc.start()
    counts = encode(grid, 8660, 5773)["counts"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(counts[1::2]) == pytest.approx(np.pi * 2500**2, rel=0.001)
    assert peak < 45_000_000


def test_a_detection_gets_what_was_asked_for():
    """One of the two, null where there is no mask, and COCO's export has it with its area."""
    grid = disc(200, 100, 60, 50, 30)
    found = [
        Detection(
            label="dog", label_index=0, score=0.5, box=[30, 20, 90, 80], box_normalized=[0] * 4
        )
    ] * 2
    size = PictureSize(width=200, height=100)
    assert add_masks(found, [grid, None], size, "none") == found
    first, second = add_masks(found, [grid, None], size, "rle")
    assert first == {**found[0], "mask": encode(grid, 200, 100)}
    assert second == {**found[0], "mask": None}
    with_polygons = add_masks(found, [grid, None], size, "polygon")
    assert with_polygons[0] == {**found[0], "polygons": outlines(grid, 200, 100)}
    assert with_polygons[1] == {**found[0], "polygons": None}
    one, none = to_coco([first, second], size, ["dog"])["annotations"]
    assert one["segmentation"] == first["mask"]
    assert one["area"] == decoded(first["mask"]).sum()
    assert (none["area"], "segmentation" in none) == (3600, False)
    (outline, _) = to_coco(with_polygons, size, ["dog"])["annotations"]
    assert outline["segmentation"] == with_polygons[0]["polygons"]
    assert outline["area"] == pytest.approx(one["area"], rel=0.02)
