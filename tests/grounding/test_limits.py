"""limits.py: what costs a decoder minutes or gigabytes is refused from the header."""

import io
import struct
import zlib
from pathlib import Path

import limits
import pytest
from errors import InvalidInput
from picture import load_rgb
from PIL import Image


def png(width: int, height: int) -> bytes:
    """A valid grey PNG of zeros; of 50 megapixels it has some 50 kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    packer, zeros, size = zlib.compressobj(), bytes(1 << 20), (1 + width) * height
    pieces = [packer.compress(zeros[: size - at]) for at in range(0, size, len(zeros))]
    data = b"".join(pieces) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def progressive(side_px: int, more_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes `more_scans` times again."""
    whole = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (30, 60, 90)).save(whole, "JPEG", progressive=True)
    jpeg = whole.getvalue()
    scan, end = jpeg.rfind(b"\xff\xda"), jpeg.rfind(b"\xff\xd9")
    return jpeg[:end] + jpeg[scan:end] * more_scans + jpeg[end:]


def rle_bmp(width: int, height: int) -> bytes:
    """A BMP of 8 bits with run-length encoding: a pixel a line, then the end of the line."""
    data = b"\1\7\0\0" * height + b"\0\1"
    palette = bytes(value for grey in range(256) for value in (grey, grey, grey, 0))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + info + palette + data


def saved(folder: Path, content: bytes) -> Path:
    """A file of `content`."""
    path = folder / "picture"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [(1, 49_999_999), (49_999_999, 1), (81, 1), (10, 801)])
def test_thin_pictures_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """1 × 49,999,999 pixels took 16 s; over 80 to 1 nothing is left of a picture anyhow."""
    with pytest.raises(InvalidInput, match=r"at most 80 times the shorter, got \d+ × \d+"):
        load_rgb(saved(tmp_path, png(*size)))


def test_80_to_1_is_taken(tmp_path: Path) -> None:
    """The limit itself is inside."""
    assert load_rgb(saved(tmp_path, png(80, 1))).size == (80, 1)
    assert load_rgb(saved(tmp_path, png(10, 800))).size == (10, 800)


def test_a_side_has_its_limit(tmp_path: Path) -> None:
    """Also where pixels and shape are within theirs."""
    longest = limits.MAX_SIDE_PX
    assert load_rgb(saved(tmp_path, png(longest, 500))).size == (longest, 500)
    with pytest.raises(InvalidInput, match=r"at most 32768 pixels a side, got 32769 × 500"):
        load_rgb(saved(tmp_path, png(longest + 1, 500)))


@pytest.mark.parametrize("orientation", [5, 6])
def test_a_thin_picture_lies_on_its_side(tmp_path: Path, orientation: int) -> None:
    """The limits hold whichever way EXIF turns the picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "side.jpg"
    Image.new("L", (1_700, 20)).save(path, exif=exif)
    with pytest.raises(InvalidInput, match="80 times"):
        load_rgb(path)


def test_a_jpeg_of_many_scans_is_refused(tmp_path: Path) -> None:
    """1,000 scans over 49 megapixels are 350 KB and minutes of decoding."""
    assert load_rgb(saved(tmp_path, progressive(64, 20))).size == (64, 64)
    with pytest.raises(InvalidInput, match="a JPEG of at most 50 scans"):
        load_rgb(saved(tmp_path, progressive(64, 60)))


def test_what_looks_like_scans_in_metadata_does_not_count(tmp_path: Path) -> None:
    """A profile, a thumbnail or a second picture may hold the marker's bytes."""
    jpeg = progressive(64, 0)
    comment = b"\xff\xda" * 500
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    assert load_rgb(saved(tmp_path, jpeg[:2] + segment + jpeg[2:])).size == (64, 64)
    assert load_rgb(saved(tmp_path, jpeg + comment)).size == (64, 64)


def test_a_large_bmp_with_run_lengths_is_refused(tmp_path: Path) -> None:
    """13 KB of it, 49 megapixels, were decoded in Python for 50 s."""
    small = load_rgb(saved(tmp_path, rle_bmp(100, 80)))
    assert (small.size, small.getpixel((0, 3)), small.getpixel((1, 3))) == (
        (100, 80),
        (7, 7, 7),
        (0, 0, 0),
    )
    with pytest.raises(InvalidInput, match="a BMP without compression over 2 megapixels"):
        load_rgb(saved(tmp_path, rle_bmp(2_000, 1_001)))


def test_a_heic_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    """libheif finds that the coded picture exceeds the header's size: the sender's fault, a 422."""
    whole = io.BytesIO()
    Image.new("RGB", (2_048, 2_048)).save(whole, "HEIF")
    content = whole.getvalue().replace(struct.pack(">II", 2048, 2048), struct.pack(">II", 64, 64))
    with pytest.raises(InvalidInput, match="damaged"):
        load_rgb(saved(tmp_path, content))


@pytest.mark.parametrize("kind", ["ICO", "JPEG2000", "ICNS", "TGA", "PCX", "SGI"])
def test_formats_that_are_not_named_stay_shut(tmp_path: Path, kind: str) -> None:
    """Pillow reads some forty formats; an upload reaches the eight that the README names."""
    whole = io.BytesIO()
    Image.new("RGB", (64, 64)).save(whole, kind)
    with pytest.raises(InvalidInput, match="must be one of"):
        load_rgb(saved(tmp_path, whole.getvalue()))


def test_a_gif_frame_larger_than_its_screen_is_refused(tmp_path: Path) -> None:
    """What counts is the larger of the two."""
    whole = io.BytesIO()
    Image.new("P", (9_000, 9_000)).save(whole, "GIF")
    gif = bytearray(whole.getvalue())
    gif[6:10] = struct.pack("<HH", 10, 10)
    with pytest.raises(InvalidInput, match="got 9000 × 9000"):
        load_rgb(saved(tmp_path, bytes(gif)))
