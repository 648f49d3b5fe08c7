"""Draws a recording: waveform, pauses, syllables and words, five seconds per row.

The picture is as wide as two phones' points, so that its text can be read on a phone.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from fonts import Font, font_for, own_font
from numpy.typing import NDArray
from outputs import FilledPause, Fluency, Pause, Word
from PIL import Image, ImageDraw

SAMPLE_RATE_HZ: Final = 16_000
ROW_S: Final = 5.0
WIDTH_PX: Final = 800
MARGIN_PX: Final = 20
_TITLE_PX, _FACTS_PX, _LEGEND_PX, _WORD_PX, _TIME_PX = 34, 24, 22, 24, 18
HEAD_PX: Final = 192
_WAVE_PX: Final = 112
_DOTS_PX: Final = 14  # above the waveform
_LINE_PX: Final = 31
_LINES: Final = 3
_TICK_PX: Final = 6
ROW_PX: Final = _WAVE_PX + _LINES * _LINE_PX + 22

_PAPER, _INK, _FAINT = "#ffffff", "#1f2430", "#626979"
_WAVE, _SYLLABLE = "#4a6fa5", "#c8385a"
_PAUSE, _LONG_PAUSE, _FILLER = "#fde4cf", "#f7b58d", "#cfe8d5"
_FILLER_WORD, _REPAIRED = "#2e7d4f", "#b4371f"
_KINDS: Final = {"filler": _FILLER_WORD, "repetition": _REPAIRED, "repair": _REPAIRED}
_LONG_PAUSE_S: Final = 1.0
_COMPRESSED: Final = 0.6  # exponent of the drawn amplitude

_Sign = Callable[[ImageDraw.ImageDraw, float, float, str], None]


class _Row:
    """One row of the picture: maps times to pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, index: int) -> None:
        self.draw = draw
        self.start_s = index * ROW_S
        self.top = HEAD_PX + index * ROW_PX
        self.middle = self.top + _DOTS_PX + (_WAVE_PX - _DOTS_PX) // 2

    def x(self, time_s: float) -> float:
        share = (time_s - self.start_s) / ROW_S
        return MARGIN_PX + min(max(share, 0.0), 1.0) * (WIDTH_PX - 2 * MARGIN_PX)

    def holds(self, start_s: float, end_s: float) -> bool:
        return start_s < self.start_s + ROW_S and end_s > self.start_s

    def shade(self, start_s: float, end_s: float, colour: str) -> None:
        if self.holds(start_s, end_s):
            box = (self.x(start_s), self.top, self.x(end_s), self.top + _WAVE_PX)
            self.draw.rectangle(box, fill=colour)


def draw(samples: NDArray[np.float32], answer: Fluency) -> Image.Image:
    """Draw an output. samples: (n,) at 16 kHz, of the same recording.

    A word in a script that no font of this machine has is left out, and the picture says so.
    """
    rows = max(1, int(np.ceil(len(samples) / SAMPLE_RATE_HZ / ROW_S)))
    image = Image.new("RGB", (WIDTH_PX, HEAD_PX + rows * ROW_PX), _PAPER)
    pen = ImageDraw.Draw(image)
    _heading(pen, answer)
    loudest = float(np.abs(samples).max()) if len(samples) else 0.0
    for index in range(rows):
        row = _Row(pen, index)
        _background(row, answer.pauses, answer.filled_pauses)
        _ruler(row, len(samples) / SAMPLE_RATE_HZ)
        first = int(row.start_s * SAMPLE_RATE_HZ)
        part = samples[first : first + int(ROW_S * SAMPLE_RATE_HZ)]
        _waveform(row, part / max(loudest, 1e-6))
        for time in answer.syllables:
            if row.holds(time, time):
                x = row.x(time)
                pen.ellipse((x - 4, row.top + 2, x + 4, row.top + 10), fill=_SYLLABLE)
        _words(row, answer.words)
    return image


def save(samples: NDArray[np.float32], answer: Fluency) -> Path:
    """Draw into a PNG in the temp directory; the caller removes it."""
    image = draw(samples, answer)
    with tempfile.NamedTemporaryFile(prefix="fluency-", suffix=".png", delete=False) as file:
        try:
            image.save(file, "PNG", optimize=True)
        except BaseException:  # a full disk
            Path(file.name).unlink()
            raise
    return Path(file.name)


def _heading(pen: ImageDraw.ImageDraw, answer: Fluency) -> None:
    """The title, the main figures, and what the colours mean."""
    pen.text((MARGIN_PX, 12), "Fluency timeline", fill=_INK, font=own_font(_TITLE_PX))
    parts = []
    if answer.fluency_score is not None:
        parts.append(f"score {answer.fluency_score:.0f} of 100")
    if answer.articulation_rate is not None:
        parts.append(f"articulation rate {answer.articulation_rate:.1f} syllables/s")
    pauses = "pause" if answer.silent_pause_count == 1 else "pauses"
    parts.append(f"{answer.silent_pause_count} {pauses}, {answer.pause_time_s:.1f} s")
    text = "  ·  ".join(parts)
    pen.text((MARGIN_PX, 60), text, fill=_INK, font=own_font(_FACTS_PX))
    x, y = float(MARGIN_PX), 106
    for name, colour, sign in _legend(answer.words):
        width = 30 + pen.textlength(name, font=own_font(_LEGEND_PX))
        if x + width > WIDTH_PX - MARGIN_PX:
            x, y = float(MARGIN_PX), y + 32
        sign(pen, x, y, colour)
        pen.text((x + 30, y), name, fill=_INK, font=own_font(_LEGEND_PX))
        x += width + 26


