"""Stable Diffusion 1.5 or XL, conditioned on the lines by a ControlNet."""

from collections.abc import Sequence
from typing import Any

import diffusers
import preview
import speed
import torch
from embedding_cache import EmbeddingCache
from huggingface_hub import hf_hub_download
from memory import freed_after_failure
from PIL import Image
from request import OnStep, Request, as_pictures, callback, generators
from safetensors.torch import load_file
from weights import Preset


class ControlNetPainter:
    """A StableDiffusion(XL)ControlNetPipeline and its preset."""

    def __init__(self, preset: Preset, pipe: Any, device: str, together: int) -> None:
        self.preset = preset
        self.device = device
        self.together = together
        self._pipe = pipe
        self._embeddings = EmbeddingCache((preset.instruction, preset.negative))

    def prompt_for(self, request: Request) -> str:
        if request.prompt:
            return self.preset.template.format(prompt=request.prompt)
        return self.preset.instruction

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        first = requests[0]
        width, height = first.control.size
        preset = self.preset
        with freed_after_failure(self.device, first.control.size):
            result = self._pipe(
                **self._prompt_embeds(requests),
                image=[request.control for request in requests],
                width=width,
                height=height,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance_scale,
                controlnet_conditioning_scale=first.control_scale,
                guess_mode=preset.guess_mode and not first.prompt,
                generator=generators(requests),
                callback_on_step_end=callback(on_step),
                output_type="np",
            )
        return as_pictures(result.images)

    def _prompt_embeds(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """The embeddings of the prompts and negative prompts, as the pipeline takes them."""
        prompts = [self.prompt_for(request) for request in requests]
        found = self._batched(prompts, "")
        if requests[0].guidance_scale > 1.0:
            negatives = [
                self.preset.negative if request.negative_prompt is None else request.negative_prompt
                for request in requests
            ]
            found |= self._batched(negatives, "negative_")
        return found

    def _batched(self, texts: Sequence[str], prefix: str) -> dict[str, torch.Tensor]:
        """(texts, tokens, channels) and, for SDXL, the pooled (texts, channels)."""
        each = [self._embeddings.of(text, self._encoded) for text in texts]
        names = (f"{prefix}prompt_embeds", f"{prefix}pooled_prompt_embeds")
        parts = zip(*each, strict=True)  # one of Stable Diffusion, two of SDXL
        return {name: torch.cat(part) for name, part in zip(names, parts, strict=False)}

    @torch.no_grad()
    def _encoded(self, text: str) -> tuple[torch.Tensor, ...]:
        pipe = self._pipe
        made = pipe.encode_prompt(
            text,
            device=pipe._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return tuple(made[::2])  # the negative ones are in between

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        pipe = self._pipe
        if speed.is_offloaded(pipe):  # each preview would swap the UNet for the VAE
            return None
        levels = (preview.level(pipe.scheduler, at) for at in (done - 1, done))
        clean = preview.clean_estimate(before, next(levels), after, next(levels))
        if clean is None:
            return None
        return preview.decoded_small(
            pipe, clean / pipe.vae.config.scaling_factor, request.control.size
        )


def load(preset: Preset, dtype: torch.dtype) -> Any:
    """The pipeline of `preset` on the CPU, with the parts that come from other sources."""
    pipeline_class = getattr(diffusers, preset.pipeline)
    # SD 1.5's own checker blacks the picture out; safety.py has one checker for all presets.
    checker = (
        {"safety_checker": None, "requires_safety_checker": False}
        if preset.pipeline == "StableDiffusionControlNetPipeline"
        else {}
    )
    pipe = pipeline_class.from_pretrained(
        preset.source, dtype=dtype, **parts(preset, dtype), **checker
    )
    if preset.scheduler == "euler-trailing":
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
            pipe.scheduler.config, timestep_spacing="trailing"
        )
    elif preset.scheduler == "unipc":
        pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    return speed.quantised(pipe, "unet")


def parts(preset: Preset, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of the preset that come from other sources than its base."""
    found: dict[str, Any] = {}
    if preset.controlnet:
        found["controlnet"] = diffusers.ControlNetModel.from_pretrained(
            preset.controlnet, dtype=dtype
        )
    if preset.vae:
        found["vae"] = diffusers.AutoencoderKL.from_pretrained(preset.vae, dtype=dtype)
    if preset.unet_file:
        found["unet"] = _distilled_unet(preset, dtype)
    if preset.variant:
        found["variant"] = preset.variant
    return found


def _distilled_unet(preset: Preset, dtype: torch.dtype) -> Any:
    """The base's UNet with distilled weights, loaded as on SDXL-Lightning's model card."""
    config = diffusers.UNet2DConditionModel.load_config(preset.source, subfolder="unet")
    unet = diffusers.UNet2DConditionModel.from_config(config).to(dtype)
    repository, _, name = preset.unet_file.rpartition("/")
    unet.load_state_dict(load_file(hf_hub_download(repository, name)))
    return unet
