"""From the uploaded file to the model's input: lines, their frame, a caption if wanted."""

from pathlib import Path
from typing import NamedTuple

import condition
import sketch
import strokes
from caption import Captioner
from picture import load_rgb
from PIL import Image
from weights import Preset


class Prepared(NamedTuple):
    """control: RGB, white lines on black, in the size to be painted. plan: its framing and sizes.

    caption: what it shows, "" without a captioner.
    """

    control: Image.Image
    plan: condition.Plan
    caption: str = ""


def read(
    file: Path, preset: Preset, size: tuple[int | None, int | None], captioner: Captioner | None
) -> Prepared:
    """Clean the sketch in `file` for the model of `preset`.

    size: requested (width, height) in px, None where it follows from the sketch.

    Raises InvalidInput when `file` is no picture, too large, or without lines.
    """
    rgb = load_rgb(file, max_side_px=sketch.WORKING_SIDE_PX)
    lines = strokes.centrelines(sketch.find_ink(rgb).mask)
    plan = condition.make_plan(lines, *size, areas=preset.areas_px, multiple=preset.multiple_px)
    control = condition.draw(lines, plan, pen=preset.pen, hard=preset.hard_lines)
    if captioner is None:
        return Prepared(control, plan)
    # Captioners were trained on dark lines on light paper.
    return Prepared(control, plan, captioner.describe(control.point(lambda value: 255 - value)))
