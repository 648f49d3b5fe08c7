"""Narrow shadows on a page: fingers, a pen, a lamp's cord.

What is wider than a neighbourhood counts as light, whatever its edges. What is narrower may be ink
or a shadow. A shadow's edge is soft, for a lamp or a window has a size, and it darkens all colours
alike. The edge of ink is as sharp as the picture.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Grey = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

STROKE_PX: Final = 7
"""Wider than a stroke in the coarse picture, whose longer side has 320 px."""

_FAINTEST: Final = 0.08
_DEEPEST: Final = 0.85
"""Of the light, what a shadow takes; ink may take more."""

_SOFT: Final = 0.35
"""Steepest edge of a shadow: the share of its depth within a coarse pixel. Ink has 0.4 to 0.5, a
shadow of 4 px blur (standard deviation, in 960) 0.28."""

_NEUTRAL: Final = 0.7
"""Least ratio of what the palest and the darkest channel lose: the sky's light in a shadow is
bluish, ink of a colour is below one half."""


def narrow(coarse: Grey, light: Grey) -> tuple[Mask, Grey]:
    """Where narrow shadows are, (h, w), and the light of the paper there, (h, w, 3).

    coarse: (h, w, 3), 0 to 1, dark strokes on light paper. light: the same without anything dark
    that is narrower than a neighbourhood, so that narrow shadows are missing in it.
    """
    shaded = np.stack(
        [ndimage.grey_closing(coarse[..., k], STROKE_PX, mode="nearest") for k in range(3)], axis=2
    )
    lost = 1.0 - shaded / np.maximum(light, 0.05)
    darkest, palest = lost.max(axis=2), lost.min(axis=2)
    slope = np.hypot(*np.gradient(darkest))
    found = np.zeros(darkest.shape, np.bool_)
    labels, _ = ndimage.label(darkest > _FAINTEST)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[box] == number
        depth = float(np.percentile(darkest[box][inside], 90))
        core = inside & (darkest[box] > depth / 2)
        edge = inside & (np.abs(darkest[box] / depth - 0.5) < 0.2)
        if depth > _DEEPEST or edge.sum() < STROKE_PX:
            continue
        is_neutral = np.median(palest[box][core] / darkest[box][core]) > _NEUTRAL
        if is_neutral and np.median(slope[box][edge]) / depth < _SOFT:
            found[box] |= inside
    return np.asarray(ndimage.binary_dilation(found, iterations=2), np.bool_), shaded
