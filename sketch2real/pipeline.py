"""The models behind one small interface: lines and words in, pictures out.

`load` builds the painter of a preset through diffusers' `from_pretrained`; `Painter.paint` is all
that the runner knows of it.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import diffusers
import speed
import torch
from errors import OutOfMemory
from huggingface_hub import hf_hub_download
from PIL import Image
from safetensors.torch import load_file
from weights import LOOSE_INSTRUCTION, Preset

OnStep = Callable[[int, int], None]
"""Called after each denoising step with (steps done, steps in all) over all pictures."""

KEEP_ENCODER_GIB = 24.0
"""From this card on klein's text encoder (4 billion parameters, 8 GB) stays beside the model."""

diffusers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Order:
    """What to paint.

    control: RGB, white lines on black, in the size to be painted.
    prompt: the person's words, "" for none. negative_prompt: None for the preset's.
    control_scale: how closely the lines are followed, 0 to 2.
    guidance_scale: classifier-free guidance; 1 switches it off.
    seeds: one per picture.
    """

    control: Image.Image
    prompt: str
    negative_prompt: str | None
    control_scale: float
    steps: int
    guidance_scale: float
    seeds: tuple[int, ...]


class Painter(Protocol):
    """A loaded model."""

    preset: Preset

    def prompt_for(self, order: Order) -> str:
        """The words that the model is given for `order`, "" if none."""
        ...

    def paint(self, order: Order, on_step: OnStep) -> list[Image.Image]:
        """One RGB picture per seed, in the size of the control picture.

        Picture i depends on `order.seeds[i]` alone, not on how many are painted together.

        Raises: OutOfMemory: even one picture did not fit; what was allocated is freed.
        """
        ...


def load(preset: Preset, device: str, dtype: torch.dtype, memory_gib: float) -> Painter:
    """The painter of `preset` on `device`, its parts off-loaded between uses if the card is small.

    memory_gib: total memory of the card, 0 without one.
    """
    if preset.pipeline == "Flux2KleinPipeline":
        return KleinPainter(preset, device, dtype, memory_gib)
    pipe = _controlnet_pipeline(preset, dtype)
    _place(pipe, preset, device, memory_gib)
    return ControlNetPainter(preset, pipe, device)


def _place(pipe: Any, preset: Preset, device: str, memory_gib: float) -> None:
    """Put `pipe` on `device` and tune it; on a card too small for it, bring its parts in turns."""
    pipe.set_progress_bar_config(disable=True)
    if memory_gib and memory_gib < preset.needs_gib:
        pipe.enable_model_cpu_offload(device=device)
        pipe.vae.enable_slicing()  # several pictures are decoded one by one; the same pixels
    else:
        pipe.to(device)
        speed.tune(pipe, device)


def warm(painter: Painter) -> None:
    """Paint one step in the default size, so that the first person does not wait for kernels."""
    preset = painter.preset
    side = round(preset.paint_area_px**0.5)
    order = Order(
        control=Image.new("RGB", (side, side)),
        prompt="",
        negative_prompt=None,
        control_scale=preset.control_scale,
        steps=1,
        guidance_scale=preset.guidance_scale,
        seeds=(0,),
    )
    painter.paint(order, lambda _done, _steps: None)


def _parts(preset: Preset, dtype: torch.dtype) -> dict[str, Any]:
    """The parts that the preset takes from elsewhere than its base."""
    parts: dict[str, Any] = {}
    if preset.controlnet:
        parts["controlnet"] = diffusers.ControlNetModel.from_pretrained(
            preset.controlnet, dtype=dtype
        )
    if preset.vae:
        parts["vae"] = diffusers.AutoencoderKL.from_pretrained(preset.vae, dtype=dtype)
    if preset.unet_file:
        parts["unet"] = _distilled_unet(preset, dtype)
    if preset.variant:
        parts["variant"] = preset.variant
    return parts


def _distilled_unet(preset: Preset, dtype: torch.dtype) -> Any:
    """The base's UNet with distilled weights, put in as SDXL-Lightning's model card does it."""
    config = diffusers.UNet2DConditionModel.load_config(preset.source, subfolder="unet")
    unet = diffusers.UNet2DConditionModel.from_config(config).to(dtype)
    repository, _, name = preset.unet_file.rpartition("/")
    unet.load_state_dict(load_file(hf_hub_download(repository, name)))
    return unet


def _controlnet_pipeline(preset: Preset, dtype: torch.dtype) -> Any:
    pipeline_class = getattr(diffusers, preset.pipeline)
    # SD 1.5's own checker blanks the picture and needs another copy; safety.py runs one for all.
    checker = (
        {"safety_checker": None, "requires_safety_checker": False}
        if preset.pipeline == "StableDiffusionControlNetPipeline"
        else {}
    )
    pipe = pipeline_class.from_pretrained(
        preset.source, dtype=dtype, **_parts(preset, dtype), **checker
    )
    if preset.scheduler == "euler-trailing":
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="trailing"
        )
    elif preset.scheduler == "unipc":
        pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


