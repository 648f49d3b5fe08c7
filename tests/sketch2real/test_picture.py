"""picture.py: every kind of picture comes in the same; everything else is refused early."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from errors import InvalidInput
from hypothesis import given, settings
from hypothesis import strategies as st
from picture import load_rgb
from PIL import Image, ImageDraw, ImageFile, ImageFilter


def cross(mode: str = "RGB", ground: object = "white", ink: object = "black") -> Image.Image:
    """A cross, its left arm longer than the others, so that orientation shows."""
    picture = Image.new(mode, (96, 64), ground)
    pen = ImageDraw.Draw(picture)
    pen.line((4, 32, 70, 32), fill=ink, width=4)
    pen.line((60, 8, 60, 56), fill=ink, width=4)
    return picture


def png_bomb(width: int, height: int) -> bytes:
    """A valid PNG of `width` × `height` blank pixels in a few hundred kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    row = b"\0" * (1 + width * 3)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        ("png", "RGB"), ("png", "L"), ("png", "P"), ("png", "1"), ("jpg", "RGB"), ("jpg", "CMYK"),
        ("webp", "RGB"), ("gif", "P"), ("bmp", "RGB"), ("tiff", "CMYK"), ("heic", "RGB"),
        ("avif", "RGB"),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_pixels(tmp_path: Path, suffix: str, mode: str) -> None:
    """Format and colour mode do not matter: the cross is dark on light where it was drawn."""
    path = tmp_path / f"cross.{suffix}"
    cross().convert(mode).save(path)
    rgb = load_rgb(path, max_side_px=200)
    assert rgb.shape == (64, 96, 3)
    assert rgb.dtype == np.uint8
    assert rgb[32, 20].max() < 60
    assert rgb[10, 20].min() > 200


@pytest.mark.parametrize("kind", ["I;16", "F"])
def test_deep_grey_is_stretched(tmp_path: Path, kind: str) -> None:
    """A 12-bit scan in a 16-bit file is not a black page."""
    grey = np.asarray(cross("L", 255, 0)).astype(np.float32) * 16
    values = grey.astype(np.uint16) if kind == "I;16" else grey
    path = tmp_path / "scan.tiff"
    Image.fromarray(values).save(path)
    rgb = load_rgb(path, max_side_px=200)
    assert rgb[32, 20].max() < 10
    assert rgb[10, 20].min() > 245


@pytest.mark.parametrize(("ink", "ground"), [((0, 0, 0, 255), 255), ((255, 255, 255, 255), 0)])
def test_strokes_on_transparency_stay_visible(
    tmp_path: Path, ink: tuple[int, ...], ground: int
) -> None:
    """Dark strokes on a transparent canvas are laid on white, light ones on black."""
    path = tmp_path / "canvas.png"
    cross("RGBA", (0, 0, 0, 0), ink).save(path)
    rgb = load_rgb(path, max_side_px=200)
    assert (rgb[10, 20] == ground).all()
    assert (rgb[32, 20] == 255 - ground).all()


INK, PAPER = (0, 0, 0, 255), (255, 255, 255, 255)


def house(pen: ImageDraw.ImageDraw, ink: tuple[int, ...], fill: tuple[int, ...] | None) -> None:
    """A house and its door in lines of 4 px; walls and roof filled or not."""
    pen.polygon([(60, 110), (130, 50), (200, 110)], outline=ink, width=4, fill=fill)
    pen.rectangle((70, 110, 190, 210), outline=ink, width=4, fill=fill)
    pen.rectangle((115, 160, 145, 210), outline=ink, width=4)


