"""Draws a recording: waveform, pauses, syllables and words, ten seconds per row."""

import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from outputs import FilledPause, Fluency, Pause, Word
from PIL import Image, ImageDraw, ImageFont

SAMPLE_RATE_HZ: Final = 16_000
ROW_S: Final = 10.0
WIDTH_PX: Final = 1600
MARGIN_PX: Final = 16
HEAD_PX: Final = 44
_WAVE_PX: Final = 96
_WORDS_PX: Final = 48
ROW_PX: Final = _WAVE_PX + _WORDS_PX + 28

_PAPER, _INK, _FAINT = "#ffffff", "#1f2430", "#8a90a0"
_WAVE, _SYLLABLE = "#4a6fa5", "#c8385a"
_PAUSE, _LONG_PAUSE, _FILLER = "#fde4cf", "#f7b58d", "#cfe8d5"
_KINDS: Final = {"filler": "#2e7d4f", "repetition": "#b4371f", "repair": "#b4371f"}
_LONG_PAUSE_S: Final = 1.0


class _Row:
    """One row of the picture: maps times to pixels."""

    def __init__(self, draw: ImageDraw.ImageDraw, index: int) -> None:
        self.draw = draw
        self.start_s = index * ROW_S
        self.top = HEAD_PX + index * ROW_PX
        self.middle = self.top + _WAVE_PX // 2

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

    Scripts other than Latin, Greek and Cyrillic show as boxes: Pillow's built-in font lacks them.
    """
    rows = max(1, int(np.ceil(len(samples) / SAMPLE_RATE_HZ / ROW_S)))
    image = Image.new("RGB", (WIDTH_PX, HEAD_PX + rows * ROW_PX), _PAPER)
    pen = ImageDraw.Draw(image)
    _heading(pen, answer)
    # Scaled to the 99.9th percentile: otherwise one cough would make all speech a thin line.
    peak = float(np.quantile(np.abs(samples), 0.999)) if len(samples) else 1.0
    for index in range(rows):
        row = _Row(pen, index)
        _background(row, answer.pauses, answer.filled_pauses)
        _ruler(row, len(samples) / SAMPLE_RATE_HZ)
        first = int(row.start_s * SAMPLE_RATE_HZ)
        part = samples[first : first + int(ROW_S * SAMPLE_RATE_HZ)]
        _waveform(row, np.clip(part / max(peak, 1e-6), -1, 1))
        for time in answer.syllables:
            if row.holds(time, time):
                x = row.x(time)
                pen.ellipse((x - 3, row.top + 2, x + 3, row.top + 8), fill=_SYLLABLE)
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


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _heading(pen: ImageDraw.ImageDraw, answer: Fluency) -> None:
    parts = []
    if answer.fluency_score is not None:
        parts.append(f"score {answer.fluency_score:.0f}")
    if answer.articulation_rate is not None:
        parts.append(f"{answer.articulation_rate:.1f} syllables/s")
    parts.append(f"{answer.silent_pause_count} pauses, {answer.pause_time_s:.1f} s")
    pen.text((MARGIN_PX, 10), "   |   ".join(parts), fill=_INK, font=_font(20))
    x = WIDTH_PX - MARGIN_PX
    for colour, name in (
        (_SYLLABLE, "syllable"),
        (_FILLER, "filled pause"),
        (_LONG_PAUSE, f"pause over {_LONG_PAUSE_S:.0f} s"),
        (_PAUSE, "pause"),
    ):
        x -= int(pen.textlength(name, font=_font(14)))
        pen.text((x, 14), name, fill=_FAINT, font=_font(14))
        pen.rectangle((x - 20, 15, x - 6, 29), fill=colour)
        x -= 40


def _background(row: _Row, pauses: Sequence[Pause], fillers: Sequence[FilledPause]) -> None:
    for pause in pauses:
        colour = _LONG_PAUSE if pause["duration"] >= _LONG_PAUSE_S else _PAUSE
        row.shade(pause["start"], pause["end"], colour)
    for filler in fillers:
        row.shade(filler["start"], filler["end"], _FILLER)


def _waveform(row: _Row, samples: NDArray[np.float32]) -> None:
    """One vertical line per pixel, from the lowest sample to the highest."""
    columns = WIDTH_PX - 2 * MARGIN_PX
    a_pixel = ROW_S * SAMPLE_RATE_HZ / columns
    edges = (np.arange(columns + 1) * a_pixel).astype(int)
    for column, (first, last) in enumerate(pairwise(edges)):
        part = samples[first:last]
        if len(part) == 0:
            break
        x, half = MARGIN_PX + column, _WAVE_PX / 2 - 12
        top, bottom = row.middle - part.max() * half, row.middle - part.min() * half
        row.draw.line((x, top, x, max(bottom, top + 1)), fill=_WAVE)


def _words(row: _Row, words: Sequence[Word]) -> None:
    """Each word at its start, in the first of three lines with room for it."""
    free = [0.0, 0.0, 0.0]
    for word in words:
        if not row.start_s <= word["start"] < row.start_s + ROW_S:
            continue
        x = row.x(word["start"])
        width = row.draw.textlength(word["text"], font=_font(15))
        x = min(x, WIDTH_PX - width - 2)
        line = next((i for i, end in enumerate(free) if end <= x), int(np.argmin(free)))
        y = row.top + _WAVE_PX + 1 + 15 * line
        row.draw.text((x, y), word["text"], fill=_KINDS.get(word["kind"], _INK), font=_font(15))
        free[line] = x + width + 5


def _ruler(row: _Row, duration_s: float) -> None:
    for second in range(int(ROW_S) + 1):
        time = row.start_s + second
        if time > duration_s:
            break
        x = row.x(time)
        row.draw.line((x, row.top, x, row.top + _WAVE_PX), fill="#e6e8ee")
        if second < ROW_S:
            at = (x + 3, row.top + _WAVE_PX - 14)
            row.draw.text(at, f"{time:.0f} s", fill=_FAINT, font=_font(11))
