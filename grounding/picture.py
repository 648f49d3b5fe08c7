"""Decodes an uploaded file to an upright RGB picture, or refuses it.

The cost of decoding is checked by the header (limits.py), before a pixel is decoded: a PNG of a few
kilobytes can hold 60 megapixels, which take 180 MB decoded.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from av1 import coded_pixels
from errors import InvalidInput
from limits import MAX_PIXELS, objection, objection_to_size
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

FORMATS = ("PNG", "JPEG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF")
"""The Pillow readers that an upload may reach."""

AVIF_CODED_PER_PIXEL = 4
AVIF_CODED_PX = 16_000_000
"""Coded pixels that an AVIF may hold: the picture, its transparency, gain map and previews."""

# Exceptions of Pillow's decoders on damaged data. RuntimeError is libheif's, for instance for a
# picture that is larger than its header says.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    RuntimeError,
    struct.error,
    zlib.error,
)

register_heif_opener(thumbnails=False)


def load_rgb(path: Path | str) -> Image.Image:
    """Decode the picture in a file.

    The first frame is taken, EXIF orientation applied, transparency laid over white, 16-bit grey
    scaled to 8 bits, palettes and CMYK converted. Colour profiles are not applied, as in the
    original's pipeline.

    Returns: an RGB image, 8 bits a channel, upright.
    Raises InvalidInput when the file is empty, no picture, too large or damaged.
    """
    path = Path(path)  # coglet may pass a path as text
    if path.stat().st_size == 0:
        raise InvalidInput("Cannot read the picture: 'image' must be a picture, got an empty file")
    with _open(path) as image:
        _check(image, path)
        return _to_rgb(_upright(_decoded(image)))


def _open(path: Path) -> Image.Image:
    """Read only the header."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels; this package's limit is lower and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large("more than twice Pillow's own limit") from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise InvalidInput(
            f"Cannot read the picture: 'image' must be one of {kinds}, got something else"
        ) from error
    except _DAMAGED as error:
        raise _damaged() from error


def _check(image: Image.Image, path: Path) -> None:
    """Raises InvalidInput when the header shows a picture beyond the limits."""
    if min(image.size) < 1:
        raise _damaged()
    try:
        refused = objection(image, path) or _objection_to_avif(image, path)
    except _DAMAGED as error:
        raise _damaged() from error
    if refused:
        raise InvalidInput(f"Cannot read the picture: {refused}")


def _objection_to_avif(image: Image.Image, path: Path) -> str | None:
    if image.format != "AVIF":
        return None
    most = max(AVIF_CODED_PER_PIXEL * image.width * image.height, AVIF_CODED_PX)
    if coded_pixels(path.read_bytes()) <= most:
        return None
    return "'image' must be as large as its header says, got an AVIF that holds more"


def _decoded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except Image.DecompressionBombError as error:
        raise _too_large("a frame larger than its header says") from error
    except _DAMAGED as error:
        raise _damaged() from error
    if refused := objection_to_size(*image.size):  # some decoders know the size only after decoding
        raise InvalidInput(f"Cannot read the picture: {refused}")
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:  # with unreadable EXIF the pixels are still usable
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (I;16 and its byte orders, I), of 32 bits or of floats (F, as TIFF has them)
    as RGB; white is 65535, or the highest of 1, 255 and 65535 that floats need, or the maximum."""
    deep = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
    highest = float(deep.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((level for level in whites if highest <= level), highest)
    grey = np.clip((deep.astype(np.float32) * np.float32(255.0 / white)).round(), 0, 255)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[deep == clear] = 255
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _damaged() -> InvalidInput:
    return InvalidInput(
        "Cannot read the picture: 'image' must be whole, got a damaged or cut-off file"
    )


def _too_large(got: str) -> InvalidInput:
    limit = MAX_PIXELS // 1_000_000
    return InvalidInput(
        f"Cannot read the picture: 'image' must have at most {limit} megapixels, got {got}"
    )
