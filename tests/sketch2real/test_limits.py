"""limits.py, as a sketch meets it: what is expensive to decode is refused from the header.

The module is a copy of grounding's; tests/grounding/test_limits.py has its cases in full.
"""

import io
import struct
import zlib
from pathlib import Path

import pytest
from av1 import coded_pixels
from errors import InvalidInput
from picture import load_rgb
from PIL import Image


def tiled_tiff(side_px: int, tile_px: int) -> bytes:
    """A grey TIFF of one deflated tile, all black."""
    packer = zlib.compressobj(9)
    rows = [packer.compress(b"\0" * tile_px) for _ in range(tile_px)]
    data = b"".join(rows) + packer.flush()
    long, short, deflate = 4, 3, 8
    tags = [
        (256, long, side_px), (257, long, side_px), (258, short, 8), (259, short, deflate),
        (262, short, 1), (277, short, 1), (322, long, tile_px), (323, long, tile_px),
        (324, long, 0), (325, long, len(data)),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, value in tags:
        tiff += struct.pack("<HHII", tag, kind, 1, start if tag == 324 else value)
    return tiff + struct.pack("<I", 0) + data


def progressive(more_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes `more_scans` times again."""
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), (30, 60, 90)).save(whole, "JPEG", progressive=True)
    jpeg = whole.getvalue()
    scan, end = jpeg.rfind(b"\xff\xda"), jpeg.rfind(b"\xff\xd9")
    return jpeg[:end] + jpeg[scan:end] * more_scans + jpeg[end:]


def rle_bmp(width: int, height: int) -> bytes:
    """A white BMP of 8 bits with run-length encoding: a pixel a line, then the end of the line."""
    data = b"\1\7\0\0" * height + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + info + b"\xff" * 1024 + data


def saved(folder: Path, content: bytes) -> Path:
    """A file of `content`."""
    path = folder / "sketch"
    path.write_bytes(content)
    return path


def test_a_tiff_of_giant_tiles_is_refused(tmp_path: Path) -> None:
    """100 × 100 pixels in a tile of 30,000 × 30,000 took 11 s and 860 MB."""
    assert load_rgb(saved(tmp_path, tiled_tiff(100, 112)), max_side_px=1280).shape == (100, 100, 3)
    with pytest.raises(InvalidInput, match="a TIFF of tiles no larger than itself"):
        load_rgb(saved(tmp_path, tiled_tiff(100, 4_112)), max_side_px=1280)


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    """Each costs a pass over the whole picture."""
    assert load_rgb(saved(tmp_path, progressive(20)), max_side_px=1280).shape == (64, 64, 3)
    with pytest.raises(InvalidInput, match="a JPEG of at most 50 scans"):
        load_rgb(saved(tmp_path, progressive(60)), max_side_px=1280)


def test_a_large_bmp_with_run_lengths_is_refused(tmp_path: Path) -> None:
    """It is decoded in Python, a second a megapixel."""
    assert load_rgb(saved(tmp_path, rle_bmp(100, 80)), max_side_px=1280).min() == 255
    with pytest.raises(InvalidInput, match="a BMP without compression over 2 megapixels"):
        load_rgb(saved(tmp_path, rle_bmp(2_000, 1_001)), max_side_px=1280)


def test_a_side_has_its_limit(tmp_path: Path) -> None:
    """Also where pixels and shape are within theirs."""
    whole = io.BytesIO()
    Image.new("1", (32_769, 500)).save(whole, "PNG")
    with pytest.raises(InvalidInput, match="at most 32768 pixels a side, got 32769 × 500"):
        load_rgb(saved(tmp_path, whole.getvalue()), max_side_px=1280)


def avif(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    """An AVIF of one colour, half transparent where the mode has that."""
    whole = io.BytesIO()
    Image.new(mode, (width, height), "#00FF0080").save(whole, "AVIF", speed=10, **options)
    return whole.getvalue()


@pytest.mark.parametrize("size", [(64, 48), (1000, 700), (1923, 17)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_coded_size_of_an_avif(size: tuple[int, int], mode: str) -> None:
    """It is read from the AV1 data: the picture's, and the same once more for transparency."""
    pixels = size[0] * size[1] * (2 if mode == "RGBA" else 1)
    content = avif(*size, mode)
    assert coded_pixels(content) == pixels
    renamed = content.replace(struct.pack(">II", *size), struct.pack(">II", 16, 16))
    assert coded_pixels(renamed) == pixels


def test_an_avif_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    """A kilobyte that called itself 64 × 64 was decoded as 8192 × 8192, for 4 s."""
    size = struct.pack(">II", 5_000, 4_000)
    lie = avif(5_000, 4_000).replace(size, struct.pack(">II", 64, 64))
    with pytest.raises(InvalidInput, match="as large as its header says"):
        load_rgb(saved(tmp_path, lie), max_side_px=1280)


def test_a_film_is_no_sketch(tmp_path: Path) -> None:
    """An AVIF with tracks is refused, since its frames have sizes of their own."""
    film = avif(64, 64, save_all=True, append_images=[Image.new("RGB", (64, 64))])
    with pytest.raises(InvalidInput, match="whole picture"):
        load_rgb(saved(tmp_path, film), max_side_px=1280)
