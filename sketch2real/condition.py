"""Draws centrelines as the control picture of a model: framed, sized, in strokes of one width.

The lines are resampled as a distance field, so that they keep one width and stay smooth at every
scale.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

MARGIN = 0.08
"""Margin around cropped content, as a share of its longer side."""

KEEP_PAGE_SHARE = 0.4
"""Content whose frame covers a larger share of the page is not cropped."""

MAX_ASPECT = 2.0
"""Longer over shorter side; a longer strip is padded."""

SIDES_PX = (128, 2048)
"""Smallest and largest side of a delivered picture: the limits of `width` and `height`, also for a
side that follows from the other."""

_WIDE = (7 / 6, 4 / 3, 3 / 2, 16 / 9, 2.0)
ASPECTS = (1.0, *_WIDE, *(1 / aspect for aspect in _WIDE))
"""Aspect ratios of pictures without a requested size: pages, screens, photos. With few of them,
kernels are warm and several requests can share a batch."""


class Frame(NamedTuple):
    """A window onto the page in page pixels; it may extend beyond the page, where all is blank."""

    left: float
    top: float
    width: float
    height: float


class Size(NamedTuple):
    """Size of a picture in px."""

    width: int
    height: int


def content_frame(lines: Mask) -> Frame:
    """The window that shows all `lines` with a margin, in the page's aspect ratio.

    A small drawing on a large sheet is enlarged; a drawing that fills its page keeps the page.
    """
    page_height, page_width = lines.shape
    rows, columns = np.flatnonzero(lines.any(axis=1)), np.flatnonzero(lines.any(axis=0))
    top, bottom = float(rows[0]), float(rows[-1] + 1)
    left, right = float(columns[0]), float(columns[-1] + 1)
    margin = MARGIN * max(bottom - top, right - left)
    tight = Frame(left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin)
    framed = grown_to_aspect(tight, page_width / page_height)
    if framed.width * framed.height > KEEP_PAGE_SHARE * page_width * page_height:
        framed = Frame(0.0, 0.0, float(page_width), float(page_height))
    aspect = framed.width / framed.height
    return grown_to_aspect(framed, min(max(aspect, 1.0 / MAX_ASPECT), MAX_ASPECT))


def grown_to_aspect(frame: Frame, aspect: float) -> Frame:
    """`frame` extended about its centre until width / height is `aspect`."""
    width = max(frame.width, frame.height * aspect)
    height = max(frame.height, frame.width / aspect)
    return Frame(
        frame.left - (width - frame.width) / 2,
        frame.top - (height - frame.height) / 2,
        width,
        height,
    )


def nearest_aspect(aspect: float) -> float:
    """The nearest of `ASPECTS` by ratio; the difference is padded, nothing is cropped."""
    return min(ASPECTS, key=lambda other: abs(math.log(other / aspect)))


def size_for(aspect: float, area_px: int, multiple_px: int) -> Size:
    """The size nearest to `aspect` and `area_px` with both sides a multiple of `multiple_px`."""
    width = math.sqrt(area_px * aspect)
    height = math.sqrt(area_px / aspect)
    return Size(_nearest(width, multiple_px), _nearest(height, multiple_px))


def _nearest(length_px: float, multiple_px: int) -> int:
    return max(1, round(length_px / multiple_px)) * multiple_px


def _within_limits(length_px: float) -> int:
    return min(max(_nearest(length_px, 64), SIDES_PX[0]), SIDES_PX[1])


class Plan(NamedTuple):
    """How a sketch is framed and how large it is painted and delivered."""

    frame: Frame
    painted: Size
    delivered: Size


def make_plan(
    lines: Mask,
    width: int | None,
    height: int | None,
    *,
    areas: tuple[int, int, int],
    multiple: int,
) -> Plan:
    """Frame the content of `lines` for the requested size, or for the size that fits them.

    width, height: requested, in px; None to follow from the other and the sketch's aspect ratio.
    areas: in px, the model's best, the default of delivered pictures, the model's largest.
    multiple: painted sides are multiples of this; delivered sides of 64.

    A size that the model was not trained for is painted in a size that it was, and resized.
    """
    best, default, largest = areas
    frame = content_frame(lines)
    aspect = frame.width / frame.height
    if width is not None and height is not None:
        delivered = Size(_nearest(width, 64), _nearest(height, 64))
    elif width is not None:
        delivered = Size(_nearest(width, 64), _within_limits(width / aspect))
    elif height is not None:
        delivered = Size(_within_limits(height * aspect), _nearest(height, 64))
    else:
        delivered = size_for(nearest_aspect(aspect), default, 64)
    aspect = delivered.width / delivered.height
    area = delivered.width * delivered.height
    # The delivered size, within what the model can paint.
    painted = size_for(aspect, max(best, min(area, largest)), multiple)
    return Plan(grown_to_aspect(frame, painted.width / painted.height), painted, delivered)


def draw(lines: Mask, plan: Plan, *, pen: float, hard: bool) -> Image.Image:
    """The `lines` within `plan.frame` as white strokes on black, without distortion.

    pen: stroke width as a share of the square root of the picture's area.
    hard: strictly 0 and 255, as scribble ControlNets were trained; otherwise with soft edges.

    Returns: RGB, of size `plan.painted`.
    """
    frame, size = plan.frame, plan.painted
    scale = frame.width / size.width  # page pixels per picture pixel
    half_px = max(1.0, pen * math.sqrt(size.width * size.height)) / 2.0
    reach = math.ceil((half_px + 2.0) * scale) + 2
    distance = ndimage.distance_transform_edt(np.pad(~lines, reach, constant_values=True))
    # Pixel centres: picture pixel i is at page coordinate top + (i + 0.5) × scale - 0.5.
    offset = tuple(start + 0.5 * scale - 0.5 + reach for start in (frame.top, frame.left))
    sampled = ndimage.affine_transform(
        distance.astype(np.float32),
        (scale, scale),
        offset,
        output_shape=(size.height, size.width),
        order=1,
        mode="constant",
        cval=float(reach * 2),
    )
    cover = np.clip(half_px - sampled / scale + 0.5, 0.0, 1.0)
    if hard:
        cover = (cover >= 0.5).astype(np.float32)
    return Image.fromarray((cover * 255.0 + 0.5).astype(np.uint8)).convert("RGB")
