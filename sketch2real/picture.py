"""Decodes an untrusted image file to RGB pixels, or refuses it before anything large is decoded.

Only the header is read until type, size and cost are known (limits.py), so a decompression bomb
costs nothing.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pillow_heif
from av1 import coded_pixels
from errors import InvalidInput
from limits import MAX_PIXELS, objection
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

Mask = npt.NDArray[np.bool_]

pillow_heif.register_heif_opener()

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
"""The Pillow readers that an upload may reach, by Pillow's names."""

MIN_SIDE_PX = 16
"""Smaller pictures cannot be distinguished from noise."""

AVIF_CODED_PER_PIXEL = 4
AVIF_CODED_PX = 16_000_000
"""Coded pixels that an AVIF may hold: the picture, its transparency, gain map and previews."""

FAINTEST_ALPHA = 8
"""Alpha (0 to 255) that something drawn reaches; less is nothing that a person could see."""

_UNREADABLE = (
    OSError,  # truncated or corrupt data (Pillow), missing codec
    SyntaxError,  # Pillow's PNG reader on a broken chunk
    ValueError,  # impossible header values, oversized text chunks
    EOFError,
    IndexError,
    KeyError,
    RuntimeError,  # libheif
    struct.error,
    Image.DecompressionBombError,
)


def load_rgb(path: Path, *, max_side_px: int) -> npt.NDArray[np.uint8]:
    """The picture in `path`, upright, opaque, no side longer than `max_side_px`.

    EXIF orientation is applied. A transparent picture is laid on white if its strokes are dark and
    on black if they are light, so that they stay visible. 16-bit, palette, grey, CMYK and HEIC
    pictures arrive as the same 8-bit RGB.

    Returns: (H, W, 3), uint8, RGB.
    Raises InvalidInput when it is empty, no image, truncated, over `MAX_PIXELS`, or shows nothing.
    """
    if path.stat().st_size == 0:
        raise InvalidInput("Cannot read the sketch: 'image' must be a picture, got an empty file")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            _check(picture, path, max_side_px)
            # A JPEG can be decoded at 1/2, 1/4 or 1/8 size: the clean-up needs no 50 megapixels.
            picture.draft("RGB", (max_side_px, max_side_px))
            ImageOps.exif_transpose(picture, in_place=True)
            # Reduced first, so that 50 megapixels are not copied twice.
            upright = _opaque(_shrunk(_direct(picture), max_side_px))
    except (InvalidInput, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidInput(
            "Cannot read the sketch: 'image' must be a PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or "
            "TIFF picture, got something else"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except _UNREADABLE as error:
        raise InvalidInput(
            "Cannot read the sketch: 'image' must be a whole picture, got a damaged or cut-off one"
        ) from error
    return np.asarray(upright, dtype=np.uint8)


def _check(picture: Image.Image, path: Path, max_side_px: int) -> None:
    """Raises InvalidInput when the header shows a picture beyond the limits."""
    width, height = picture.size
    if min(width, height) < MIN_SIDE_PX:
        raise InvalidInput(
            f"Cannot read the sketch: 'image' must be at least {MIN_SIDE_PX} pixels on each side, "
            f"got {width} × {height}"
        )
    if refused := objection(picture, path):
        raise InvalidInput(f"Cannot read the sketch: {refused}")
    if picture.format == "AVIF" and coded_pixels(path.read_bytes()) > max(
        AVIF_CODED_PER_PIXEL * width * height, AVIF_CODED_PX
    ):
        raise InvalidInput(
            "Cannot read the sketch: 'image' must be as large as its header says, got an AVIF that "
            "holds more"
        )
    most = max_side_px // MIN_SIDE_PX
    if max(width, height) > most * min(width, height):  # reduced, it would be too thin
        raise InvalidInput(
            "Cannot read the sketch: the longer side of 'image' must be at most "
            f"{most} times the shorter, got {width} × {height}"
        )


def _too_large() -> InvalidInput:
    return InvalidInput(
        f"Cannot read the sketch: 'image' must have at most {MAX_PIXELS // 1_000_000} megapixels, "
        "got more"
    )


def _direct(picture: Image.Image) -> Image.Image:
    """`picture` in a mode that can be resized smoothly: RGB, RGBA, L, LA or CMYK."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    if picture.mode in ("PA", "La", "RGBa") or "transparency" in picture.info:
        return picture.convert("RGBA")
    if picture.mode in ("RGB", "RGBA", "L", "LA", "CMYK"):
        return picture
    return picture.convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    """`picture` as 8-bit RGB; transparency is laid on white or black, by what touches it."""
    if picture.mode not in ("RGBA", "LA"):
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    pixels = np.asarray(rgba)
    alpha = pixels[..., 3]
    strongest = int(alpha.max())
    if strongest < FAINTEST_ALPHA:
        raise InvalidInput(
            "Cannot draw from this sketch: 'image' must show lines, got a transparent page"
        )
    if strongest < 255:  # a faint pen is as good as a full one
        rgba.putalpha(Image.fromarray((alpha.astype(np.float32) * 255 / strongest).astype("uint8")))
    ground = Image.new("RGBA", rgba.size, ground_of(pixels))
    return Image.alpha_composite(ground, rgba).convert("RGB")


def ground_of(rgba: npt.NDArray[np.uint8]) -> str:
    """The ground, "white" or "black", on which a drawing on a transparent page can be seen.

    rgba: (H, W, 4) uint8.

    What touches transparency decides, since only that is drawn on the ground: a white fill within
    black outlines does not. Each pixel counts by its alpha and by how much it differs from the
    ground. Thin things (lines) count more than wide ones (fills, strokes of an eraser in the colour
    of the paper). White if nothing tells.
    """
    alpha = rgba[..., 3].astype(np.float32) / 255.0
    covered = alpha >= 0.15 * alpha.max()  # the outer half of a soft edge is transparent
    edge = covered & ndimage.binary_dilation(~covered, iterations=2)
    darkest, lightest = rgba[..., :3].min(axis=2), rgba[..., :3].max(axis=2)
    light = covered & (darkest > 127)  # cannot be seen on white
    dark = covered & (lightest < 128)
    weights = {
        ground: float((alpha * lost)[seen & edge].sum()) * _thinness(seen, edge)
        for ground, seen, lost in (
            ("white", dark, 1.0 - lightest / 255.0),
            ("black", light, darkest / 255.0),
        )
    }
    return "black" if weights["black"] > weights["white"] else "white"


def _thinness(mask: Mask, edge: Mask) -> float:
    """The share of `mask` that is `edge`: 1 for a thin line, near 0 for a large area."""
    return float((mask & edge).sum()) / max(1.0, float(mask.sum()))


def _from_deep(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits (16-bit scans, float TIFF) scaled from its own range to 8 bits.

    Scanners fill 12, 14 or 16 bits and do not say which, so the range is taken from the data.
    """
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return Image.new("RGB", picture.size, "white")  # a blank page; the clean-up refuses it
    return Image.fromarray(((values - low) * (255.0 / (high - low))).astype(np.uint8)).convert(
        "RGB"
    )


def _shrunk(picture: Image.Image, max_side_px: int) -> Image.Image:
    longest = max(picture.size)
    if longest <= max_side_px:
        return picture
    scale = max_side_px / longest
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # reducing_gap makes a 50-megapixel reduction fast, without visible loss for line art.
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
