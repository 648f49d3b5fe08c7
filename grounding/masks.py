"""Masks at the picture's size, as COCO's run-length encoding and as polygons.

A model gives each mask as a small grid of probabilities. The mask of the picture is that grid
interpolated (bilinear, as in transformers' post-processing) where it is above one half. It is never
held as a whole: a picture may have 50 megapixels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from errors import InvalidInput
from numpy.typing import NDArray
from outputs import Detection, Mask, PictureSize
from prediction import Engine, MaskGrid

LEVEL = 127.5
"""One half, as a grid's 0 to 255 have it: a mask is what lies above."""

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Polygon = list[float]
"""x1, y1, x2, y2, … in px."""


def refuse_masks(wanted: str, engine: Engine) -> None:
    """Raises InvalidInput when masks are wanted of an engine that has none."""
    if wanted != "none" and not engine.has_masks:
        raise InvalidInput(
            f"Cannot make masks: with the weights {engine.name} 'masks' must be none, got {wanted} "
            "(the weights sam3 have masks)"
        )


def add_masks(
    detections: Sequence[Detection],
    grids: Sequence[MaskGrid | None],
    image: PictureSize,
    wanted: str,
) -> list[Detection]:
    """The detections with `mask` if "rle" is wanted, with `polygons` if "polygon" is.

    grids: of each detection; None where the model kept none, which makes the field null.
    """
    if wanted == "none":
        return list(detections)
    size = image["width"], image["height"]
    pairs = zip(detections, grids, strict=True)
    if wanted == "rle":
        return [{**d, "mask": None if grid is None else encode(grid, *size)} for d, grid in pairs]
    return [{**d, "polygons": None if grid is None else outlines(grid, *size)} for d, grid in pairs]


def encode(grid: MaskGrid, width: int, height: int) -> Mask:
    """The mask as uncompressed COCO run lengths.

    The picture's pixels are counted down each column, the columns from left to right. `counts`
    begins with the number of pixels before the mask (0 if it has the first), then in turn in and
    out of the mask; their sum is width times height.
    """
    starts, ends = runs(grid, width, height)
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(edges, prepend=0, append=width * height)
    # A mask that has the last pixel ends with it, not with a count of 0.
    counts = counts[:-1] if len(edges) and counts[-1] == 0 else counts
    return Mask(size=[height, width], counts=counts.tolist())


def runs(grid: MaskGrid, width: int, height: int) -> tuple[Places, Places]:
    """Where the mask begins and ends along the columns: first pixels, and those past the last.

    Pixel `row` of a column is number column × height + row. No two runs touch.
    Down a column the interpolated value is a straight line from sample to sample, so that its
    crossings of the level are computed: no pixel is.
    """
    columns = _stretched(grid, width).T
    inside = np.pad(columns > LEVEL, ((0, 0), (1, 1)))
    begins, stops = inside[:, 1:] & ~inside[:, :-1], inside[:, :-1] & ~inside[:, 1:]
    column, row = np.nonzero(begins)
    first = np.where(row == 0, 0, np.floor(_crossed(columns, column, row, height)) + 1)
    first = column * height + np.clip(first, 0, height).astype(np.int64)
    column, row = np.nonzero(stops)
    last = np.ceil(_crossed(columns, column, row, height))
    last = np.where(row == len(grid), height, last)
    last = column * height + np.clip(last, 0, height).astype(np.int64)
    some = last > first  # the level may be crossed twice between two pixels
    first, last = first[some], last[some]
    apart = first[1:] != last[:-1]  # a run to the bottom may go on at the next column's top
    return first[np.append(True, apart)[: len(first)]], last[np.append(apart, True)[: len(last)]]


def _stretched(grid: MaskGrid, width: int) -> Floats:
    """The grid with a column for each of the picture's.

    The places are those of torch's bilinear interpolation without aligned corners.
    """
    samples = grid.shape[1]
    at = np.maximum((np.arange(width) + 0.5) * (samples / width) - 0.5, 0.0)
    low = np.minimum(at.astype(np.int64), samples - 1)
    high = np.minimum(low + 1, samples - 1)
    values = grid.astype(np.float32)
    share = (at - low).astype(np.float32)
    stretched: Floats = values[:, low] + (values[:, high] - values[:, low]) * share
    return stretched


def _crossed(columns: Floats, column: Places, row: Places, height: int) -> NDArray[np.float64]:
    """Where in px the level is crossed between the samples `row - 1` and `row` of a column; at the
    first and past the last sample any place."""
    samples = columns.shape[1]
    above = columns[column, np.maximum(row - 1, 0)].astype(np.float64)
    below = columns[column, np.minimum(row, samples - 1)].astype(np.float64)
    rise = np.where(below == above, 1.0, below - above)
    crossed: NDArray[np.float64] = (row - 0.5 + (LEVEL - above) / rise) * (height / samples) - 0.5
    return crossed


