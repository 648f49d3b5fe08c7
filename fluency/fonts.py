"""Fonts for any script: Pillow's own, and this machine's for letters that it lacks.

A text that no font here can draw is told apart before it is drawn, because every letter would be
the same empty box.
"""

import functools
import os
import sys
import unicodedata
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
_TRIED_PX: Final = 16
# Letters of these scripts change their shape or their order in a word. Only libraqm does that.
_SHAPED: Final = frozenset(
    ("ARABIC", "HEBREW", "SYRIAC", "THAANA", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU")
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str, size_px: int) -> Font | None:
    """A font that has every letter of the text; None when this machine has none."""
    letters = [c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cf", "Mn")]
    own = own_font(size_px)
    missing = next((c for c in letters if not _has(own, c)), None)
    if missing is None:
        return own
    script = unicodedata.name(missing, "UNKNOWN").split()[0]
    if script not in _of_script:
        _of_script[script] = _file_with(missing, script)
    path = _of_script[script]
    if path is None:
        return None
    font = _opened(path, size_px)
    return font if all(_has(font, c) for c in letters) else None


@functools.cache
def own_font(size_px: int) -> Font:
    """Pillow's own: Latin, Greek and Cyrillic."""
    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=64)
def _opened(path: str, size_px: int) -> Font:
    return ImageFont.truetype(path, size_px)


# By script, the first word of a letter's Unicode name: one letter stands for all.
_of_script: dict[str, str | None] = {}


def _file_with(letter: str, script: str) -> str | None:
    """A font file of this machine that has the letter."""
    if script in _SHAPED and not features.check("raqm"):
        return None
    for path in _files():
        try:
            if _has(_opened(path, _TRIED_PX), letter):
                return path
        except OSError:  # damaged, or only bitmaps of other sizes
            continue
    return None


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
