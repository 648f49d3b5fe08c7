"""Fonts for any script: Pillow's own, and this machine's for letters that it lacks.

A text that no font here can draw is recognised before it is drawn, because every letter would be
the same empty box.
"""

import functools
import os
import struct
import sys
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from PIL import ImageFont, features

_FOLDERS: Final = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (os.path.expandvars(r"%WINDIR%\Fonts"),),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts"))
_SUFFIXES: Final = frozenset({".ttf", ".otf", ".ttc"})
_MOST_FILES: Final = 2000
# Letters of these scripts change their shape or their order in a word. Only libraqm does that.
_SHAPED: Final = frozenset(
    ("ARABIC", "HEBREW", "SYRIAC", "THAANA", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU")
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str, size_px: int) -> Font | None:
    """A font that has every letter of the text; None when this machine has none."""
    letters = [c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Mn")]
    own = own_font(size_px)
    missing = [c for c in letters if not _has(own, c)]
    if not missing:
        return own
    scripts = {unicodedata.name(c, "UNKNOWN").split()[0] for c in missing}
    if scripts & _SHAPED and not features.check("raqm"):
        return None
    for path in _files_with(missing[0]):
        if all(_covers(path, c) for c in letters):
            try:
                font = _opened(path, size_px)
                if all(_has(font, c) for c in letters):
                    return font
            except OSError:  # damaged, or only bitmaps of other sizes
                continue
    return None


@functools.cache
def own_font(size_px: int) -> Font:
    """Pillow's own: ASCII."""
    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=64)
def _opened(path: str, size_px: int) -> Font:
    return ImageFont.truetype(path, size_px)


@functools.lru_cache(maxsize=1024)
def _files_with(letter: str) -> tuple[str, ...]:
    """The font files of this machine that list the letter. Others of its script may be elsewhere:
    few fonts have the rare letters of Chinese."""
    return tuple(path for path in _files() if _covers(path, letter))


def _covers(path: str, letter: str) -> bool:
    firsts, lasts = _ranges(path)
    at = bisect_right(firsts, ord(letter)) - 1
    return at >= 0 and ord(letter) <= lasts[at]


@functools.lru_cache(maxsize=_MOST_FILES)
def _ranges(path: str) -> tuple["array[int]", "array[int]"]:
    """First and last letters of the ranges that a font file lists; none if it is damaged.

    Read once: to open every file and draw in it, for each new letter, would take seconds.
    """
    firsts, lasts = array("I"), array("I")
    try:
        found = sorted(_listed(_cmap(path)))
    except (OSError, struct.error):
        found = []
    for first, last in found:
        if lasts and first <= lasts[-1] + 1:
            lasts[-1] = max(last, lasts[-1])
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts


def _cmap(path: str) -> bytes:
    """The `cmap` table of a font file, or of the first font of a collection; empty without one."""
    with Path(path).open("rb") as file:
        if file.read(4) == b"ttcf":
            file.seek(12)
            file.seek(*struct.unpack(">I", file.read(4)))
            file.read(4)
        (count,) = struct.unpack(">H6x", file.read(8))
        for tag, start, size in struct.iter_unpack(">4s4xII", file.read(16 * count)):
            if tag == b"cmap":
                file.seek(start)
                return file.read(size)
    return b""


def _listed(cmap: bytes) -> Iterator[tuple[int, int]]:
    """First and last letter of each range in the Unicode subtables of formats 4 and 12
    (OpenType 1.9.1, "cmap")."""
    (count,) = struct.unpack_from(">H", cmap, 2) if cmap else (0,)
    for platform, encoding, at in struct.iter_unpack(">HHI", cmap[4 : 4 + 8 * count]):
        if platform != 0 and (platform, encoding) not in ((3, 1), (3, 10)):
            continue
        (kind,) = struct.unpack_from(">H", cmap, at)
        if kind == 4:
            (size,) = struct.unpack_from(">H", cmap, at + 6)
            lasts = struct.unpack_from(f">{size // 2}H", cmap, at + 14)
            firsts = struct.unpack_from(f">{size // 2}H", cmap, at + 16 + size)
            yield from ((a, b) for a, b in zip(firsts, lasts, strict=True) if a <= b)
        elif kind == 12:
            (groups,) = struct.unpack_from(">I", cmap, at + 12)
            listed = struct.iter_unpack(">II4x", cmap[at + 16 : at + 16 + 12 * groups])
            yield from ((a, b) for a, b in listed if a <= b)


@functools.cache
def _files() -> tuple[str, ...]:
    """The font files of this machine, plain ones first."""
    found = (path for folder in _FOLDERS for path in _walk(Path(folder).expanduser()))
    return tuple(sorted(map(str, islice(found, _MOST_FILES)), key=_rank))


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, n) for n in names if Path(n).suffix.lower() in _SUFFIXES)


def _rank(path: str) -> tuple[int, str]:
    """Sans and regular before what is slanted, heavy or for numbers."""
    name = Path(path).stem.lower()
    special = ("bold", "italic", "oblique", "mono", "light", "thin", "black", "condensed", "math")
    return sum(word in name for word in special) - ("sans" in name) - ("regular" in name), name


@functools.lru_cache(maxsize=4096)
def _has(font: Font, letter: str) -> bool:
    """Whether the font draws something of its own and not its box for what it lacks."""
    return _shape(font, letter) != _shape(font, "\U0010ffff")


def _shape(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
