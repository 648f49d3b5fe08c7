"""fonts.py: a font for any letter that some file of this machine has."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fonts
import numpy as np
import pytest
import timeline
from outputs import Word
from PIL import ImageDraw

LEGEND = "some words need a font that is not installed"


def drawn(
    monkeypatch: pytest.MonkeyPatch, words: list[tuple[str, float]]
) -> list[tuple[str, float]]:
    """Each text in the picture of five seconds with these words and starts, and its right end."""
    texts: list[tuple[str, float]] = []
    write = ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, at: tuple[float, float], said: str, **how: Any) -> None:
        texts.append((said, at[0] + pen.textlength(said, font=how["font"])))
        write(pen, at, said, **how)

    answer: Any = SimpleNamespace(
        fluency_score=None,
        articulation_rate=None,
        silent_pause_count=0,
        pause_time_s=0.0,
        pauses=[],
        filled_pauses=[],
        syllables=[],
        words=[
            Word(text=said, start=at, end=at + 0.1, confidence=1.0, kind="fluent")
            for said, at in words
        ],
    )
    with monkeypatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        timeline.draw(np.zeros(5 * timeline.SAMPLE_RATE_HZ, np.float32), answer)
    return texts


def font_file(path: Path, letters: str) -> str:
    """Pillow's own font, which draws each of `letters` as its first glyphs and has no others."""
    data = bytearray(fonts.own_font(20).font_bytes)  # type: ignore[union-attr]
    groups = b"".join(struct.pack(">III", ord(c), ord(c), 20) for c in sorted(letters))
    subtable = struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, len(letters)) + groups
    cmap = struct.pack(">HHHHI", 0, 1, 3, 10, 12) + subtable
    (tables,) = struct.unpack_from(">H", data, 4)
    at = next(i for i in range(12, 12 + 16 * tables, 16) if data[i : i + 4] == b"cmap")
    struct.pack_into(">II", data, at + 8, len(data), len(cmap))
    path.write_bytes(data + cmap)
    return str(path)


def use(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    """As if the machine had these files and no others."""
    monkeypatch.setattr(fonts, "_files", lambda: paths)
    fonts._files_with.cache_clear()


def test_a_rare_letter_does_not_hide_its_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few fonts have 𠮷; the other letters of Chinese are drawn nevertheless."""
    usual = font_file(tmp_path / "usual.ttf", "今天")
    rare = font_file(tmp_path / "rare.ttf", "今𠮷")
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(Path(usual).read_bytes()[:40])
    use(monkeypatch, str(broken), usual)
    assert fonts.font_for("𠮷", 20) is None
    assert fonts.font_for("今天", 20).path == usual  # type: ignore[union-attr]
    use(monkeypatch, usual, rare)
    found = [fonts.font_for(text, 20) for text in ("今", "今𠮷", "天", "天𠮷")]
    assert [font and font.path for font in found] == [usual, rare, usual, None]  # type: ignore[union-attr]


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many different letters that no font has, as emoji are, open no file again."""
    use(monkeypatch, font_file(tmp_path / "one.ttf", "今"))
    assert fonts.font_for("😀", 20) is None
    monkeypatch.setattr(fonts, "_cmap", None)
    monkeypatch.setattr(fonts, "_opened", None)
    assert [fonts.font_for(chr(c), 20) for c in range(0x1F600, 0x1F640)] == [None] * 64


def test_a_word_that_no_font_has_is_no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a font for its script a word is left out, and the legend says so."""
    use(monkeypatch)
    for unknown in ("今天 hello", "كيف"):
        assert fonts.font_for(unknown, 20) is None
        shown = [text for text, _ in drawn(monkeypatch, [("naive", 0.0), (unknown, 1.0)])]
        assert "naive" in shown
        assert unknown not in shown
        assert LEGEND in shown
    assert LEGEND not in [text for text, _ in drawn(monkeypatch, [("naive", 0.0)])]


def test_a_font_of_this_machine_is_used() -> None:
    """For a script that it has and Pillow lacks."""
    if not any("DejaVuSans" in path for path in fonts._files()):
        pytest.skip("needs DejaVu Sans, which has Armenian")
    font = fonts.font_for("բարեւ", 20)
    assert font is not None
    assert "DejaVu" in font.getname()[0]  # type: ignore[union-attr]


def test_no_word_leaves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many words at the end of a row, and of one wider than it, those that fit are written."""
    crowd = [("crowded", 4.5 + i / 100) for i in range(40)]
    found = drawn(monkeypatch, [("w" * 200, 0.0), *crowd])
    assert max(end for _, end in found) <= timeline.WIDTH_PX
    assert 3 <= [text for text, _ in found].count("crowded") < 40