@pytest.mark.parametrize("kind", ["lines", "fill", "eraser", "faint", "light fill beside", "soft"])
@pytest.mark.parametrize("is_dark", [True, False])
def test_what_touches_transparency_decides_the_ground(
    tmp_path: Path, kind: str, is_dark: bool
) -> None:
    """Fills and erasers in the colour of the paper hide no line, on a light theme or a dark one."""
    ink, paper = (INK, PAPER) if is_dark else (PAPER, INK)
    canvas = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    pen = ImageDraw.Draw(canvas)
    if kind == "eraser":  # over two thirds of the page
        for left in (10, 90, 210):
            pen.rectangle((left, 5, left + 55, 235), fill=paper)
    if kind == "light fill beside":
        pen.rectangle((0, 200, 319, 239), fill=paper[:1] * 2 + (150 if is_dark else 90, 255))
        pen.ellipse((230, 20, 280, 70), fill=paper)
    house(pen, ink, paper if kind == "fill" else None)
    if kind == "faint":
        pen.rectangle((230, 150, 300, 200), outline=(*ink[:3], 90), width=4)
        canvas.putalpha(canvas.getchannel("A").point(lambda value: value * 2 // 5))
    if kind == "soft":
        canvas = canvas.convert("RGBa").filter(ImageFilter.GaussianBlur(2)).convert("RGBA")
    canvas.save(tmp_path / "canvas.png")
    rgb = load_rgb(tmp_path / "canvas.png", max_side_px=1280).astype(int)
    assert (rgb[2, 2] == paper[:3]).all()
    for row, column in ((111, 130), (160, 72), (208, 90), (162, 130)):  # a point of each line
        near = rgb[row - 3 : row + 4, column - 3 : column + 4]
        assert np.abs(near - np.array(paper[:3])).max() > 100


def test_faint_strokes_count_by_their_alpha(tmp_path: Path) -> None:
    """Light lines of a thin watercolour are laid on black, as strong as full ones."""
    canvas = Image.new("RGBA", (320, 240), (0, 0, 0, 0))
    house(ImageDraw.Draw(canvas), (255, 255, 255, 60), None)
    canvas.save(tmp_path / "canvas.png")
    rgb = load_rgb(tmp_path / "canvas.png", max_side_px=1280)
    assert not rgb[2, 2].any()
    assert rgb.max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """A phone's sideways JPEG comes in upright, whichever of the eight ways it was held."""
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = cross()
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone.jpg"
    stored.save(path, exif=exif, quality=95)
    rgb = load_rgb(path, max_side_px=200).astype(int)
    assert rgb.shape == (64, 96, 3)
    assert np.abs(rgb - np.asarray(cross(), dtype=int)).mean() < 3


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    """The longer side is brought down, the shape kept."""
    path = tmp_path / "large.jpg"
    cross().resize((3000, 2000)).save(path)
    assert load_rgb(path, max_side_px=1280).shape == (853, 1280, 3)


def test_sixty_megapixel_bomb_is_refused_undecoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PNG of 60 megapixels is refused from its header: its 180 MB are never decoded."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bomb(10_000, 6_000))
    assert path.stat().st_size < 300_000

    def decode(_: object) -> None:
        raise AssertionError("the bomb was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(InvalidInput, match=r"at most 50 megapixels, got 10000 × 6000"):
        load_rgb(path, max_side_px=1280)


def test_gigapixel_header_is_refused(tmp_path: Path) -> None:
    """Beyond Pillow's own limit the words are ours too."""
    path = tmp_path / "bomb.png"
    picture = bytearray(png_bomb(16, 16))
    picture[16:24] = struct.pack(">II", 60_000, 60_000)
    picture[29:33] = struct.pack(">I", zlib.crc32(bytes(picture[12:29])))
    path.write_bytes(bytes(picture))
    with pytest.raises(InvalidInput, match="megapixels"):
        load_rgb(path, max_side_px=1280)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"hello, I am a text\n" * 50, "something else"),
        (b"%PDF-1.7\n", "something else"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "something else"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "got"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    """Empty files, texts and documents called .png get a sentence that names what is wanted."""
    path = tmp_path / "sketch.png"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=words) as caught:
        load_rgb(path, max_side_px=1280)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tiff", "heic", "avif"])
def test_cut_off_files_are_refused(tmp_path: Path, suffix: str) -> None:
    """Half a file is no picture, in any format."""
    whole = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    kind = {"jpg": "JPEG", "tiff": "TIFF", "heic": "HEIF"}.get(suffix, suffix.upper())
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(InvalidInput):
        load_rgb(path, max_side_px=1280)


def test_tiny_and_transparent_pages_are_refused(tmp_path: Path) -> None:
    """One pixel is no sketch, nor is an empty canvas."""
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(InvalidInput, match="at least 16 pixels"):
        load_rgb(tmp_path / "dot.png", max_side_px=1280)
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "blank.png")
    with pytest.raises(InvalidInput, match="transparent page"):
        load_rgb(tmp_path / "blank.png", max_side_px=1280)


@pytest.mark.parametrize("size", [(65_535, 16), (16, 65_535), (17, 30_000), (2_000, 16)])
def test_thin_strips_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    """What would be under 16 px across once reduced has no lines to find."""
    path = tmp_path / "strip.png"
    Image.new("L", size, 255).save(path)
    with pytest.raises(InvalidInput, match="at most 80 times the shorter"):
        load_rgb(path, max_side_px=1280)
    Image.new("L", (6_000, 75), 255).save(path)
    assert load_rgb(path, max_side_px=1280).shape == (16, 1280, 3)


@settings(max_examples=150, deadline=None)
@given(
    suffix=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "HEIF"]),
    damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
    cut=st.floats(0, 1),
)
def test_damage_never_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    damage: list[tuple[float, int]],
    cut: float,
) -> None:
    """Whatever bytes are overwritten or cut off: pixels come out, or InvalidInput, nothing else."""
    whole = io.BytesIO()
    cross().save(whole, suffix)
    content = bytearray(whole.getvalue())
    for place, value in damage:
        content[int(place * (len(content) - 1))] = value
    path = tmp_path_factory.mktemp("damage") / "sketch"
    path.write_bytes(bytes(content[: max(1, int(cut * len(content)))]))
    try:
        assert load_rgb(path, max_side_px=64).dtype == np.uint8
    except InvalidInput as refused:
        assert str(refused).startswith("Cannot ")
