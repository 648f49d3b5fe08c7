"""Decodes an uploaded file to an upright RGB picture, or refuses it.

The cost of decoding is checked by the header (limits.py), before a pixel is decoded: a PNG of a few
kilobytes can hold 60 megapixels, which take 180 MB decoded.
"""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from errors import InvalidInput
from limits import MAX_PIXELS, objection, objection_to_size
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

FORMATS = ("PNG", "JPEG", "WEBP", "HEIF", "GIF", "BMP")
"""The Pillow readers that an upload may reach."""

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
        refused = objection(image, path)
    except _DAMAGED as error:
        raise _damaged() from error
    if refused:
        raise InvalidInput(f"Cannot read the picture: {refused}")


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
    if image.mode.startswith("I"):  # I;16 and its byte orders, and I: 16-bit grey
        deep = np.asarray(image)
        grey = np.clip((deep.astype(np.float32) / 257.0).round(), 0, 255)  # 65535 / 255
        if isinstance(clear := image.info.get("transparency"), int):
            grey[deep == clear] = 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", layer.size, "white")
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image.convert("RGB")


def _damaged() -> InvalidInput:
    return InvalidInput(
        "Cannot read the picture: 'image' must be whole, got a damaged or cut-off file"
    )


def _too_large(got: str) -> InvalidInput:
    limit = MAX_PIXELS // 1_000_000
    return InvalidInput(
        f"Cannot read the picture: 'image' must have at most {limit} megapixels, got {got}"
    )