# Which edge of a cell the outline comes in by and which it leaves by, so that the mask is on its
# right. The four letters of a case say which corners are in the mask: top left, top right, bottom
# right, bottom left.
_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
_CASES: Mapping[str, tuple[int, int]] = {
    "1000": (_TOP, _LEFT), "0100": (_RIGHT, _TOP), "0010": (_BOTTOM, _RIGHT),
    "0001": (_LEFT, _BOTTOM), "1100": (_RIGHT, _LEFT), "0011": (_LEFT, _RIGHT),
    "1001": (_TOP, _BOTTOM), "0110": (_BOTTOM, _TOP), "0111": (_LEFT, _TOP),
    "1011": (_TOP, _RIGHT), "1101": (_RIGHT, _BOTTOM), "1110": (_BOTTOM, _LEFT),
}  # fmt: skip
# Two corners across: apart, or joined through the middle of the cell.
_ACROSS: Mapping[tuple[str, bool], tuple[tuple[int, int], tuple[int, int]]] = {
    ("1010", False): (_CASES["1000"], _CASES["0010"]),
    ("1010", True): (_CASES["1011"], _CASES["1110"]),
    ("0101", False): (_CASES["0100"], _CASES["0001"]),
    ("0101", True): (_CASES["0111"], _CASES["1101"]),
}


def outlines(grid: MaskGrid, width: int, height: int) -> list[Polygon]:
    """The mask's pieces as polygons in px of the picture, the largest first.

    They follow the interpolated probabilities, finer than a pixel of the grid (marching squares).
    Openings in a piece are not cut out, as in COCO's polygons.
    """
    found = []
    for x, y in _rings(grid, width, height):
        area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
        if area > 0:  # the mask is on the right: an opening's is negative
            found.append((area, np.stack(_without_straight(x, y), axis=1)))
    found.sort(key=lambda piece: -piece[0])
    return [[round(float(v), 2) for v in points.reshape(-1)] for _, points in found]


def _rings(grid: MaskGrid, width: int, height: int) -> list[tuple[Floats, Floats]]:
    """The closed lines at the level: x and y in px."""
    # The picture's edge has the value of the nearest sample; just beyond it nothing is in a mask.
    values = np.pad(np.pad(grid.astype(np.float32), 1, "edge"), 1)
    rows, columns = values.shape
    inside = values > LEVEL
    # Edges are numbered: those along the rows, then those along the columns.
    level_edge = np.arange(rows * columns).reshape(rows, columns)
    sheer_edge = level_edge + rows * columns
    edges = (level_edge[:-1, :-1], sheer_edge[:-1, 1:], level_edge[1:, :-1], sheer_edge[:-1, :-1])
    corners = values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1]
    of_corners = inside[:-1, :-1], inside[:-1, 1:], inside[1:, 1:], inside[1:, :-1]
    number = sum(of_corner.astype(np.int64) << place for place, of_corner in enumerate(of_corners))
    came, left = [], []

    def add(case: str, cells: NDArray[np.bool_], turns: Sequence[tuple[int, int]]) -> None:
        chosen = cells & (number == int(case[::-1], 2))
        for entered, exited in turns:
            came.append(edges[entered][chosen])
            left.append(edges[exited][chosen])

    everywhere = np.ones_like(number, bool)
    for case, turn in _CASES.items():
        add(case, everywhere, [turn])
    a, b, c, d = corners
    with np.errstate(divide="ignore", invalid="ignore"):
        joined = (a * c - b * d) / (a + c - b - d) > LEVEL  # the value at the saddle
    for (case, is_joined), turns in _ACROSS.items():
        add(case, joined == is_joined, turns)
    x, y = _crossings(values, width, height)
    return [(x[ring], y[ring]) for ring in _cycles(np.concatenate(came), np.concatenate(left))]


def _crossings(values: Floats, width: int, height: int) -> tuple[Floats, Floats]:
    """Where the level crosses each edge, in px; edges without a crossing have any place."""
    places = []
    for samples, pixels in ((values.shape[1] - 4, width), (values.shape[0] - 4, height)):
        middle = (np.arange(samples) + 0.5) * (pixels / samples)
        places.append(np.concatenate([[0, 0], middle, [pixels, pixels]]))
    across, down = np.meshgrid(*places)

    def moved(at: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (LEVEL - values) / (np.roll(values, -1, axis) - values)
            return at + (np.roll(at, -1, axis) - at) * share

    x = np.concatenate([moved(across, 1).reshape(-1), across.reshape(-1)])
    y = np.concatenate([down.reshape(-1), moved(down, 0).reshape(-1)])
    return x, y


def _cycles(came: Places, left: Places) -> list[Places]:
    """The edges of each closed line, in order: every edge is entered once and left once."""
    order = np.argsort(came)
    came = came[order]
    following = np.searchsorted(came, left[order]).tolist()
    rings: list[Places] = []
    seen = bytearray(len(came))
    for first in range(len(came)):
        ring, at = [], first
        while not seen[at]:
            seen[at] = 1
            ring.append(at)
            at = following[at]
        if ring:
            rings.append(came[ring])
    return rings


def _without_straight(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Without the points that a straight line passes through."""
    moved = (x != np.roll(x, 1)) | (y != np.roll(y, 1))
    x, y = x[moved], y[moved]
    before_x, before_y = x - np.roll(x, 1), y - np.roll(y, 1)
    bends = np.abs(before_x * np.roll(before_y, -1) - np.roll(before_x, -1) * before_y) > 1e-9
    return x[bends], y[bends]
