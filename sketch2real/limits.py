"""Limits on a picture's size and on the cost of decoding it, checked before a pixel is decoded.

A file of a few hundred bytes can take a decoder minutes and gigabytes: by its width and height, but
also by the number of passes over the picture, by tiles larger than the picture, or by a compression
that is slow to decode. The packages for pictures each have an identical copy of this module, since
no package imports another.
"""

import re
from pathlib import Path

from PIL import Image

MAX_PIXELS = 50_000_000
"""Largest picture: phone pictures of 8160 × 6120 pass, decompression bombs do not."""

MAX_SIDE_PX = 32_768
"""Longest side: panoramas and screenshots of whole web pages pass."""

MAX_ASPECT = 80
"""Longer side over shorter. Resized for a model, a longer picture would be a few pixels thin; and
one of 1 × 49,999,999 pixels took 16 s and 2.5 GB to resize."""

MAX_SCANS = 50
"""Scans of a JPEG. Encoders write 10, at most about 20; each one more takes 75 bytes and, at 50
megapixels, 0.1 s."""

MAX_RLE_PIXELS = 2_000_000
"""Largest BMP with run-length encoding. Pillow decodes that in Python, 1 s per megapixel."""

MAX_TILE_PIXELS = 16_777_216
"""Largest tile of a TIFF, unless the picture is larger: a tile is decoded as a whole."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF 6.0, section 15
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# A JPEG marker within compressed data: no stuffed zero, no restart marker, no fill byte.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def objection(image: Image.Image, path: Path) -> str | None:
    """Which limit an opened picture, not yet decoded, exceeds.

    Returns: "'image' must …, got …", or None for a picture that may be decoded.
    """
    width, height = image.size
    return objection_to_size(width, height) or _objection_to_coding(image, path)


def objection_to_size(width: int, height: int) -> str | None:
    """Which limit a size in px exceeds; None for one within the limits."""
    if width * height > MAX_PIXELS:
        got = f"{width} × {height} = {width * height / 1e6:.1f} megapixels"
        return f"'image' must have at most {MAX_PIXELS // 1_000_000} megapixels, got {got}"
    if max(width, height) > MAX_ASPECT * min(width, height):
        return (
            f"the longer side of 'image' must be at most {MAX_ASPECT} times the shorter, "
            f"got {width} × {height}"
        )
    if max(width, height) > MAX_SIDE_PX:
        return f"'image' must have at most {MAX_SIDE_PX} pixels a side, got {width} × {height}"
    return None


def _objection_to_coding(image: Image.Image, path: Path) -> str | None:
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO") and count_scans(path.read_bytes()) > MAX_SCANS:
        return f"'image' must be a JPEG of at most {MAX_SCANS} scans, got more"
    if image.format == "BMP" and pixels > MAX_RLE_PIXELS and _is_run_length_encoded(image):
        limit = MAX_RLE_PIXELS // 1_000_000
        return f"'image' must be a BMP without compression over {limit} megapixels, got RLE"
    if image.format == "TIFF" and _tile_pixels(image) > max(pixels, MAX_TILE_PIXELS):
        return "'image' must be a TIFF of tiles no larger than itself, got larger ones"
    return None


def count_scans(data: bytes) -> int:
    """Scans of the first picture in a JPEG file, counted up to MAX_SCANS + 1."""
    # An upper bound, since metadata may hold this marker too; nearly every file is within it.
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return 1
    scans, at = 0, 2
    while scans <= MAX_SCANS and (marker := _MARKER.search(data, at)):
        kind, at = data[marker.start() + 1], marker.end()
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2])  # a segment's length, its two bytes included
    return scans


def _is_run_length_encoded(image: Image.Image) -> bool:
    tiles = getattr(image, "tile", [])
    return any(tile[0] == "bmp_rle" for tile in tiles)


def _tile_pixels(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
