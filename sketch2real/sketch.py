"""Finds the ink of a photographed, scanned or drawn sketch.

The stages, in order: polarity, paper, illumination, threshold, ruled lines. Every threshold is
relative to the picture itself (its paper, its pen, its noise), so that a pencil sketch under a lamp
and a white-on-black canvas take the same path. For a photograph, which has no paper, the edges are
taken.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from errors import InvalidInput
from printed_lines import EIGHT, margins, rulings
from scipy import ndimage
from shadows import narrow

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.float32]

WORKING_SIDE_PX = 1280
"""Longer side of the picture in which ink is found: a 0.5 mm pen on A4 is still 2 px wide."""

COARSE_SIDE_PX = 320
"""Longer side of the picture in which illumination and paper are found: both are smooth."""

MIN_CONTRAST = 0.10
"""Faintest ink, as its contrast to the paper (0 to 1): hard pencil is about 0.15."""

STRONG_SHARE = 0.45
"""Threshold of certain ink, as a share of the pen's contrast. Printed rulings have a quarter to a
third of it."""

TINT = 0.6
"""Contrast in the palest channel over that in the darkest, below which ink is coloured."""

PHOTO_STEP = 0.1
"""Sobel response of the faintest edge of a photograph."""

PENUMBRA_PX = 7
"""Narrowest edge of a soft shadow, in the coarse picture; the edges of things are narrower."""

SHAPE_STEP = 0.4
"""The same where no line was found: above the grain of ISO 6400."""


class Ink(NamedTuple):
    """The ink that was found.

    mask: (H, W) bool, true where there is ink (or an edge).
    is_photo: the picture is not line art, and `mask` holds its edges.
    """

    mask: Mask
    is_photo: bool


def find_ink(rgb: npt.NDArray[np.uint8]) -> Ink:
    """The ink of a sketch, without shadows, paper edges and ruled lines.

    rgb: (H, W, 3), uint8, at most `WORKING_SIDE_PX` on the longer side.

    Raises InvalidInput when there are no lines (an empty canvas, a page of one colour).
    """
    pixels = rgb.astype(np.float32) / 255.0
    coarse = _coarse(pixels)
    paper = _paper(coarse)
    ink = _ink_on(pixels, coarse, paper)
    if _is_empty(ink.mask):
        # Not a sheet of paper but a light shape on a dark canvas, or large shapes without lines.
        ink = _ink_on(pixels, coarse, None) if paper is not None else ink
        ink = Ink(_edges(pixels, SHAPE_STEP), is_photo=True) if _is_empty(ink.mask) else ink
    if _is_empty(ink.mask):
        raise InvalidInput(
            "Cannot draw from this sketch: 'image' must show lines, got an empty page"
        )
    return ink


def _is_empty(mask: Mask) -> bool:
    """Whether nothing in `mask` is longer than a fiftieth of the page: grain and dust only."""
    labels, _ = ndimage.label(mask, structure=EIGHT)
    least = max(6.0, 0.02 * min(mask.shape))
    return all(
        max(side.stop - side.start for side in box) < least for box in ndimage.find_objects(labels)
    )


def _ink_on(pixels: Grey, coarse: Grey, paper: Mask | None) -> Ink:
    """The ink on the sheet `paper`, or on the whole picture if None."""
    if paper is None and _is_light_on_dark(coarse):
        pixels, coarse = 1.0 - pixels, 1.0 - coarse
    contrast, palest = _contrast(pixels, coarse)
    if paper is not None:
        contrast[~_grown_to(paper, contrast.shape)] = 0.0
    if _is_photo(_paper_light(coarse), paper):
        return Ink(_edges(pixels, PHOTO_STEP), is_photo=True)
    return Ink(_threshold(contrast, palest), is_photo=False)


def _coarse(pixels: Grey) -> Grey:
    """`pixels` averaged over blocks, so that the longer side is about `COARSE_SIDE_PX`."""
    step = max(1, round(max(pixels.shape[:2]) / COARSE_SIDE_PX))
    height, width = (side // step * step for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)


def _grown_to(coarse: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> Mask:
    rows = np.arange(shape[0]) * coarse.shape[0] // shape[0]
    columns = np.arange(shape[1]) * coarse.shape[1] // shape[1]
    return np.asarray(coarse[np.ix_(rows, columns)], dtype=np.bool_)


def _neighbourhood_px(coarse: Grey) -> int:
    """Wider than any stroke, narrower than any shadow: a fourteenth of the longer side, odd."""
    return max(5, int(max(coarse.shape[:2])) // 14) | 1


def _is_light_on_dark(coarse: Grey) -> bool:
    """Whether what is drawn is lighter than what it is drawn on.

    Paper is the majority of any neighbourhood, so ink is what deviates from the local median, and
    the skew of the deviations has its sign; under a shadow the median moves too. Where nothing
    deviates (a page of one colour, one large shape), the border decides.
    """
    grey = coarse.mean(axis=2)
    thinned = grey[::2, ::2]  # a coarse median is enough, and its cost is the square of the window
    departure = thinned - ndimage.median_filter(thinned, _neighbourhood_px(thinned))
    skew = float((departure**3).mean())
    if abs(skew) > 1e-6:
        return skew > 0
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return bool(np.median(border) < 0.5)


def _paper(coarse: Grey) -> Mask | None:
    """The sheet in a photograph of a sheet on a darker table; None if the page fills the frame.

    The sheet is the largest region without an abrupt change of light (so that a lamp's falloff
    does not divide it), with its drawing filled in. It is convex, covers at least a fifth of the
    picture, touches little of the picture's border (the lit part of a shaded page touches more),
    and its surroundings are darker (outside a drawn frame they are not). Its edge is cut off.
    """
    light = np.log(ndimage.median_filter(coarse.mean(axis=2), 3) + 0.02)
    change = np.hypot(ndimage.sobel(light, 0), ndimage.sobel(light, 1)) / 8.0
    labels, count = ndimage.label(change < 0.06)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    # Regions darker than the median are no sheet, whatever their size.
    means = np.bincount(labels.ravel(), light.ravel()) / np.maximum(sizes, 1)
    sizes[means < np.median(light) - 0.1] = 0
    sizes[0] = 0
    sheet = ndimage.binary_fill_holes(labels == sizes.argmax())
    border = np.concatenate([sheet[0], sheet[-1], sheet[:, 0], sheet[:, -1]])
    if not 0.2 < sheet.mean() < 0.97 or border.mean() > 0.35:
        return None
    if sheet.sum() < 0.85 * _hull_area(sheet) or _step(light, sheet) < 0.2:
        return None
    inset = max(2, max(sheet.shape) // 64)
    return np.asarray(ndimage.binary_erosion(sheet, EIGHT, iterations=inset), dtype=np.bool_)


def _step(light: Grey, sheet: Mask) -> float:
    """The log ratio of the light just inside the sheet's edge to that just outside it."""
    inner = sheet & ~ndimage.binary_erosion(sheet, EIGHT, iterations=5, border_value=1)
    near = ndimage.binary_dilation(sheet, EIGHT, iterations=4)
    outer = ndimage.binary_dilation(near, EIGHT, iterations=6) & ~near
    return float(np.median(light[inner]) - np.median(light[outer])) if outer.any() else 0.0


