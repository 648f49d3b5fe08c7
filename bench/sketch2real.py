"""How long does a picture take, ours against plain diffusers, and what memory does it need?

    python bench/sketch2real.py [--full] [--rounds 10] [--preset NAME ...] [--out FILE]

One row per measure, as JSON lines to standard output and appended to --out, for the demo weights
and for each preset's classes with random weights: tiny ones as the tests make them, or with
`--full` (a GPU) the published sizes; what the weights are worth does not show in seconds. `COMPILE`
and `QUANTIZE` count as in production.
Each preset runs in a process of its own. Ours and stock take turns, so that another load on the
machine falls on both; stock is the same class from the same folder in the same precision, used as
its documentation shows.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sketch2real"
sys.path[:0] = [str(PACKAGE), str(ROOT / "bench"), str(ROOT / "tests" / "sketch2real")]

import diffusers
import hardware
import pipeline
import reading
import sketch2real_models
import tiny
import weights
from request import Request

SAMPLE = PACKAGE / "samples" / "sketch.png"
TINY = {"klein": tiny.klein, "sdxl-scribble": tiny.sdxl, "sd15-scribble": tiny.sd15}
TINY_SIZES = {"paint_area_px": 128**2, "max_area_px": 128**2, "multiple_px": 16}
TOGETHER = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="published sizes; wants a GPU")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--preset", nargs="*", default=["demo", *TINY])
    parser.add_argument("--out", type=Path, help="append to this file")
    options = parser.parse_args()
    if len(options.preset) > 1:  # peaks of memory are a process's
        given = ["--full"] if options.full else []
        given += ["--out", str(options.out)] if options.out else []
        for name in options.preset:
            command = [sys.executable, __file__, *given, "--rounds", str(options.rounds)]
            subprocess.run([*command, "--preset", name], check=True)
        return
    machine = hardware.detect()
    with tempfile.TemporaryDirectory() as temp:
        rows = measure(
            options.preset[0], Path(temp), machine, full=options.full, rounds=options.rounds
        )
        for line in map(json.dumps, rows):
            print(line, flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


def measure(
    name: str, temp: Path, machine: hardware.Hardware, *, full: bool, rounds: int
) -> Iterator[dict[str, Any]]:
    """The rows of one preset, as they are measured."""
    folder = PACKAGE / "weights" / "demo" if name == "demo" else made(name, temp, machine, full)
    preset = weights.choose(str(folder), machine.memory_gib, has_bfloat16=machine.has_bfloat16)
    row = {
        "bench": "sketch2real", "preset": name,
        "weights": "trained" if name == "demo" else "random, full size" if full else "random, tiny",
        **provenance(machine),
    }  # fmt: skip
    dtype = machine.dtype_for(preset.half)
    begun = time.perf_counter()
    painter = pipeline.load(preset, machine.device, dtype, machine.memory_gib)
    yield report(row, "load_s", [time.perf_counter() - begun])
    cleaning, prepared = [], None
    for _ in range(rounds):
        begun = time.perf_counter()
        prepared = reading.read(SAMPLE, preset, (None, None), None)
        cleaning.append(time.perf_counter() - begun)
    assert prepared is not None
    yield report(row, "clean_s", cleaning)
    request = Request(
        prepared.control, "", None, preset.control_scale, preset.steps, preset.guidance_scale, (7,)
    )
    row |= {"steps": request.steps, "painted_px": list(request.control.size)}
    several = replace(request, seeds=tuple(range(TOGETHER))).each()
    requests = {"ours": [request], "ours, four together": several, "stock": [request]}
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: painter.paint([request], lambda _step: None)
    }
    first = {"ours": timed(ways["ours"], machine)}  # compiling, if asked for
    yield report(row | {"way": "ours"}, "peak_memory_gib", [peak_memory_gib(machine)])
    if machine.is_cuda:
        ways["ours, four together"] = lambda: painter.paint(several, lambda _step: None)
    ways["stock"] = stock(preset, request, machine, dtype)
    for way in [way for way in ways if way not in first]:
        first[way] = timed(ways[way], machine)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, paint in ways.items():
            times[way].append(timed(paint, machine))
    medians = {}
    for way, pairs in times.items():
        clock, processor = (
            np.array(each) / len(requests[way]) for each in zip(*pairs, strict=True)
        )
        yield report(row | {"way": way}, "first_picture_s", [first[way][0]])
        yield report(row | {"way": way}, "picture_s", list(clock))
        yield report(row | {"way": way}, "picture_cpu_s", list(processor))
        medians[way] = float(np.median(clock if machine.is_cuda else processor))
    # Without a card by the processor's time, which another load on the machine hardly changes.
    yield report(row, "ours_to_stock", [medians["ours"] / medians["stock"]])


def made(name: str, temp: Path, machine: hardware.Hardware, full: bool) -> Path:
    """A folder of random weights, with the preset's own habits."""
    preset = weights.PRESETS[name]
    kept = ("steps", "guidance_scale", "control_scale", "guess_mode", "instruction", "half")
    habits = {key: getattr(preset, key) for key in kept}
    if full:
        dtype = machine.dtype_for(preset.half)
        folder = sketch2real_models.save(name, temp / name, machine.device, dtype)
    else:
        folder = TINY[name](temp / name)
        habits |= TINY_SIZES
    (folder / weights.OVERRIDES).write_text(json.dumps(habits), encoding="utf-8")
    return folder


def stock(
    preset: weights.Preset, request: Request, machine: hardware.Hardware, dtype: torch.dtype
) -> Callable[[], Any]:
    """Plain diffusers from the same folder."""
    pipe = getattr(diffusers, preset.pipeline).from_pretrained(preset.source, dtype=dtype)
    pipe.to(machine.device).set_progress_bar_config(disable=True)
    width, height = request.control.size
    common: dict[str, Any] = {
        "width": width, "height": height, "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
    }  # fmt: skip
    if preset.pipeline != "Flux2KleinPipeline":
        common["controlnet_conditioning_scale"] = request.control_scale
        common["guess_mode"] = preset.guess_mode

    def paint() -> Any:
        generator = torch.Generator("cpu").manual_seed(request.seeds[0])
        return pipe(prompt=preset.instruction, image=request.control, generator=generator, **common)

    return paint


def timed(paint: Callable[[], Any], machine: hardware.Hardware) -> tuple[float, float]:
    """Seconds that `paint` takes, the card's work included: by the clock, of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    paint()
    if machine.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


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
        "compile": os.environ.get("COMPILE", ""),
        "quantize": os.environ.get("QUANTIZE", ""),
        "torch": torch.__version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def report(row: dict[str, Any], measure: str, values: list[float]) -> dict[str, Any]:
    p50, p95 = np.percentile(values, (50, 95))
    figures = {"measure": measure, "n": len(values), "p50": round(p50, 4), "p95": round(p95, 4)}
    return row | figures


if __name__ == "__main__":
    main()
