"""Every kind of file: decoded upright, or refused before it costs anything."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from errors import InvalidInput
from picture import MAX_PIXELS, load_rgb
from PIL import Image, ImageCms
from pillow_heif import from_pillow


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def png_header(width, height, *, data=b""):
    """A PNG of one colour whose size is only claimed."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_formats(tmp_path, noise, kind):
    """Each accepted format decodes, whatever the file is called."""
    path = saved(tmp_path, noise.quantize(16) if kind == "GIF" else noise, "upload", format=kind)
    decoded = load_rgb(path)
    assert decoded.mode == "RGB"
    assert decoded.size == noise.size
    error = np.abs(np.asarray(decoded, int) - np.asarray(noise, int)).mean()
    assert error < (1 if kind in ("PNG", "BMP", "TIFF") else 60)


def test_a_phones_two_frame_jpeg(tmp_path, noise):
    """An MPO (a JPEG with a second frame, as phones write) gives its first frame."""
    path = tmp_path / "phone.jpg"
    noise.save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert load_rgb(path).size == noise.size


def test_heic_with_orientation(tmp_path, noise):
    """A phone's HEIC decodes, turned as its EXIF says, once."""
    smooth = Image.linear_gradient("L").resize((64, 48)).convert("RGB")  # dark above, light below
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.heic"
    from_pillow(smooth).save(path, exif=exif.tobytes(), quality=90)
    decoded = load_rgb(path)
    assert decoded.size == (48, 64)
    grey = np.asarray(decoded.convert("L"), int)
    assert grey[:, 0].mean() > 200  # 90° clockwise: the dark side is now on the right
    assert grey[:, -1].mean() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(tmp_path, noise, orientation):
    """What a viewer shows is what is searched."""
    smooth = noise.resize((8, 6)).resize((64, 48))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose that stores it so
    stored = smooth if orientation == 1 else smooth.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = load_rgb(saved(tmp_path, stored, "a.png", exif=exif))
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(smooth))


def test_transparency_lies_over_white(tmp_path):
    """RGBA, grey with alpha, and transparent palette entries become white, not black."""
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    grey = Image.new("LA", (4, 4), (0, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([9, 9, 9] * 2)
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    for name, image, options in [
        ("rgba.png", clear, {}),
        ("la.png", grey, {}),
        ("p.png", palette, {"transparency": 0}),
        ("key.png", keyed, {"transparency": (1, 2, 3)}),
        ("rgba.webp", clear, {"lossless": True}),
    ]:
        decoded = load_rgb(saved(tmp_path, image, name, **options))
        assert decoded.getpixel((1, 1)) == (255, 255, 255), name


def test_sixteen_bit_grey_is_scaled(tmp_path):
    """16-bit grey keeps its range instead of being cut at 255."""
    pixels = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    decoded = load_rgb(saved(tmp_path, Image.fromarray(pixels), "grey16.png"))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 100, 255]
    keyed = saved(tmp_path, Image.fromarray(pixels), "keyed.png", transparency=257 * 100)
    assert np.asarray(load_rgb(keyed))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0, 1e6])
def test_a_tiff_of_floats_is_scaled(tmp_path, white):
    """Whatever range a scanner or a program wrote; what is no number is black."""
    pixels = np.array([[0, white / 2, white, np.nan]], dtype=np.float32)
    decoded = load_rgb(saved(tmp_path, Image.fromarray(pixels), "deep.tiff"))
    assert np.asarray(decoded)[0, :, 0].tolist() == pytest.approx([0, 127.5, 255, 0], abs=1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "group4"])
def test_tiffs_of_scanners(tmp_path, noise, compression):
    """Each usual compression decodes, upright: a TIFF's orientation is applied once."""
    mode = "1" if compression == "group4" else "RGB"
    flat = noise.resize((4, 3)).resize((64, 48), 0).convert(mode)
    path = tmp_path / "scan.tif"
    flat.transpose(Image.Transpose.ROTATE_90).save(
        path, compression=compression, tiffinfo={0x0112: 6}
    )
    decoded = load_rgb(path)
    assert decoded.size == (64, 48)
    difference = np.asarray(decoded, int) - np.asarray(flat.convert("RGB"), int)
    assert np.abs(difference).mean() < 20


