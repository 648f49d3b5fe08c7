"""How long does a picture take, ours against plain diffusers, and what memory does it need?

    WEIGHTS=demo python bench/sketch2real.py [--rounds 10] [--steps N]

Writes JSON lines: one row per measure, with device, weights and commit. Ours and stock take turns,
so that another load on the machine falls on both. The stock pipeline is the same class from the
same weights in the same precision, as its documentation shows it.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sketch2real"
sys.path.insert(0, str(PACKAGE))

import condition
import diffusers
import hardware
import pipeline
import sketch
import strokes
import weights
from picture import load_rgb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0, help="0: the preset's")
    options = parser.parse_args()
    machine = hardware.detect()
    name = os.environ.get("WEIGHTS", "demo")
    preset = weights.choose(name, machine.memory_gib, has_bfloat16=machine.has_bfloat16)
    row = {"bench": "sketch2real", "weights": preset.name, **provenance(machine)}

    begun = time.perf_counter()
    dtype = machine.dtype_for(preset.half)
    painter = pipeline.load(preset, machine.device, dtype, machine.memory_gib)
    report(row, "load_s", [time.perf_counter() - begun])

    sample = PACKAGE / "samples" / "sketch.png"
    cleaning = []
    for _ in range(options.rounds):
        begun = time.perf_counter()
        rgb = load_rgb(sample, max_side_px=sketch.WORKING_SIDE_PX)
        lines = strokes.centrelines(sketch.find_ink(rgb).mask)
        plan = condition.make_plan(
            lines, None, None, areas=preset.areas_px, multiple=preset.multiple_px
        )
        control = condition.draw(lines, plan, pen=preset.pen, hard=preset.hard_lines)
        cleaning.append(time.perf_counter() - begun)
    report(row, "clean_s", cleaning)

    order = pipeline.Order(
        control=control,
        prompt="",
        negative_prompt=None,
        control_scale=preset.control_scale,
        steps=options.steps or preset.steps,
        guidance_scale=preset.guidance_scale,
        seeds=(7,),
    )
    row |= {"steps": order.steps, "painted_px": list(control.size)}
    painter.paint(order, lambda _done, _steps: None)
    report(row, "peak_memory_gib", [peak_memory_gib(machine)])  # before stock doubles it
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: painter.paint(order, lambda _done, _steps: None),
        "stock": stock(preset, order, machine, dtype),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds + 1):  # the first warms up
        for way, paint in ways.items():
            begun = time.perf_counter()
            paint()
            if machine.is_cuda:
                torch.cuda.synchronize()
            times[way].append(time.perf_counter() - begun)
    for way, seconds in times.items():
        report(row | {"way": way}, "first_picture_s", seconds[:1])
        report(row | {"way": way}, "picture_s", seconds[1:])


def stock(
    preset: weights.Preset, order: pipeline.Order, machine: hardware.Hardware, dtype: torch.dtype
) -> Callable[[], Any]:
    """Plain diffusers from the same weights."""
    pipe = getattr(diffusers, preset.pipeline).from_pretrained(
        preset.source, dtype=dtype, **pipeline._parts(preset, dtype)
    )
    pipe.to(machine.device).set_progress_bar_config(disable=True)
    width, height = order.control.size
    common = {"width": width, "height": height, "num_inference_steps": order.steps}
    if preset.pipeline != "Flux2KleinPipeline":
        common |= {
            "guidance_scale": order.guidance_scale,
            "controlnet_conditioning_scale": order.control_scale,
            "guess_mode": preset.guess_mode,
        }

    def paint() -> Any:
        generator = torch.Generator("cpu").manual_seed(order.seeds[0])
        return pipe(preset.instruction, image=order.control, generator=generator, **common)

    return paint


def peak_memory_gib(machine: hardware.Hardware) -> float:
    """The most that was allocated on the card; without one, the process' largest resident size."""
    if machine.is_cuda:
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def provenance(machine: hardware.Hardware) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    device = torch.cuda.get_device_name() if machine.is_cuda else platform.processor() or "cpu"
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def report(row: dict[str, Any], measure: str, values: list[float]) -> None:
    p50, p95 = np.percentile(values, (50, 95))
    print(
        json.dumps(
            row | {"measure": measure, "n": len(values), "p50": round(p50, 4), "p95": round(p95, 4)}
        )
    )


if __name__ == "__main__":
    main()
