"""FLUX.2 klein, prompted to turn a picture of the lines into a photograph."""

from collections.abc import Sequence
from typing import Any

import diffusers
import preview
import speed
import torch
from embedding_cache import EmbeddingCache
from memory import free, freed_after_failure
from PIL import Image
from request import OnStep, Request, as_pictures, callback, generators
from weights import LOOSE_INSTRUCTION, Preset

KEEP_ENCODER_GIB = 24.0
"""GPU memory from which the text encoder (4 billion parameters, 8 GB) stays loaded."""


class Pipeline(diffusers.Flux2KleinPipeline):
    """One drawing per picture of a batch.

    Upstream takes a list of images as several references for one picture, and repeats them over
    the batch.
    """

    def prepare_image_latents(
        self, images: list[torch.Tensor], batch_size: int, generator: Any, device: Any, dtype: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(pictures, tokens, channels) latents and (pictures, tokens, 4) positions."""
        one_each = [
            super(Pipeline, self).prepare_image_latents([image], 1, generator, device, dtype)
            for image in images
        ]
        latents, positions = zip(*one_each, strict=True)
        return torch.cat(latents), torch.cat(positions)


class KleinPainter:
    """A Flux2KleinPipeline without its text encoder, and the embeddings it needs.

    The encoder is as large as the model itself and the instruction seldom changes: a prompt is
    embedded once and cached, and the encoder is unloaded (on a large GPU it stays).
    """

    def __init__(
        self, preset: Preset, device: str, dtype: torch.dtype, memory_gib: float, together: int
    ) -> None:
        self.preset = preset
        self.device = device
        self.together = together
        self._dtype = dtype
        self._keep = memory_gib >= KEEP_ENCODER_GIB
        self._is_away = False
        self._pipe: Any = None
        self._encoder: Any = None
        constant = (preset.instruction, LOOSE_INSTRUCTION, "")
        self._embeddings = EmbeddingCache(constant)
        # Before the transformer is loaded, so that the two are never on the GPU together.
        for prompt in constant:
            self._embedded(prompt)
        pipe = Pipeline.from_pretrained(
            preset.source, dtype=dtype, text_encoder=None, tokenizer=None
        )
        self._pipe = speed.quantised(pipe, "transformer")
        speed.place(self._pipe, preset, device, memory_gib)
        # A GPU of 15 to 24 GiB: the transformer (7 GiB) moves out while the encoder (8 GiB) works.
        is_card = memory_gib > 0
        self._has_room_for_one = is_card and not self._keep and not speed.is_offloaded(self._pipe)

    def prompt_for(self, request: Request) -> str:
        # An editing model has no strength parameter: below 0.5 another instruction is used.
        instruction = LOOSE_INSTRUCTION if request.control_scale < 0.5 else self.preset.instruction
        if not request.prompt:
            return instruction
        return f"{instruction} The photograph shows {request.prompt}."

    def _embedded(self, prompt: str) -> torch.Tensor:
        """(1, tokens, channels) on the device, in the painter's dtype."""
        found: torch.Tensor = self._embeddings.of(prompt, self._encoded)
        return found

    def _encoded(self, prompt: str) -> torch.Tensor:
        if self._pipe is not None and self._has_room_for_one:
            self._pipe.transformer.to("cpu")  # _ready() moves it back
            self._is_away = True
            free(self.device)
        encoder = self._encoder or diffusers.Flux2KleinPipeline.from_pretrained(
            self.preset.source, dtype=self._dtype, transformer=None, vae=None
        ).to(self.device)
        with torch.no_grad():
            embedded: torch.Tensor = encoder.encode_prompt(prompt)[0]
        if self._keep:
            self._encoder = encoder
        else:
            del encoder
            free(self.device)
        return embedded

    def _ready(self) -> Any:
        """The pipeline, with its transformer back on the device."""
        if self._is_away:
            self._pipe.transformer.to(self.device)
            self._is_away = False
        return self._pipe

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        first = requests[0]
        width, height = first.control.size
        # The model was trained on drawings on paper, not on white lines on black.
        papers = [request.control.point(lambda value: 255 - value) for request in requests]
        guided = not self._pipe.config.is_distilled and first.guidance_scale > 1.0
        with freed_after_failure(self.device, first.control.size):
            embeds = torch.cat([self._embedded(self.prompt_for(one)) for one in requests])
            result = self._ready()(
                image=papers,
                prompt_embeds=embeds,
                negative_prompt_embeds=(
                    torch.cat([self._embedded("")] * len(requests)) if guided else None
                ),
                width=width,
                height=height,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance_scale if guided else 1.0,
                generator=generators(requests),
                callback_on_step_end=callback(on_step),
                output_type="np",
            )
        return as_pictures(result.images)

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        pipe = self._pipe
        if speed.is_offloaded(pipe):  # each preview would swap the transformer for the VAE
            return None
        levels = (preview.level(pipe.scheduler, at) for at in (done - 1, done))
        clean = preview.clean_estimate(before, next(levels), after, next(levels))
        if clean is None:
            return None
        # As the pipeline does after its last step: tokens to patches, the VAE's norm inverted.
        width, height = (side // (2 * pipe.vae_scale_factor) for side in request.control.size)
        patches = clean.transpose(1, 2).reshape(1, -1, height, width)
        norm = pipe.vae.bn
        spread = torch.sqrt(norm.running_var + pipe.vae.config.batch_norm_eps).to(patches)
        patches = patches * spread.view(1, -1, 1, 1) + norm.running_mean.to(patches).view(
            1, -1, 1, 1
        )
        return preview.decoded_small(pipe, pipe._unpatchify_latents(patches), request.control.size)