def test_an_avif_that_holds_more_than_it_says_is_refused(tmp_path):
    """libavif would decode the 36 megapixels in it before it looks at the 64 × 64 of the header."""
    path = saved(tmp_path, Image.new("RGB", (6000, 6000)), "bomb.avif", quality=1, speed=10)
    data = path.read_bytes()
    size = struct.pack(">II", 6000, 6000)
    assert data.count(b"ispe\0\0\0\0" + size) == 1
    path.write_bytes(
        data.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + struct.pack(">II", 64, 64))
    )
    with pytest.raises(InvalidInput):
        load_rgb(path)


def test_palette_grey_bilevel_and_cmyk(tmp_path, noise):
    """Other modes become RGB of the same look."""
    assert load_rgb(saved(tmp_path, noise.quantize(8), "p.png")).mode == "RGB"
    assert load_rgb(saved(tmp_path, noise.convert("L"), "l.png")).mode == "RGB"
    assert load_rgb(saved(tmp_path, noise.convert("1"), "b.png")).mode == "RGB"
    red = Image.new("RGB", (16, 16), (230, 20, 20)).convert("CMYK")
    r, g, b = load_rgb(saved(tmp_path, red, "cmyk.jpg")).getpixel((8, 8))
    assert r > 200
    assert max(g, b) < 60


def test_colour_profile_does_no_harm(tmp_path, noise):
    """A picture with an ICC profile decodes to its own pixel values."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path, noise, "icc.png", icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(load_rgb(path)), np.asarray(noise))


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 80)])
def test_tiny_pictures(tmp_path, size):
    """One pixel is a picture."""
    assert load_rgb(saved(tmp_path, Image.new("RGB", size), "tiny.png")).size == size


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"I am a text, not a picture.\n" * 50, "must be one of"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "must be one of"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "must be one of"),
        (b"\x89PNG\r\n\x1a\n", "must be"),
        (png_header(0, 10), "must be"),
        (png_header(40, 40), "damaged"),
        (png_header(40, 40, data=b"\0" * 50), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, content, says):
    """Empty, foreign and hollow files get a message for the person, without a path."""
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=says) as caught:
        load_rgb(path)
    assert str(tmp_path) not in str(caught.value)
    assert "image" in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIF", "AVIF", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_cut_off_files_are_refused(tmp_path, noise, kind, part):
    """A broken upload is never searched as if it were whole, in any format."""
    whole = io.BytesIO()
    noise.save(whole, kind)
    path = tmp_path / "cut"
    path.write_bytes(whole.getvalue()[: int(len(whole.getvalue()) * part)])
    with pytest.raises(InvalidInput):
        load_rgb(path)


@pytest.mark.parametrize("size", [(10_000, 6_000), (50_001, 1_000), (60_000, 60_000)])
def test_bombs_are_refused_from_the_header(tmp_path, size):
    """60 megapixels and more are refused without decoding: memory stays flat."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size, data=b"\0" * 10_000))
    tracemalloc.start()
    with pytest.raises(InvalidInput, match="at most 50 megapixels"):
        load_rgb(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_real_bomb(tmp_path):
    """A valid 60-megapixel PNG, a few kilobytes on disk, is refused too."""
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, 6_000)).save(path)
    assert path.stat().st_size < 20_000
    with pytest.raises(InvalidInput, match=r"got 10000 × 6000 = 60\.0 megapixels"):
        load_rgb(path)


def test_a_text_bomb_inside_a_png(tmp_path, noise):
    """A compressed comment of 100 MB is refused as damage, not unpacked."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "\0" * 100_000_000, zip=True)
    path = saved(tmp_path, noise, "text.png", pnginfo=info)
    with pytest.raises(InvalidInput):
        load_rgb(path)


def test_the_largest_picture_decodes(tmp_path):
    """8000 × 6000 is inside the limit."""
    assert MAX_PIXELS >= 8000 * 6000
    path = saved(tmp_path, Image.new("L", (8000, 6000), 7), "large.png")
    assert load_rgb(path).size == (8000, 6000)