class ControlNetPainter:
    """Stable Diffusion 1.5 or XL, led by the lines through a ControlNet."""

    def __init__(self, preset: Preset, pipe: Any, device: str) -> None:
        self.preset = preset
        self._pipe = pipe
        self._device = device

    def prompt_for(self, order: Order) -> str:
        if order.prompt:
            return self.preset.template.format(prompt=order.prompt)
        return self.preset.instruction

    def paint(self, order: Order, on_step: OnStep) -> list[Image.Image]:
        return _in_batches(self._paint_together, order, on_step, self._device)

    def _paint_together(self, order: Order, on_step: OnStep) -> list[Image.Image]:
        negative = self.preset.negative if order.negative_prompt is None else order.negative_prompt
        result = self._pipe(
            self.prompt_for(order),
            image=order.control,
            width=order.control.width,
            height=order.control.height,
            negative_prompt=negative or None,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            controlnet_conditioning_scale=order.control_scale,
            guess_mode=self.preset.guess_mode and not order.prompt,
            num_images_per_prompt=len(order.seeds),
            generator=_generators(order.seeds),
            callback_on_step_end=_callback(on_step),
        )
        return list(result.images)


class KleinPainter:
    """FLUX.2 klein, told to turn the picture of the lines into a photograph.

    Its text encoder is as large as the model itself and the instruction seldom changes: words are
    embedded once, remembered, and the encoder is let go (on a large card it stays).
    """

    def __init__(self, preset: Preset, device: str, dtype: torch.dtype, memory_gib: float) -> None:
        self.preset = preset
        self._device = device
        self._dtype = dtype
        self._keep = memory_gib >= KEEP_ENCODER_GIB
        self._encoder: Any = None
        self._embeddings: dict[str, torch.Tensor] = {}
        # Before the transformer is loaded: the two need never be on the card together.
        for words in (preset.instruction, LOOSE_INSTRUCTION, ""):
            self._embedded(words)
        self._pipe = diffusers.Flux2KleinPipeline.from_pretrained(
            preset.source, dtype=dtype, text_encoder=None, tokenizer=None
        )
        _place(self._pipe, preset, device, memory_gib)

    def prompt_for(self, order: Order) -> str:
        # An editing model has no dial for the lines; below half, the wording lets them go.
        instruction = LOOSE_INSTRUCTION if order.control_scale < 0.5 else self.preset.instruction
        if not order.prompt:
            return instruction
        return f"{instruction} The photograph shows {order.prompt}."

    def _embedded(self, words: str) -> torch.Tensor:
        """(1, tokens, channels) on the device, in the painter's dtype."""
        if words not in self._embeddings:
            if len(self._embeddings) > 64:
                self._embeddings.pop(next(iter(self._embeddings)))
            encoder = self._encoder or diffusers.Flux2KleinPipeline.from_pretrained(
                self.preset.source, dtype=self._dtype, transformer=None, vae=None
            ).to(self._device)
            with torch.no_grad():
                self._embeddings[words] = encoder.encode_prompt(words)[0]
            if self._keep:
                self._encoder = encoder
            else:
                del encoder
                _free(self._device)
        return self._embeddings[words]

    def paint(self, order: Order, on_step: OnStep) -> list[Image.Image]:
        return _in_batches(self._paint_together, order, on_step, self._device)

    def _paint_together(self, order: Order, on_step: OnStep) -> list[Image.Image]:
        # The model saw drawings on paper, not white on black.
        paper = order.control.point(lambda value: 255 - value)
        guided = not self._pipe.config.is_distilled and order.guidance_scale > 1.0
        result = self._pipe(
            image=[paper],
            prompt_embeds=self._embedded(self.prompt_for(order)),
            negative_prompt_embeds=self._embedded("") if guided else None,
            width=order.control.width,
            height=order.control.height,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale if guided else 1.0,
            num_images_per_prompt=len(order.seeds),
            generator=_generators(order.seeds),
            callback_on_step_end=_callback(on_step),
        )
        return list(result.images)


def _generators(seeds: tuple[int, ...]) -> list[torch.Generator]:
    """On the processor always: a seed then gives the same noise on every card."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def _callback(on_step: OnStep) -> Callable[..., dict[str, Any]]:
    def after_step(pipe: Any, index: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # Some schedulers take a step more than asked for (PNDM).
        on_step(index + 1, pipe.num_timesteps)
        return tensors

    return after_step


def _in_batches(
    paint: Callable[[Order, OnStep], list[Image.Image]], order: Order, on_step: OnStep, device: str
) -> list[Image.Image]:
    """All pictures together on an accelerator; one by one on a processor or if memory is short."""
    if device.startswith("cuda") and len(order.seeds) > 1:
        try:
            with _freed_after_failure(device, order):
                return paint(order, on_step)
        except OutOfMemory:
            pass  # one by one needs less
    pictures: list[Image.Image] = []
    for seed in order.seeds:

        def on_this(done: int, steps: int, before: int = len(pictures)) -> None:
            on_step(before * steps + done, len(order.seeds) * steps)

        with _freed_after_failure(device, order):
            pictures += paint(replace(order, seeds=(seed,)), on_this)
    return pictures


@contextmanager
def _freed_after_failure(device: str, order: Order) -> Iterator[None]:
    """Turn whatever says "no memory" into OutOfMemory, with the failed attempt's tensors freed."""
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if "alloc" not in str(error):  # the processor's allocator raises a plain RuntimeError
            raise
    # Outside the except block, so that no traceback keeps the tensors alive.
    _free(device)
    raise OutOfMemory(
        f"Cannot paint {order.control.width} × {order.control.height}: out of memory; "
        "ask for a smaller 'width' and 'height'"
    )


def _free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
