"""Figures of merit of a painted picture."""

import colorsys

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from scipy import ndimage

from tools.demo import nets

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

EDGE = 90.0
"""Sobel magnitude, of 0 to 255, from which a ridge counts as an edge."""
SMOOTH_PX = 2.2
"""Deviation of the blur before: grass and fur are no edges."""
REACH_PX = 4.0
SATURATED = 0.2
HUE_REACH = 25.0
"""Degrees to either side that count as the same hue."""
ONE_HUE_SHARE = 0.8


def vae_psnr_db(vae: AutoencoderTiny, pictures: torch.Tensor) -> float:
    """Mean PSNR of `pictures`, (N, H, W, 3) uint8, after encoding and decoding."""
    with torch.no_grad():
        made = torch.cat([
            vae.decode(vae.encode(nets.as_input(part)).latents).sample
            for part in torch.split(pictures, 16)
        ]).clamp(-1, 1)  # fmt: skip
    error = ((made - nets.as_input(pictures)) / 2).pow(2).mean((1, 2, 3))
    return float((-10 * error.log10()).mean())


def psnr_db(made: Picture, real: Picture) -> float:
    """Of two uint8 pictures."""
    error = float(np.mean((made.astype(np.float32) - real.astype(np.float32)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def edges(picture: Picture) -> Mask:
    """(H, W): where the strongest channel's gradient is large and a ridge."""
    smooth = ndimage.gaussian_filter(picture.astype(np.float32), (SMOOTH_PX, SMOOTH_PX, 0))
    across, down = (ndimage.sobel(smooth, axis=axis) for axis in (1, 0))
    steep = np.hypot(across, down).max(2)
    ridge = [
        (steep >= np.roll(steep, 1, axis)) & (steep >= np.roll(steep, -1, axis)) for axis in (1, 0)
    ]
    upright = np.abs(across).max(2) > np.abs(down).max(2)
    return np.asarray((steep > EDGE) & np.where(upright, ridge[0], ridge[1]))


def edge_recall(picture: Picture, sketch: Picture) -> float:
    """Share of the sketch's lines with an edge of the picture within `REACH_PX`."""
    found = edges(picture)
    if not found.any():
        return 0.0
    away = ndimage.distance_transform_edt(~found)
    return float((away[sketch > 100] <= REACH_PX).mean())


def dominant_hue(picture: Picture, region: Mask) -> tuple[float, float] | None:
    """The most common hue in `region` in degrees, and the share of its pixels near that hue.

    Greyish pixels count as being of no hue; None if they are more than half.
    """
    hsv = np.asarray(Image.fromarray(picture).convert("HSV"), np.float32)[region]
    hues = hsv[hsv[:, 1] / 255 > SATURATED, 0] * 360 / 255
    if len(hues) < 0.5 * len(hsv):
        return None
    counts, ends = np.histogram(hues, bins=36, range=(0, 360))
    smooth = ndimage.uniform_filter1d(counts.astype(float), 3, mode="wrap")
    hue = float(ends[smooth.argmax()] + 5)
    return hue, float((hue_distance(hues, hue) <= HUE_REACH).sum() / len(hsv))


def hue_distance(hues: npt.NDArray[np.floating] | float, hue: float) -> npt.NDArray[np.floating]:
    """Degrees around the circle, 0 to 180."""
    return np.abs((np.asarray(hues) - hue + 180) % 360 - 180)


def hue_of(colour: tuple[float, float, float]) -> float:
    """The hue in degrees of an RGB colour in 0 to 1."""
    return colorsys.rgb_to_hsv(*colour)[0] * 360


def core(region: Mask) -> Mask:
    """`region` without its rim, whose pixels are mixed with the background."""
    return np.asarray(ndimage.binary_erosion(region, iterations=2))
