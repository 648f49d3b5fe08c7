"""Evaluates demo weights on held-out sketches, painted as in production.

    cd sketch2real
    python -m tools.demo.evaluate weights/demo [--count 256] [--grid grid.png] [--sketch FILE ...]

Each thing of each sketch is named with a colour word. Prints the figures as JSON. `--grid` draws
rows of sketch, picture with that caption, picture without a caption, truth; `--sketch` adds other
sketches, cleaned as the runner does it. The figures alone do not detect a blur: look at the grid.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pipeline
import torch
import weights
from diffusers import AutoencoderTiny
from PIL import Image
from request import Painter, Request

from tools.demo import captions, figures, pairs
from tools.demo.scene import SIDE_PX

COLUMNS = 8
SMALLEST_PX = 150
"""Regions with fewer pixels are left out."""
HUE_REACH = 30.0
TOGETHER = {"cpu": 1, "cuda": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--sketch", type=Path, nargs="*", default=[])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    found = evaluate(
        options.weights, options.device, count=options.count, grid_file=options.grid,
        sketches=options.sketch,
    )  # fmt: skip
    print(json.dumps(found))


def evaluate(
    folder: Path,
    device: str,
    *,
    count: int,
    grid_file: Path | None = None,
    sketches: Sequence[Path] = (),
) -> dict[str, float | int]:
    """The figures of the weights in `folder`."""
    painter = _painter(folder, device)
    held_out = [pairs.make(pairs.HELD_OUT + index, plain=True) for index in range(count)]
    begun = time.process_time()
    made = paint(painter, held_out, seed=1)
    per_picture_s = (time.process_time() - begun) / count
    side = _side(painter)
    vae = AutoencoderTiny.from_pretrained(folder / "vae", dtype=torch.float32).to(device)
    truths = [_resized(pair.picture, side) for pair in held_out]
    on_device = torch.from_numpy(np.stack(truths)).to(device)
    found = {
        "vae_psnr_db": round(figures.vae_psnr_db(vae, on_device), 2),
        **judged(made, held_out),
        "cpu_s_per_picture": round(per_picture_s, 2),
    }
    if grid_file:
        shown = held_out[: 3 * COLUMNS]
        others = [_recaptioned(pair, index) for index, pair in enumerate(shown)]
        again = paint(painter, others, seed=2)
        rows = [[framed(p.sketch) for p in shown], made, again, [p.picture for p in shown]]
        grid(rows, [from_file(painter, file) for file in sketches]).save(grid_file)
    return found


def _painter(folder: Path, device: str) -> Painter:
    preset = weights.choose(str(folder), 0.0, has_bfloat16=False)
    return pipeline.load(preset, device, torch.float32, 0.0)


def _side(painter: Painter) -> int:
    return math.isqrt(painter.preset.paint_area_px)


def _recaptioned(pair: pairs.Pair, index: int) -> pairs.Pair:
    """The same scene without a caption."""
    scene = pairs.draw(pairs.HELD_OUT + index)
    colours = [captions.usual(name) for name, _ in scene.things]
    return pairs.Pair(pair.sketch, pairs.coloured(scene, colours), "", pair.regions, pair.words)


def judged(
    made: Sequence[figures.Picture], held_out: Sequence[pairs.Pair]
) -> dict[str, float | int]:
    """PSNR to the drawn picture; edge recall for the sketch's own lines and for the next sketch's;
    of the things, how many are of one hue, and of the hue that their word names."""
    own, others, one, right, psnr = [], [], [], [], []
    for index, (picture, pair) in enumerate(zip(made, held_out, strict=True)):
        psnr.append(figures.psnr_db(picture, pair.picture))
        own.append(figures.edge_recall(picture, pair.sketch))
        other = held_out[(index + 1) % len(held_out)]
        others.append(figures.edge_recall(picture, other.sketch))
        for region, word in zip(pair.regions, pair.words, strict=True):
            inner = figures.core(region)
            if not word or inner.sum() < SMALLEST_PX:
                continue
            found = figures.dominant_hue(picture, inner)
            hue = figures.hue_of(captions.COLOURS[word])
            one.append(found is not None and found[1] >= figures.ONE_HUE_SHARE)
            near = found is not None and figures.hue_distance(found[0], hue) <= HUE_REACH
            right.append(bool(near))
    return {
        "picture_psnr_db": round(float(np.mean(psnr)), 2),
        "edge_recall": round(float(np.mean(own)), 3),
        "edge_recall_of_another": round(float(np.mean(others)), 3),
        "one_hue_share": round(float(np.mean(one)), 3),
        "word_hue_share": round(float(np.mean(right)), 3),
        "things": len(one),
        "sketches": len(held_out),
    }


def paint(painter: Painter, scenes: Sequence[pairs.Pair], *, seed: int) -> list[figures.Picture]:
    """(256, 256, 3) uint8 of each, from its sketch and prompt."""
    side, made = _side(painter), []
    together = TOGETHER["cuda" if painter.device.startswith("cuda") else "cpu"]
    for start in range(0, len(scenes), together):
        requests = [
            _request(painter, Image.fromarray(_resized(pair.sketch, side)), pair.prompt, seed)
            for pair in scenes[start : start + together]
        ]
        made += [
            _resized(np.asarray(picture), SIDE_PX)
            for picture in painter.paint(requests, lambda _step: None)
        ]
    return made


def _resized(picture: figures.Picture, side: int) -> figures.Picture:
    """To a square of `side` px."""
    if picture.shape[0] == side:
        return picture
    image = Image.fromarray(picture)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def _request(painter: Painter, control: Image.Image, prompt: str, seed: int) -> Request:
    """As the runner paints it when only a prompt is given."""
    preset = painter.preset
    return Request(
        control=control.convert("RGB"),
        prompt=prompt,
        negative_prompt=None,
        control_scale=preset.control_scale,
        steps=preset.steps,
        guidance_scale=preset.guidance_scale,
        seeds=(seed,),
    )


def from_file(painter: Painter, file: Path) -> list[figures.Picture]:
    """The sketch, its cleaned lines and two pictures of it, each as a square."""
    import reading  # noqa: PLC0415 -- it needs libraries that a machine for training may lack

    control = reading.read(file, painter.preset, (None, None), None).control
    pictures = [
        painter.paint([_request(painter, control, "", seed)], lambda _step: None)[0]
        for seed in (1, 2)
    ]
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
