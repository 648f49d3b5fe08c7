"""Evaluates demo weights on held-out sketches, painted as in production.

    cd sketch2real
    python -m tools.demo.evaluate weights/demo [--count 256] [--grid grid.png] [--sketch FILE ...]

Prints the figures as JSON. `--grid` draws rows of sketch, two seeds, truth; `--sketch` adds other
sketches, cleaned as the runner does it. The figures alone do not detect a blur: look at the grid.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pipeline
import reading
import torch
import weights
from diffusers import AutoencoderKL
from PIL import Image
from request import Painter, Request

from tools.demo import figures, pairs
from tools.demo.scene import SIDE_PX

COLUMNS = 8
SMALLEST_PX = 40
"""Regions with fewer pixels are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--sketch", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    preset = weights.choose(str(options.weights), 0.0, has_bfloat16=False)
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    held_out = [pairs.make(pairs.HELD_OUT + index) for index in range(options.count)]
    begun = time.process_time()
    made = [paint(painter, pair.sketch, pair.prompt, seed=1) for pair in held_out]
    per_picture_s = (time.process_time() - begun) / options.count
    vae = AutoencoderKL.from_pretrained(options.weights / "vae", dtype=torch.float32)
    truths = torch.from_numpy(np.stack([pair.picture for pair in held_out]))
    print(
        json.dumps(
            {
                "vae_psnr_db": round(figures.vae_psnr_db(vae, truths), 2),
                **judged(made, held_out),
                "cpu_s_per_picture": round(per_picture_s, 2),
            }
        )
    )
    if options.grid:
        shown = held_out[: 3 * COLUMNS]
        again = [paint(painter, pair.sketch, pair.prompt, seed=2) for pair in shown]
        rows = [[framed(pair.sketch) for pair in shown], made, again, [p.picture for p in shown]]
        drawn = [from_file(painter, file) for file in options.sketch]
        grid(rows, drawn).save(options.grid)


def judged(
    made: Sequence[figures.Picture], held_out: Sequence[pairs.Pair]
) -> dict[str, float | int]:
    """Edge recall for the sketch's own lines and for the next sketch's; of the things of one
    saturated colour, how many were painted in one hue, and in the right one."""
    own, others, one, right = [], [], [], []
    for index, (picture, pair) in enumerate(zip(made, held_out, strict=True)):
        own.append(figures.edge_recall(picture, pair.sketch))
        other = held_out[(index + 1) % len(held_out)]
        others.append(figures.edge_recall(picture, other.sketch))
        for region, dyed in zip(pair.regions, pair.dyed, strict=True):
            inner = figures.core(region)
            truth = figures.dominant_hue(pair.picture, inner) if inner.sum() > SMALLEST_PX else None
            if not dyed or truth is None:
                continue
            found = figures.dominant_hue(picture, inner)
            one.append(found is not None and found[1] >= figures.ONE_HUE_SHARE)
            near = found is not None and figures.hue_distance(found[0], truth[0]) <= 30
            right.append(bool(one[-1] and near))
    return {
        "edge_recall": round(float(np.mean(own)), 3),
        "edge_recall_of_another": round(float(np.mean(others)), 3),
        "one_hue_share": round(float(np.mean(one)), 3),
        "right_hue_share": round(float(np.mean(right)), 3),
        "things": len(one),
        "sketches": len(held_out),
    }


def paint(painter: Painter, lines: figures.Picture, prompt: str, *, seed: int) -> figures.Picture:
    """(128, 128, 3) uint8 for (128, 128) uint8 lines."""
    return np.asarray(painted(painter, Image.fromarray(lines), prompt, seed))


def painted(painter: Painter, control: Image.Image, prompt: str, seed: int) -> Image.Image:
    """As the runner paints it when only a prompt is given."""
    preset = painter.preset
    request = Request(
        control=control.convert("RGB"),
        prompt=prompt,
        negative_prompt=None,
        control_scale=preset.control_scale,
        steps=preset.steps,
        guidance_scale=preset.guidance_scale,
        seeds=(seed,),
    )
    return painter.paint([request], lambda _step: None)[0]


def from_file(painter: Painter, file: Path) -> list[figures.Picture]:
    """The sketch, its cleaned lines and two pictures of it, each as a square."""
    control = reading.read(file, painter.preset, (None, None), None).control
    pictures = [painted(painter, control, "", seed) for seed in (1, 2)]
    return [squared(one) for one in (Image.open(file), control, *pictures)]


def squared(picture: Image.Image) -> figures.Picture:
    """Fitted into a grey square of the grid."""
    square = Image.new("RGB", (SIDE_PX, SIDE_PX), (128, 128, 128))
    small = picture.convert("RGB")
    small.thumbnail((SIDE_PX, SIDE_PX))
    square.paste(small, ((SIDE_PX - small.width) // 2, (SIDE_PX - small.height) // 2))
    return np.asarray(square)


def framed(lines: figures.Picture) -> figures.Picture:
    """Grey lines as RGB."""
    return np.asarray(Image.fromarray(lines).convert("RGB"))


def grid(
    rows: Sequence[Sequence[figures.Picture]], drawn: Sequence[Sequence[figures.Picture]]
) -> Image.Image:
    """Held-out scenes in bands of `COLUMNS`, below them one column per other sketch."""
    bands = [
        [row[start : start + COLUMNS] for row in rows] for start in range(0, len(rows[0]), COLUMNS)
    ]
    if drawn:
        columns = list(zip(*drawn, strict=True))
        bands += [
            [row[start : start + COLUMNS] for row in columns]
            for start in range(0, len(drawn), COLUMNS)
        ]
    sheet = Image.new("RGB", (COLUMNS * SIDE_PX, sum(len(band) for band in bands) * SIDE_PX))
    for number, row in enumerate(row for band in bands for row in band):
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (column * SIDE_PX, number * SIDE_PX))
    return sheet


if __name__ == "__main__":
    main()
