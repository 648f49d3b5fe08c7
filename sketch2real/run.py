"""Cog's entry point: a sketch comes in, a realistic picture of the same thing goes out."""

import os
import secrets
import sys
from pathlib import Path as LocalPath

import condition
import hardware
import outputs
import pipeline
import safety
import sketch
import strokes
import weights
from cog import BaseRunner, Input, Path
from outputs import Output
from picture import load_rgb

# One literal each, however long: `cog build` reads them statically and would show the quotes of
# pieces put together.
# ruff: noqa: E501
IMAGE = "The sketch: a phone photo of paper, a scan, or a canvas (dark on light, light on dark, or transparent). PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF; 16 px a side to 50 megapixels. A photograph is reduced to its edges."
PROMPT = "What the sketch shows, in English. Not needed: left empty, the lines alone decide."
NEGATIVE_PROMPT = "What must not be seen; left out, the preset's own. Works with guidance above 1, and not with an editing model (klein)."
STRENGTH = "How closely the lines are followed, 0 (freely) to 2 (slavishly); left out, the preset's own (0.8 to 1). klein: below 0.5, clumsy shapes may be corrected."
STEPS = "Denoising steps, 1 to 50; left out, the preset's own (4 to 20). More is slower."
GUIDANCE = "Classifier-free guidance scale, 1 (off) to 20; left out, the preset's own. Distilled models (klein) ignore it."
SEED = "0 to 4294967295. The same seed with the same inputs gives the same picture; left out, one is drawn and returned."
WIDTH = "Width of the picture in px, rounded to a multiple of 64; left out, it follows from the height or from the sketch."
HEIGHT = "Height of the picture in px, rounded to a multiple of 64; left out, it follows from the width or from the sketch."
NUM_OUTPUTS = "How many pictures, 1 to 4, with the seeds seed, seed + 1, …"
OUTPUT_FORMAT = "File type of the pictures."


class Runner(BaseRunner):
    """Turns line drawings into pictures with a diffusion model."""

    def setup(self) -> None:
        """Load what `WEIGHTS` names, or the best preset that fits the card."""
        machine = hardware.detect()
        name = os.environ.get("WEIGHTS", "")
        self.preset = weights.choose(name, machine.memory_gib, has_bfloat16=machine.has_bfloat16)
        self.painter = pipeline.load(
            self.preset, machine.device, machine.dtype_for(self.preset.half), machine.memory_gib
        )
        if machine.is_cuda:
            pipeline.warm(self.painter)
        checker = os.environ.get("SAFETY_CHECKER", self.preset.safety_checker)
        self.checker = safety.SafetyChecker(checker, machine.device) if checker else None
        self.withholds = os.environ.get("SAFETY_WITHHOLD", "") == "1"

    def run(
        self,
        image: Path = Input(description=IMAGE),
        prompt: str = Input(default="", description=PROMPT, max_length=1000),
        negative_prompt: str | None = Input(
            default=None, description=NEGATIVE_PROMPT, max_length=1000
        ),
        strength: float | None = Input(default=None, description=STRENGTH, ge=0.0, le=2.0),
        steps: int | None = Input(default=None, description=STEPS, ge=1, le=50),
        guidance: float | None = Input(default=None, description=GUIDANCE, ge=1.0, le=20.0),
        seed: int | None = Input(default=None, description=SEED, ge=0, le=4294967295),
        width: int | None = Input(default=None, description=WIDTH, ge=128, le=2048),
        height: int | None = Input(default=None, description=HEIGHT, ge=128, le=2048),
        num_outputs: int = Input(default=1, description=NUM_OUTPUTS, ge=1, le=4),
        output_format: str = Input(
            default="webp", description=OUTPUT_FORMAT, choices=["webp", "png", "jpeg"]
        ),
    ) -> Output:
        """Clean the sketch, paint it, check and write the pictures."""
        clock = outputs.Clock()
        rgb = load_rgb(LocalPath(image), max_side_px=sketch.WORKING_SIDE_PX)
        lines = strokes.centrelines(sketch.find_ink(rgb).mask)
        preset = self.preset
        plan = condition.make_plan(
            lines, width, height, areas=preset.areas_px, multiple=preset.multiple_px
        )
        order = pipeline.Order(
            control=condition.draw(lines, plan, pen=preset.pen, hard=preset.hard_lines),
            prompt=prompt.strip(),
            negative_prompt=negative_prompt,
            control_scale=preset.control_scale if strength is None else strength,
            steps=preset.steps if steps is None else steps,
            guidance_scale=preset.guidance_scale if guidance is None else guidance,
            seeds=_seeds(seed, num_outputs),
        )
        clock.mark("clean_s")
        pictures = self.painter.paint(order, _report)
        clock.mark("paint_s")
        flags = self.checker.flags(pictures) if self.checker else []
        if self.withholds and flags:
            pictures = safety.withheld(pictures, flags)
        clock.mark("check_s")
        images = outputs.save(pictures, output_format, "picture", plan.delivered)
        control_image = outputs.save([order.control], "png", "lines", plan.delivered)[0]
        clock.mark("encode_s")
        return Output(
            image=images[0],
            images=images,
            control_image=control_image,
            prompt_used=self.painter.prompt_for(order),
            seed=order.seeds[0],
            flagged=any(flags) if self.checker else None,
            timings=clock.seconds(),
        )


def _seeds(first: int | None, count: int) -> tuple[int, ...]:
    start = secrets.randbelow(2**32) if first is None else first
    return tuple(range(start, start + count))


def _report(done: int, steps: int) -> None:
    """Into the prediction's logs, which the router shows as progress."""
    sys.stdout.write(f"painting: {100 * done // steps} % ({done}/{steps} steps)\n")
    sys.stdout.flush()
