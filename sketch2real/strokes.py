"""Turns a map of ink into centrelines: specks dropped, solid areas outlined, strokes thinned."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

EIGHT = np.ones((3, 3), dtype=bool)

SOLID_FACTOR = 4.0
"""Ink this many times wider than the usual stroke is a filled area, and its outline is drawn."""


def centrelines(ink: Mask) -> Mask:
    """The skeleton of `ink`, one pixel wide, 8-connected.

    ink: (H, W) bool. Returns: (H, W) bool; every pixel lies in `ink`.
    """
    width = stroke_width_px(ink)
    return thinned(_hollowed(_without_specks(ink, width), width))


def stroke_width_px(ink: Mask) -> float:
    """The usual width of the strokes: twice the median distance to paper on the strokes' ridges."""
    if not ink.any():
        return 0.0
    depth = ndimage.distance_transform_edt(np.pad(ink, 1))[1:-1, 1:-1]
    ridge = ink & (depth >= ndimage.maximum_filter(depth, 3))
    # A one-pixel line has depth 1 and width 1.
    return float(2.0 * np.median(depth[ridge]) - 1.0)


def _without_specks(ink: Mask, width_px: float) -> Mask:
    """`ink` without what is too small to be drawn: under half a dot of the same pen.

    An eye or a full stop, as wide as the pen, stays.
    """
    labels, count = ndimage.label(ink, structure=EIGHT)
    if count == 0:
        return ink
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    keep = areas >= max(4.0, 0.4 * width_px * width_px)
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def _hollowed(ink: Mask, width_px: float) -> Mask:
    """`ink` with filled areas replaced by their outlines, as someone with a pen would draw them.

    Thinning would leave a filled disc as a single dot.
    """
    side = max(ink.shape)
    # For every pen: wider than 1/20 of the page is no stroke, under 1/50 may be one.
    limit = min(max(SOLID_FACTOR * width_px / 2.0, side / 100.0), side / 40.0)
    padded = np.pad(ink, 1)
    depth = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    core = depth > limit
    if not core.any():
        return ink
    area = ink & (ndimage.distance_transform_edt(~core) <= limit)
    rim = area & (depth <= max(1.5, min(width_px / 2.0, limit / 3.0)))
    return np.asarray((ink & ~area) | rim, dtype=np.bool_)


def thinned(mask: Mask) -> Mask:
    """`mask` thinned to lines one pixel wide, with the same connections.

    Zhang & Suen 1984, "A fast parallel algorithm for thinning digital patterns": a pixel is
    removed if it has 2 to 6 neighbours, one change from paper to ink around it, and paper on the
    south-east side (in every second pass the north-west). Only ink pixels are examined.
    """
    image = np.pad(mask, 1).astype(np.uint8)
    while True:
        gone = _peel(image, first=True) + _peel(image, first=False)
        if gone == 0:
            return np.asarray(image[1:-1, 1:-1], dtype=np.bool_)


def _peel(image: npt.NDArray[np.uint8], *, first: bool) -> int:
    """One sub-iteration in place; returns how many pixels it removed."""
    rows, columns = np.nonzero(image[1:-1, 1:-1])
    rows, columns = rows + 1, columns + 1
    steps = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    around = np.stack([image[rows + dy, columns + dx] for dy, dx in steps])  # p2 … p9 of the paper
    count = around.sum(axis=0)
    changes = ((around == 0) & (np.roll(around, -1, axis=0) == 1)).sum(axis=0)
    north, east, south, west = around[0], around[2], around[4], around[6]
    if first:
        side = (north & east & south) | (east & south & west)
    else:
        side = (north & east & west) | (north & south & west)
    go = (count >= 2) & (count <= 6) & (changes == 1) & (side == 0)
    image[rows[go], columns[go]] = 0
    return int(go.sum())
