"""FLUX.2 klein, prompted to turn a picture of the lines into a photograph."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import diffusers
import preview
import speed
import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from embedding_cache import EmbeddingCache
from memory import attempt, free
from PIL import Image
from prompt_pieces import for_counting, longest_start
from request import OnStep, Request, as_pictures, callback, generators
from transformers import AutoModelForCausalLM
from weights import LOOSE_INSTRUCTION, Preset

KEEP_ENCODER_GIB = 22.0
"""GPU memory from which the text encoder (4 billion parameters, 7.5 GiB) stays loaded. Cards that
are sold with 24 GB report 23.6 GiB or less."""

ENCODER_GIB = 9.0
"""GPU memory from which the text encoder fits alone; on a smaller GPU it runs on the processor."""

LONGEST_TOKENS = 512
"""What the pipeline gives the text encoder of a prompt, its chat template included."""


class WholeReferences(Flux2ImageProcessor):
    """Shows the model its reference pictures in the size in which they are painted.

    Upstream reduces references of more than 1024 × 1024 px, by a factor that is not a multiple of
    its patches, and crops them: lines would lie up to 300 px beside those of the picture. (Black
    Forest Labs' own code takes a single reference of up to 2024 × 2024 px.)
    """

    @staticmethod
    def _resize_to_target_area(image: Image.Image, target_area: int = 0) -> Image.Image:
        return image


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
        self,
        preset: Preset,
        device: str,
        dtype: torch.dtype,
        memory_gib: float,
        together: int,
        *,
        offload: bool = False,
    ) -> None:
        self.preset = preset
        self.device = device
        self.together = together
        self._dtype = dtype
        self._keep = memory_gib >= KEEP_ENCODER_GIB and not offload
        self._is_away = False
        self._pipe: Any = None
        self._encoder: Any = None
        self._counter: Any = None
        constant = (preset.instruction, LOOSE_INSTRUCTION, "")
        self._embeddings = EmbeddingCache(constant)
        self._encoder_device = device if not memory_gib or memory_gib >= ENCODER_GIB else "cpu"
        # Before the transformer is loaded, so that the two are never on the GPU together.
        self._embed(constant)
        pipe: Any = Pipeline.from_pretrained(
            preset.source, dtype=dtype, text_encoder=None, tokenizer=None
        )
        pipe.image_processor = WholeReferences.from_config(pipe.image_processor.config)
        self._pipe = speed.quantised(pipe, "transformer")
        speed.place(self._pipe, preset, device, memory_gib, offload=offload)
        # A GPU of 15 to 22 GiB: the transformer (7 GiB) moves out while the encoder (8 GiB) works.
        is_card = memory_gib > 0
        self._has_room_for_one = is_card and not self._keep and not speed.is_offloaded(self._pipe)

    def prompt_for(self, request: Request) -> str:
        # An editing model has no strength parameter: below 0.5 another instruction is used.
        instruction = LOOSE_INSTRUCTION if request.control_scale < 0.5 else self.preset.instruction
        if not request.prompt:
            return instruction
        return f"{instruction} The photograph shows {request.prompt}."

    def fitted(self, request: Request) -> Request:
        def fits(prompt: str) -> bool:
            words = self.prompt_for(replace(request, prompt=prompt))
            message = [{"role": "user", "content": words}]
            chat = self._counter.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
            return len(self._counter(chat)["input_ids"]) <= LONGEST_TOKENS

        return replace(request, prompt=longest_start(request.prompt, fits))

    def _embed(self, prompts: Sequence[str]) -> list[torch.Tensor]:
        """(1, tokens, channels) of each prompt, on the device, in the painter's dtype.

        The encoder is loaded at most once, and only for prompts that are not known.
        """
        encoder = None

        @torch.no_grad()
        def encoded(prompt: str) -> torch.Tensor:
            nonlocal encoder
            encoder = encoder or self._loaded_encoder()
            embedding: torch.Tensor = encoder.encode_prompt(prompt)[0]
            return embedding.to(self.device)

        found = [self._embeddings.of(prompt, encoded) for prompt in prompts]
        if encoder is not None and not self._keep:
            encoder = None
            free(self.device)
        return found

    def _loaded_encoder(self) -> Any:
        """A pipeline of the text encoder alone, the transformer off the GPU if both do not fit."""
        if self._encoder is not None:
            return self._encoder
        if self._pipe is not None and self._has_room_for_one:
            self._pipe.transformer.to("cpu")  # _ready() moves it back
            self._is_away = True
            free(self.device)
        # Read from disk straight to its device: host memory never holds both models.
        model = AutoModelForCausalLM.from_pretrained(
            self.preset.source,
            subfolder="text_encoder",
            dtype=self._dtype,
            device_map={"": self._encoder_device},
        )
        encoder = diffusers.Flux2KleinPipeline.from_pretrained(
            self.preset.source, dtype=self._dtype, text_encoder=model, transformer=None, vae=None
        )
        self._encoder = encoder if self._keep else None
        if self._counter is None:
            self._counter = for_counting(encoder.tokenizer)
        return encoder

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

        def run() -> list[Image.Image]:
            embeds = torch.cat(self._embed([self.prompt_for(one) for one in requests]))
            negative = torch.cat(self._embed([""]) * len(requests)) if guided else None
            result = self._ready()(
                image=papers,
                prompt_embeds=embeds,
                negative_prompt_embeds=negative,
                width=width,
                height=height,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance_scale if guided else 1.0,
                generator=generators(requests),
                callback_on_step_end=callback(on_step),
                output_type="np",
            )
            return as_pictures(result.images)

        return attempt(run, self._pipe, self.device, first.control.size)

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        pipe = self._pipe
        if speed.is_offloaded(pipe):  # each preview would swap the transformer for the VAE
            return None
        levels = [preview.level(pipe.scheduler, at) for at in (done - 1, done)]
        clean = preview.clean_estimate(before, levels[0], after, levels[1])
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
        return preview.decoded_small(
            pipe,
            pipe._unpatchify_latents(patches),
            request.control.size,
            preview.noise_of(levels[1]),
        )
