"""Cog's entry point: turns a sketch into a realistic picture of the same thing."""

import asyncio
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path as LocalPath

import caption
import hardware
import outputs
import pipeline
import progress
import reading
import safety
import speed
import weights
from batcher import Batcher
from cog import BaseRunner, Input, Path, concurrent
from outputs import Output
from request import Request, readable, refuse_unsuited

# Each is one literal, however long: `cog build` reads them statically, and concatenated pieces
# would keep their quotes.
# ruff: noqa: E501
IMAGE = "The sketch: a phone photo of paper, a scan, or a canvas (dark on light, light on dark, or transparent). PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF; 16 px a side to 50 megapixels, at most 32768 px a side and 80 to 1 in shape. A photograph is reduced to its edges."
PROMPT = "What the sketch shows, in English. Not needed: left empty, the lines alone decide."
NEGATIVE_PROMPT = "What the picture must not show; left out, the preset's own. Works with guidance above 1, and not with an editing model (klein)."
STRENGTH = "How closely the lines are followed, 0 (freely) to 2 (exactly); left out, the preset's own (0.8 to 1). klein: below 0.5, clumsy shapes may be corrected."
STEPS = "Denoising steps, 1 to 50; left out, the preset's own (4 to 20). More is slower. sdxl-scribble takes 8 only."
GUIDANCE = "Classifier-free guidance scale, 1 (off) to 20; left out, the preset's own. klein ignores it, sdxl-scribble takes 1 only."
SEED = "0 to 4294967295. The same seed with the same inputs gives the same picture; left out, a random one is chosen and returned."
WIDTH = "Width of the picture in px, rounded to a multiple of 64; left out, it follows from the height or from the sketch."
HEIGHT = "Height of the picture in px, rounded to a multiple of 64; left out, it follows from the width or from the sketch."
NUM_OUTPUTS = "How many pictures, 1 to 4, with the seeds seed, seed + 1, …"
PREVIEWS = "Whether to write small previews into the logs while it is painted, one line each: preview: data:image/webp;base64,…"
OUTPUT_FORMAT = "File type of the pictures."


class Runner(BaseRunner):
    """Turns line drawings into pictures with a diffusion model."""

    def setup(self) -> None:
        """Load what `WEIGHTS` names, or the best preset that fits the GPU."""
        machine, env = hardware.detect(), os.environ
        self.preset = weights.choose(
            env.get("WEIGHTS", ""), machine.memory_gib, has_bfloat16=machine.has_bfloat16
        )
        dtype = machine.dtype_for(self.preset.half)
        should_warm = machine.is_cuda or speed.is_compiling()
        self.batcher = Batcher(
            pipeline.load_and_warm(
                self.preset, machine.device, dtype, machine.memory_gib, should_warm=should_warm
            )
        )
        # One sketch at a time: reading one takes up to 450 MB.
        self.cpu_pool = ThreadPoolExecutor(1, thread_name_prefix="cpu")
        source = caption.source_for(self.preset, machine.memory_gib, env.get("CAPTIONER"))
        self.captioner = caption.Florence(source, machine.device, dtype) if source else None
        checker = env.get("SAFETY_CHECKER", self.preset.safety_checker)
        self.checker = safety.SafetyChecker(checker, machine.device) if checker else None
        self.withholds = env.get("SAFETY_WITHHOLD", "") == "1"

    @concurrent(max=4)  # type: ignore[untyped-decorator]
    async def run(
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
        previews: bool = Input(default=False, description=PREVIEWS),
    ) -> Output:
        """Clean the sketch, paint it, check and write the pictures."""
        clock, preset = outputs.Clock(), self.preset
        in_pool = partial(asyncio.get_running_loop().run_in_executor, self.cpu_pool)
        prompt = readable(prompt)
        captioner = None if prompt else self.captioner
        size = (width, height)
        steps = preset.steps if steps is None else steps
        guidance = preset.guidance_scale if guidance is None else guidance
        refuse_unsuited(preset, size, steps, guidance)
        prepared = await in_pool(reading.read, LocalPath(image), preset, size, captioner)
        clock.mark("clean_s")
        painter = self.batcher.painter
        request = Request(
            control=prepared.control,
            prompt=prompt or prepared.caption,
            negative_prompt=None if negative_prompt is None else readable(negative_prompt),
            control_scale=preset.control_scale if strength is None else strength,
            steps=steps,
            guidance_scale=guidance,
            seeds=_seeds(seed, num_outputs),
        )
        request = painter.fitted(request)
        show = progress.show if previews else None
        pictures = await self.batcher.paint(request, progress.percent, show)
        clock.mark("paint_s")
        flags = await in_pool(self.checker.flags, pictures) if self.checker else None
        pictures = safety.withheld(pictures, flags) if flags and self.withholds else pictures
        clock.mark("check_s")
        # Nothing is awaited from here on: a cancelled prediction leaves no file behind.
        return outputs.written(
            pictures, request, size=prepared.plan.delivered, output_format=output_format,
            result_prompt=painter.prompt_for(request), flags=flags, clock=clock,
        )  # fmt: skip


def _seeds(first: int | None, count: int) -> tuple[int, ...]:
    start = secrets.randbelow(2**32) if first is None else first
    return tuple(range(start, start + count))
