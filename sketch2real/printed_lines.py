"""The lines that are printed on paper: rulings, squares, a margin."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

EIGHT = np.ones((3, 3), dtype=bool)

FEWEST = 4
"""Rulings on ruled paper, at least: a single faint horizon is part of the drawing."""

MARGIN_SHARE = 0.85
"""A margin runs over at least this share of the page, and is there in half of it."""


class Line(NamedTuple):
    """across = start + slope x along, in px; seen from `first` to `last` along the axis."""

    start: float
    slope: float
    first: int
    last: int

    def at(self, along: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self.start + self.slope * along


def rulings(faint: Mask) -> Mask:
    """The printed lines of ruled or squared paper among the `faint` pixels.

    A ruling is long, straight and nearly parallel to the page, and there are at least four. It goes
    on where a shape is drawn over it: the piece within the shape is too short to be known by
    itself.
    """
    found = np.zeros_like(faint)
    for axis in (1, 0):
        lines = _straight(faint, axis)
        if len(lines) >= FEWEST:
            for line in lines:
                length = line.last - line.first
                span = (line.first - 2 * length, line.last + 2 * length)
                _draw(found, line, axis, span, half_px=3)
    return found


def margins(ink: Mask, coloured: Mask) -> Mask:
    """The coloured lines of `ink` that run straight from one edge of the page to the other.

    None where most of the ink is coloured: then it is the pen that has this colour.
    """
    found = np.zeros_like(ink)
    if (ink & coloured).sum() > ink.sum() / 2:
        return found
    for axis in (1, 0):
        side = ink.shape[axis]
        # Each ruling that crosses a margin leaves a gap in it.
        gap = [1, 1]
        gap[axis] = max(9, side // 80)
        rest = _straight(ndimage.binary_closing(ink & coloured, np.ones(gap, dtype=bool)), axis)
        while rest:
            longest = max(rest, key=lambda line: line.last - line.first)
            middle = np.array([side / 2.0])
            same = [
                line
                for line in rest
                if abs(float(line.at(middle)[0] - longest.at(middle)[0])) < max(6.0, side / 100)
            ]
            rest = [line for line in rest if line not in same]
            seen = sum(line.last - line.first for line in same)
            reach = max(line.last for line in same) - min(line.first for line in same)
            if reach >= MARGIN_SHARE * side and seen >= side / 2:
                for line in same:
                    length = line.last - line.first
                    span = (line.first - length, line.last + length)
                    _draw(found, line, axis, span, half_px=4)
    return found & coloured


def _straight(mask: Mask, axis: int) -> list[Line]:
    """The straight pieces of `mask` along `axis`, longer than a sixteenth of the page."""
    side = mask.shape[axis]
    run = [1, 1]
    run[axis] = max(9, side // 80)
    labels, _ = ndimage.label(
        ndimage.binary_opening(mask, np.ones(run, dtype=bool)), structure=EIGHT
    )
    lines = []
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        length = int(box[axis].stop - box[axis].start)
        rise = int(box[1 - axis].stop - box[1 - axis].start)
        if length <= side / 16 or rise >= max(6, 0.12 * length):
            continue
        pixels = np.nonzero(labels[box] == index)
        along, across = pixels[axis] + box[axis].start, pixels[1 - axis] + box[1 - axis].start
        slope, start = np.polyfit(along, across, 1)
        lines.append(
            Line(float(start), float(slope), int(box[axis].start), int(box[axis].stop) - 1)
        )
    return lines


def _draw(mask: Mask, line: Line, axis: int, span: tuple[int, int], *, half_px: int) -> None:
    """Set the pixels of `mask` within `half_px` of `line`; span: its first and last px."""
    along = np.arange(max(0, span[0]), min(mask.shape[axis], span[1] + 1))
    across = np.rint(line.at(along.astype(np.float64))).astype(np.int64)
    for offset in range(-half_px, half_px + 1):
        place = across + offset
        inside = (place >= 0) & (place < mask.shape[1 - axis])
        if axis == 1:
            mask[place[inside], along[inside]] = True
        else:
            mask[along[inside], place[inside]] = True