def _legend(words: Sequence[Word]) -> Iterator[tuple[str, str, _Sign]]:
    yield "pause", _PAUSE, _area
    yield f"pause over {_LONG_PAUSE_S:.0f} s", _LONG_PAUSE, _area
    yield "filled pause", _FILLER, _area
    yield "syllable", _SYLLABLE, _dot
    if words:
        yield "filler word", _FILLER_WORD, _letters
        yield "repeated or corrected", _REPAIRED, _letters
    if any(font_for(word["text"], _WORD_PX) is None for word in words):
        yield "some words need a font that is not installed", _FAINT, _dashes


def _area(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.rectangle((x, y + 3, x + 22, y + 23), fill=colour)


def _dot(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.ellipse((x + 7, y + 9, x + 15, y + 17), fill=colour)


def _letters(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.text((x - 2, y), "ab", fill=colour, font=own_font(_LEGEND_PX))


def _dashes(pen: ImageDraw.ImageDraw, x: float, y: float, colour: str) -> None:
    pen.line((x, y + 14, x + 22, y + 14), fill=colour, width=3)


def _background(row: _Row, pauses: Sequence[Pause], fillers: Sequence[FilledPause]) -> None:
    for pause in pauses:
        colour = _LONG_PAUSE if pause["duration"] >= _LONG_PAUSE_S else _PAUSE
        row.shade(pause["start"], pause["end"], colour)
    for filler in fillers:
        row.shade(filler["start"], filler["end"], _FILLER)


def _waveform(row: _Row, samples: NDArray[np.float32]) -> None:
    """One vertical line per pixel, from the lowest sample to the highest; samples: -1 to 1.

    Loud parts are compressed: otherwise one cough would make all speech a thin line, or be cut.
    """
    columns = WIDTH_PX - 2 * MARGIN_PX
    a_pixel = ROW_S * SAMPLE_RATE_HZ / columns
    edges = (np.arange(columns + 1) * a_pixel).astype(int)
    for column, (first, last) in enumerate(pairwise(edges)):
        part = samples[first:last]
        if len(part) == 0:
            break
        x, half = MARGIN_PX + column, (_WAVE_PX - _DOTS_PX) / 2 - 2
        high, low = (np.sign(v) * np.abs(v) ** _COMPRESSED for v in (part.max(), part.min()))
        top, bottom = row.middle - high * half, row.middle - low * half
        row.draw.line((x, top, x, max(bottom, top + 1)), fill=_WAVE)


def _words(row: _Row, words: Sequence[Word]) -> None:
    """Each word at its start, in the first of three lines with room for it.

    A word that would end beyond the picture is left out; a tick marks its start.
    """
    free = [0.0] * _LINES
    for word in words:
        if not row.start_s <= word["start"] < row.start_s + ROW_S:
            continue
        font = font_for(word["text"], _WORD_PX)
        x = row.x(word["start"])
        width = row.draw.textlength(word["text"], font=font) if font else 18.0
        x = max(min(x, WIDTH_PX - width - 4), 4.0)
        line = next((i for i, end in enumerate(free) if end <= x), int(np.argmin(free)))
        x = max(x, free[line])
        colour = _KINDS.get(word["kind"], _INK)
        if x + width > WIDTH_PX:
            start, below = row.x(word["start"]), row.top + _WAVE_PX
            row.draw.line((start, below, start, below + _TICK_PX), fill=colour, width=3)
            continue
        y = row.top + _WAVE_PX + 2 + _LINE_PX * line
        if font:
            _word(row.draw, (x, y), word["text"], colour, font)
        else:
            row.draw.line((x, y + 16, x + width, y + 16), fill=colour, width=3)
        free[line] = x + width + 9


def _word(
    pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, colour: str, font: Font
) -> None:
    """Fonts differ in the room above their letters: all stand on one base line."""
    pen.text((at[0], at[1] + _WORD_PX), text, fill=colour, font=font, anchor="ls")


def _ruler(row: _Row, duration_s: float) -> None:
    for second in range(int(ROW_S) + 1):
        time = row.start_s + second
        if time > duration_s:
            break
        x = row.x(time)
        row.draw.line((x, row.top, x, row.top + _WAVE_PX), fill="#e6e8ee")
        if second < ROW_S:
            at = (x + 4, row.top + _WAVE_PX - 22)
            row.draw.text(at, f"{time:.0f} s", fill=_FAINT, font=own_font(_TIME_PX))
