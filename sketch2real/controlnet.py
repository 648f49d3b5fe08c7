"""Stable Diffusion 1.5 or XL, conditioned on the lines by a ControlNet."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import diffusers
import preview
import speed
import torch
from embedding_cache import EmbeddingCache
from huggingface_hub import hf_hub_download
from memory import attempt
from PIL import Image
from prompt_pieces import MOST_PIECES, for_counting, longest_start, pieces
from request import OnStep, Request, as_pictures, callback, generators
from safetensors.torch import load_file
from weights import Preset

LONGEST_TOKENS = 77
"""What CLIP's text encoders take at once."""


class ControlNetPainter:
    """A StableDiffusion(XL)ControlNetPipeline and its preset."""

    def __init__(self, preset: Preset, pipe: Any, device: str, together: int) -> None:
        self.preset = preset
        self.device = device
        self.together = together
        self._pipe = pipe
        self._counter = for_counting(pipe.tokenizer)
        self._embeddings = EmbeddingCache((preset.instruction, preset.negative))

    def prompt_for(self, request: Request) -> str:
        if request.prompt:
            return self.preset.template.format(prompt=request.prompt)
        return self.preset.instruction

    def fitted(self, request: Request) -> Request:
        prompt = longest_start(
            request.prompt,
            lambda text: self._count(self.prompt_for(replace(request, prompt=text))) <= MOST_PIECES,
        )
        negative = request.negative_prompt
        if negative is not None:
            negative = longest_start(negative, lambda text: self._count(text) <= MOST_PIECES)
        fitting = replace(request, prompt=prompt, negative_prompt=negative)
        return replace(fitting, pieces=max(map(self._count, self._texts(fitting))))

    def _texts(self, request: Request) -> list[str]:
        """What is encoded for `request`: its prompt and, if it is guided, the negative one."""
        texts = [self.prompt_for(request)]
        if request.guidance_scale > 1.0:
            negative = request.negative_prompt
            texts.append(self.preset.negative if negative is None else negative)
        return texts

    def _count(self, text: str) -> int:
        return len(self._pieces(text))

    def _pieces(self, text: str) -> list[str]:
        """`text` in pieces of what the text encoder takes at once, less its start and end."""
        room = self._counter.model_max_length - 2
        return pieces(text, lambda part: len(self._counter.tokenize(part)), room)

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        first = requests[0]
        width, height = first.control.size
        preset = self.preset

        def run() -> list[Image.Image]:
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

        return attempt(run, self._pipe, self.device, first.control.size)

    def _prompt_embeds(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """The embeddings of the prompts and negative prompts, as the pipeline takes them.

        All have the length of the longest, filled up with the embedding of no words.
        """
        each = [self._texts(request) for request in requests]
        most = max(self._count(text) for texts in each for text in texts)
        found: dict[str, torch.Tensor] = {}
        for texts, prefix in zip(zip(*each, strict=True), ("", "negative_"), strict=False):
            found |= self._batched(texts, prefix, min(most, MOST_PIECES))
        return found

    def _batched(self, texts: Sequence[str], prefix: str, length: int) -> dict[str, torch.Tensor]:
        """(texts, length × tokens, channels) and, for SDXL, the pooled (texts, channels)."""
        each = [self._embedded(text, length) for text in texts]
        names = (f"{prefix}prompt_embeds", f"{prefix}pooled_prompt_embeds")
        parts = zip(*each, strict=True)  # one of Stable Diffusion, two of SDXL
        return {name: torch.cat(part) for name, part in zip(names, parts, strict=False)}

    def _embedded(self, text: str, length: int) -> tuple[torch.Tensor, ...]:
        """The embedding of `text` in `length` pieces: (1, …), one after the other."""
        first, *pooled = self._embeddings.of(text, self._encoded)
        missing = length - self._count(text)
        if missing > 0:
            blank = self._embeddings.of("", self._encoded)[0]
            first = torch.cat([first, *[blank] * missing], dim=1)
        return (first, *pooled)

    @torch.no_grad()
    def _encoded(self, text: str) -> tuple[torch.Tensor, ...]:
        """Piece by piece, as is customary for prompts of more than 77 tokens; pooled: the first."""
        each = [self._encoded_piece(piece) for piece in self._pieces(text)[:MOST_PIECES]]
        return (torch.cat([piece[0] for piece in each], dim=1), *each[0][1:])

    def _encoded_piece(self, text: str) -> tuple[torch.Tensor, ...]:
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
        levels = [preview.level(pipe.scheduler, at) for at in (done - 1, done)]
        clean = preview.clean_estimate(before, levels[0], after, levels[1])
        if clean is None:
            return None
        return preview.decoded_small(
            pipe,
            clean / pipe.vae.config.scaling_factor,
            request.control.size,
            preview.noise_of(levels[1]),
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
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipe, name, None)
        if tokenizer is not None:  # some files name no limit, and diffusers pads to it
            tokenizer.model_max_length = min(tokenizer.model_max_length, LONGEST_TOKENS)
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
    """The base's UNet with distilled weights, loaded as on SDXL-Lightning's model card.

    It is built without memory and given the file's tensors: at random and in float32 first, it
    would take 10 GiB and half a minute.
    """
    config = diffusers.UNet2DConditionModel.load_config(preset.source, subfolder="unet")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel.from_config(config)
    repository, _, name = preset.unet_file.rpartition("/")
    unet.load_state_dict(load_file(hf_hub_download(repository, name)), assign=True)
    return unet.to(dtype)
