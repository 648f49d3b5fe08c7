"""sketch2real's parts of bench/gpu.py, each preset through its own loading code.

sdxl, klein, sd15: set-up, peak memory and seconds of 1, 2 and 4 pictures and of the warm sizes,
seconds against stock diffusers, what happens on cards of 8 to 24 GiB (by a cap), how soon a
cancelled picture ends, half precision against float32. compiled: with COMPILE=1.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "sketch2real"), str(ROOT / "tests" / "sketch2real")]

import diffusers
import hardware
import numpy as np
import pipeline
import sketch2real_models
import torch
import weights
from condition import size_for
from errors import OutOfMemory
from gpu_figures import Figures, card_of, peaks, release, start_peak, synchronise, timed
from PIL import Image, ImageDraw
from request import Painter, Request

WHOLE = {"klein": "klein-whole"}
"""Names of sketch2real_models where the usual weights lack a part."""

CAPS_GIB = (12, 8, 16, 24)
PAIRS = 3
"""Pictures of ours and of stock, in turns, so that another load falls on both."""

MOST_OFF = 0.02
"""Bound of the mean difference between half precision and float32, of 1."""

KEPT = (
    "steps", "guidance_scale", "control_scale", "guess_mode", "instruction", "half", "needs_gib",
    "multiple_px", "max_aspect",
)  # fmt: skip


def sdxl(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """SDXL with a scribble ControlNet, at the steps of its distilled weights."""
    _Bench(figures, "sdxl-scribble", folder, is_tiny=is_tiny).run()


def klein(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """FLUX.2 klein with its text encoder."""
    _Bench(figures, "klein", folder, is_tiny=is_tiny).run()


def sd15(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """Stable Diffusion 1.5 with a scribble ControlNet."""
    _Bench(figures, "sd15-scribble", folder, is_tiny=is_tiny).run()


def compiled(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """Each preset with COMPILE=1: the first picture, and later ones."""
    os.environ["COMPILE"] = "1"
    for name in ("klein", "sdxl-scribble", "sd15-scribble"):
        bench = _Bench(figures, name, folder, is_tiny=is_tiny)
        if figures.measure("written", bench.write, preset=name):
            figures.measure("compiled", bench.compiled, preset=name)


class _Bench:
    """The figures of one preset."""

    def __init__(self, figures: Figures, name: str, folder: Path, *, is_tiny: bool) -> None:
        self.figures = figures
        self.name = name
        self.target = folder / name
        self.is_tiny = is_tiny
        self.machine = hardware.detect()
        self.preset = weights.PRESETS[name]
        self.painter: Any = None

    def run(self) -> None:
        """All figures, the most valuable first."""
        if not (self.measure("written", self.write) and self.measure("setup", self.set_up)):
            return
        usual = self.size(1.0)
        for together in (1, 2, pipeline.TOGETHER):
            self.pictures(usual, together)
        self.measure("ours_to_stock", self.against_stock)
        self.measure("cancel", self.cancelled)
        reference = self.painted()
        self.painter = None
        release()
        for cap in CAPS_GIB:
            with card_of(cap) as memory_gib:
                self.measure("drill", lambda gib=memory_gib: self.drill(gib), card_gib=cap)
            release()
        self.measure("half_to_float32", lambda: self.half_to_float32(reference))
        release()
        if self.measure("setup", self.set_up):
            for aspect in pipeline.WARM_ASPECTS[1:]:
                self.pictures(self.size(aspect), pipeline.TOGETHER)

    def measure(
        self, measure: str, work: Callable[[], dict[str, Any] | None], **fields: Any
    ) -> bool:
        """One row about this preset."""
        return self.figures.measure(measure, work, preset=self.name, **fields)

    def write(self) -> dict[str, Any]:
        """A folder of random weights with the settings of the preset; it becomes the preset."""
        settings = {key: getattr(self.preset, key) for key in KEPT}
        settings |= {key: getattr(self.preset, key) for key in ("paint_area_px", "max_area_px")}

        def save() -> None:
            if self.is_tiny:
                sketch2real_models.save_tiny(self.name, self.target)
            else:
                dtype = self.machine.dtype_for(self.preset.half)
                made = WHOLE.get(self.name, self.name)
                sketch2real_models.save(made, self.target, self.machine.device, dtype)

        seconds = timed(save)
        if self.is_tiny:
            settings |= {"paint_area_px": 96**2, "max_area_px": 96**2, "multiple_px": 16}
            settings |= {"steps": 2}
        (self.target / weights.OVERRIDES).write_text(json.dumps(settings), encoding="utf-8")
        self.preset = weights.choose(
            str(self.target), self.machine.memory_gib, has_bfloat16=self.machine.has_bfloat16
        )
        size = sum(path.stat().st_size for path in self.target.rglob("*.safetensors"))
        return {"seconds": round(seconds, 1), "gib": round(size / 2**30, 2)}

    def load(self, memory_gib: float) -> Any:
        """As at the package's set-up, on a card that reports `memory_gib`."""
        machine = self.machine
        return pipeline.load_and_warm(
            self.preset, machine.device, machine.dtype_for(self.preset.half), memory_gib,
            should_warm=True,
        )  # fmt: skip

    def set_up(self) -> dict[str, Any]:
        def load() -> None:
            self.painter = self.load(self.machine.memory_gib)

        start_peak()
        return {"seconds": round(timed(load), 2), **peaks()}

    def size(self, aspect: float) -> tuple[int, int]:
        """Of a picture of this aspect ratio."""
        return size_for(aspect, self.preset.paint_area_px, self.preset.multiple_px)

    def pictures(self, size: tuple[int, int], together: int) -> None:
        """Seconds and memory of `together` pictures."""

        def paint() -> dict[str, Any]:
            requests = replace(_request(self.preset, size), seeds=tuple(range(together))).each()
            first = [replace(request, steps=1) for request in requests]
            self.painter.paint(first, _ignore)  # kernels of this size and number
            release()
            start_peak()
            seconds = timed(lambda: self.painter.paint(requests, _ignore))
            return {"seconds_each": round(seconds / together, 4), **peaks()}

        self.measure("picture", paint, painted_px=list(size), together=together)

    def painted(self) -> Image.Image | None:
        """The usual picture, None if it cannot be painted."""
        try:
            return self.painter.paint([_request(self.preset)], _ignore)[0]
        except Exception as error:
            self.figures.row(measure="painted", preset=self.name, error=repr(error)[:200])
            return None

    def against_stock(self) -> dict[str, Any]:
        """Medians."""
        preset, request, painter = self.preset, _request(self.preset), self.painter
        dtype = self.machine.dtype_for(preset.half)
        pipe = getattr(diffusers, preset.pipeline).from_pretrained(preset.source, dtype=dtype)
        pipe.to(self.machine.device).set_progress_bar_config(disable=True)
        options: dict[str, Any] = {}
        if preset.pipeline != "Flux2KleinPipeline":
            options["controlnet_conditioning_scale"] = request.control_scale
            options["guess_mode"] = preset.guess_mode
        width, height = request.control.size

        def stock() -> Any:
            return pipe(
                prompt=painter.prompt_for(request), image=request.control, width=width,
                height=height, num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                generator=torch.Generator("cpu").manual_seed(0), **options,
            )  # fmt: skip

        def ours() -> Any:
            return painter.paint([request], _ignore)

        start_peak()
        stock()
        stock_peak = peaks()["peak_gib"]
        pairs = [(timed(ours), timed(stock)) for _ in range(PAIRS)]
        mine, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
        return {
            "ours_s": round(mine, 4), "stock_s": round(theirs, 4), "value": round(mine / theirs, 3),
            "stock_and_ours_peak_gib": stock_peak,
        }  # fmt: skip

    def cancelled(self) -> dict[str, Any]:
        """From the first step's end, where a cancellation is noticed, until the painter is free."""
        begun = 0.0

        def cancel(_step: object) -> None:
            nonlocal begun
            begun = _now()
            raise KeyboardInterrupt

        try:
            self.painter.paint([_request(self.preset)], cancel)
        except KeyboardInterrupt:
            return {"seconds": round(_now() - begun, 4)}
        raise RuntimeError("the picture was not cancelled")

    def drill(self, memory_gib: float) -> dict[str, Any]:
        """Set-up and four pictures on a small card: what it does, whether it still paints."""
        start_peak()
        row: dict[str, Any] = {}
        try:
            painter: Any = None

            def load() -> None:
                nonlocal painter
                painter = self.load(memory_gib)

            row["setup_s"] = round(timed(load), 2)
            row["setup_peak_gib"] = peaks()["peak_gib"]
            row["is_offloaded"] = pipeline.speed.is_offloaded(painter._pipe)
            several = replace(_request(self.preset), seeds=(0, 1, 2, 3)).each()
            seconds = timed(lambda: _four(painter, several))
            row |= {"outcome": "painted", "four_s": round(seconds, 3)}
        except RuntimeError as error:
            row["outcome"] = f"{type(error).__name__}: {error}"[:200]
        return row | peaks()

    def half_to_float32(self, reference: Image.Image | None) -> dict[str, Any]:
        """Mean and 99th percentile of the difference of the same picture's values, of 1."""
        if reference is None:
            raise RuntimeError("there is no picture to compare")
        machine = self.machine
        exact = pipeline.load(self.preset, machine.device, torch.float32, machine.memory_gib)
        other = exact.paint([_request(self.preset)], _ignore)[0]
        values = np.asarray(other, float) / 255
        off = np.abs(np.asarray(reference, float) / 255 - values)
        return {
            "precision": str(machine.dtype_for(self.preset.half)).removeprefix("torch."),
            "mean": round(float(off.mean()), 5), "p99": round(float(np.percentile(off, 99)), 4),
            "spread": round(float(values.std()), 4), "is_within": bool(off.mean() <= MOST_OFF),
        }  # fmt: skip

    def compiled(self) -> dict[str, Any]:
        machine = self.machine
        dtype = machine.dtype_for(self.preset.half)
        painter: Any = pipeline.load(self.preset, machine.device, dtype, machine.memory_gib)
        request = _request(self.preset)

        def paint() -> None:
            painter.paint([request], _ignore)

        first, *later = [timed(paint) for _ in range(4)]
        return {
            "first_picture_s": round(first, 2), "picture_s": round(statistics.median(later), 4),
        }  # fmt: skip


def _four(painter: Painter, requests: list[Request]) -> None:
    """As batcher.py does: one at a time when they do not fit together."""
    try:
        painter.paint(requests, _ignore)
    except OutOfMemory:
        pass
    else:
        return
    for request in requests:
        painter.paint([request], _ignore)


def _ignore(_step: object) -> None:
    """No one watches the steps."""


def _now() -> float:
    """The time when the GPU has done everything."""
    synchronise()
    return time.perf_counter()


def _request(preset: weights.Preset, size: tuple[int, int] | None = None) -> Request:
    """A house in lines, at the preset's best size."""
    width, height = size or size_for(1.0, preset.paint_area_px, preset.multiple_px)
    control = Image.new("RGB", (width, height))
    pen = ImageDraw.Draw(control)
    box = (width // 4, height // 2, 3 * width // 4, 7 * height // 8)
    pen.rectangle(box, outline="white", width=max(1, width // 170))
    pen.line((box[0], box[1], width // 2, height // 6, box[2], box[1]), fill="white")
    return Request(
        control, "", None, preset.control_scale, preset.steps, preset.guidance_scale, (0,)
    )
