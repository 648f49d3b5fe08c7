"""Turns a map of ink into lines: specks dropped, solid areas outlined, strokes thinned.

Dots keep their size: an eye is a dot, not a ring and not a point.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import skeletonize

Mask = npt.NDArray[np.bool_]

EIGHT = np.ones((3, 3), dtype=bool)

SOLID_FACTOR = 4.0
"""Ink this many times wider than the usual stroke is a filled area, and its outline is drawn."""

DOT_SHARE = 0.1
"""Widest dot, as a share of the drawing's longer side: an eye, a button. Wider is a filled area."""

DOT_ROUNDNESS = 2.2
"""Largest area of a dot over that of its inscribed circle. A disc has up to 2.1 when it is 5 px
wide, an ellipse of 2 to 1 has 2.0, a dash of 2 to 1 at least 2.7."""

SPECK_SIDE_SHARE = 1 / 200
"""A mark wider than this share of the page is no speck, however wide the usual stroke is: a dot of
a fine pen beside a brush."""


def centrelines(ink: Mask) -> Mask:
    """The lines of `ink`, one pixel wide, 8-connected, and its dots, reduced by half a pen.

    ink: (H, W) bool. Returns: (H, W) bool; every pixel lies in `ink`. Drawn again with the pen that
    `ink` was drawn with, strokes and dots have their size.
    """
    width = stroke_width_px(ink)
    clean = _without_specks(ink, width)
    dots, reduced = _dots(clean, width)
    return thinned(_hollowed(clean & ~dots, width)) | reduced


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
    speck_px = min(width_px, max(ink.shape) * SPECK_SIDE_SHARE)
    labels, count = ndimage.label(ink, structure=EIGHT)
    if count == 0:
        return ink
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    keep = areas >= max(4.0, 0.4 * speck_px * speck_px)
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def _dots(ink: Mask, width_px: float) -> tuple[Mask, Mask]:
    """The dots of `ink` that are wider than a stroke, and the same reduced by half a pen.

    A dot is small, round and whole, and touches nothing else.
    """
    dots, reduced = np.zeros_like(ink), np.zeros_like(ink)
    labels, _ = ndimage.label(ink, structure=EIGHT)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    widest = DOT_SHARE * max(np.ptp(rows), np.ptp(columns)) if rows.size else 0.0
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        sides = [side.stop - side.start for side in box]
        if not width_px < max(sides) <= widest:
            continue
        piece = labels[box] == index
        if piece.sum() > DOT_ROUNDNESS * math.pi * _inscribed_px(piece) ** 2:
            continue
        depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1]
        inner = depth > width_px / 2.0
        if ndimage.label(inner, structure=EIGHT)[1] != 1:
            continue
        dots[box] |= piece
        reduced[box] |= inner
    return dots, reduced


def _inscribed_px(piece: Mask) -> float:
    """The radius of the largest circle in `piece`. Its centre may lie between four pixels, hence
    each is four here: the radius of a small disc would be half a pixel too small."""
    finer = np.pad(piece.repeat(2, axis=0).repeat(2, axis=1), 1)
    return float(ndimage.distance_transform_edt(finer).max() - 0.5) / 2.0


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
    """`mask` thinned to lines one pixel wide, with the same pieces, holes and connections.

    scikit-image's variant of Zhang & Suen 1984; the published one deletes blocks of 2 × 2 pixels.
    """
    return np.asarray(skeletonize(mask), dtype=np.bool_)