def _hull_area(mask: Mask) -> float:
    """The area of the convex hull of `mask` in pixels (monotone chain over its row ends)."""
    rows = np.flatnonzero(mask.any(axis=1))
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    corners = sorted(
        (float(x), float(y))
        for row, a, b in zip(rows, left, right, strict=True)
        for x in (a, b)
        for y in (row, row + 1)
    )

    def chain(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        hull: list[tuple[float, float]] = []
        for x, y in points:
            while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (y - hull[-2][1]) <= (
                hull[-1][1] - hull[-2][1]
            ) * (x - hull[-2][0]):
                hull.pop()
            hull.append((x, y))
        return hull[:-1]

    hull = np.array(chain(corners) + chain(corners[::-1]))
    x, y = hull[:, 0], hull[:, 1]
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def _contrast(pixels: Grey, coarse: Grey) -> tuple[Grey, Grey]:
    """How much darker than the paper around it each pixel is, 0 to 1: in the channel where it is
    darkest, and where it is palest. A black pen is dark in both, a red line in the first only.

    The paper is a grey closing of the coarse picture, channel by channel: it removes dark things
    thinner than the neighbourhood and, unlike a median, follows a gradient or the sharp edge of a
    shadow. The shadows that are thinner are put back. The darkest channel keeps yellow crayon
    visible, whose luminance is close to the paper's.
    """
    shape = pixels.shape[:2]
    # A stroke at the edge of a block may move by half a coarse pixel.
    smooth = ndimage.gaussian_filter(pixels, (0.7, 0.7, 0))
    darkest, palest = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    light = _paper_light(coarse)
    is_shadow, shaded = narrow(coarse, light)
    light = np.where(is_shadow[..., None], shaded, light)
    light = ndimage.gaussian_filter(light, (1.0, 1.0, 0))
    for channel in range(3):
        paper = light[..., channel]
        zoom = (shape[0] / paper.shape[0], shape[1] / paper.shape[1])
        full = ndimage.zoom(paper, zoom, order=1, mode="nearest", grid_mode=True)
        full = full[: shape[0], : shape[1]]
        contrast = 1.0 - smooth[..., channel] / np.maximum(full, 0.05)
        np.maximum(darkest, contrast, out=darkest)
        np.minimum(palest, contrast, out=palest)
    return np.clip(darkest, 0.0, 1.0), np.clip(palest, 0.0, 1.0)


def _paper_light(coarse: Grey) -> Grey:
    """The brightness of the bare paper: each channel of `coarse` without thin dark things."""
    return np.stack([_closed(coarse[..., channel]) for channel in range(3)], axis=2)


def _closed(channel: Grey) -> Grey:
    """`channel` without its dark things thinner than a neighbourhood.

    Along the picture's border the window is small: where the edge of a shadow leaves the picture
    at an angle, a large window would take the corner for a dark thing and fill it.
    """
    size = _neighbourhood_px(channel)
    closed = ndimage.grey_closing(channel, 7, mode="nearest")
    inner = (slice(size // 2, -(size // 2)),) * 2
    closed[inner] = ndimage.grey_closing(channel, size, mode="nearest")[inner]
    return np.asarray(closed, dtype=np.float32)


def _levels(contrast: Grey) -> tuple[float, float]:
    """(weak, strong): above `strong` is certainly ink, between the two possibly.

    Both are above the grain of the paper: six standard deviations over the median, the deviation
    being 1.4826 times the median absolute one.
    """
    middle = float(np.median(contrast))
    grain = 1.4826 * float(np.median(np.abs(contrast - middle)))
    floor = max(MIN_CONTRAST, middle + 6.0 * grain)
    candidates = contrast[contrast > floor]
    if candidates.size == 0:
        return floor, floor
    pen = float(np.percentile(candidates, 98))
    return max(floor, 0.2 * pen), max(floor, STRONG_SHARE * pen)


def _threshold(contrast: Grey, palest: Grey) -> Mask:
    """Ink by hysteresis (Canny 1986): faint strokes are kept where they continue strong ones.

    contrast, palest: the contrast in the channel where it is strongest, and where it is weakest.
    """
    weak_level, strong_level = _levels(contrast)
    strong = contrast > strong_level
    faint = (contrast > weak_level) & ~strong
    # Where a stroke crosses a ruling, its own pixels stay; a margin is as dark as a stroke.
    weak = (contrast > weak_level) & ~rulings(faint)
    margin = margins(weak | strong, palest < TINT * contrast)
    weak &= ~margin
    strong &= ~margin
    labels, count = ndimage.label(weak | strong, structure=EIGHT)
    firm = np.zeros(count + 1, dtype=bool)
    firm[np.unique(labels[strong])] = True
    firm[0] = False
    # A component without strong pixels may be a crease of the paper.
    mask = np.where(firm[labels], contrast > max(weak_level, 0.6 * strong_level), False)
    return np.asarray(mask, dtype=np.bool_)


def _is_photo(light: Grey, paper: Mask | None) -> bool:
    """Whether the picture without thin dark things is something else than evenly lit paper.

    Measured as the share of the surface where the light changes by over 6 % from one coarse pixel
    to the next, soft shadows taken out: 0 to 0.03 on the golden sketches, hand shadows and lamps
    included, 0.03 to 0.13 on forty-one pages on white tables under a hand's shadow, 0.09 and 0.11
    on two photographs of printed pages, 0.17 to 0.41 on eight photographs of things
    (scikit-image's samples). A coloured drawing counts as a photograph: its edges are what is
    needed.
    """
    logarithm = np.log(light + 0.02)
    change = np.hypot(ndimage.sobel(logarithm, 0), ndimage.sobel(logarithm, 1)).max(axis=2) / 8.0
    change -= ndimage.grey_opening(change, (PENUMBRA_PX, PENUMBRA_PX))
    surface = change if paper is None else change[paper]
    return bool((surface > 0.06).mean() > 0.15)


def _edges(pixels: Grey, least: float) -> Mask:
    """Canny's edges (1986) of a photograph: smoothed gradient, thinned, followed by hysteresis.

    least: the response of Sobel's kernel (8 times the slope per pixel) that an edge must reach.
    """
    sigma = max(2.0, max(pixels.shape[:2]) / 500.0)
    smooth = ndimage.gaussian_filter(pixels, (sigma, sigma, 0))
    down, across = ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1)
    strongest = np.hypot(down, across).argmax(axis=2)[..., None]
    dy = np.take_along_axis(down, strongest, 2)[..., 0]
    dx = np.take_along_axis(across, strongest, 2)[..., 0]
    size = np.hypot(dx, dy)
    ridge = np.zeros(size.shape, dtype=bool)
    flat = np.abs(dx) > np.abs(dy)
    for use, axis in ((flat, 1), (~flat, 0)):
        ahead, behind = np.roll(size, -1, axis), np.roll(size, 1, axis)
        ridge |= use & (size >= ahead) & (size > behind)
    low, high = np.percentile(size, (80, 92))
    candidates = ridge & (size > max(low, least / 2.0))
    labels, count = ndimage.label(candidates, structure=EIGHT)
    firm = np.zeros(count + 1, dtype=bool)
    firm[np.unique(labels[candidates & (size > max(high, least))])] = True
    firm[0] = False
    lengths = np.bincount(labels.ravel(), minlength=count + 1)
    firm &= lengths >= max(pixels.shape[:2]) // 40
    return np.asarray(firm[labels], dtype=np.bool_)
