"""A request for pictures, and the interface that every model implements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers.image_processor import VaeImageProcessor
from errors import InvalidInput
from PIL import Image
from weights import Preset


@dataclass(frozen=True)
class Step:
    """The state after a denoising step.

    done, steps: steps done and in all. latents: (pictures, …) in the model's own layout.
    """

    done: int
    steps: int
    latents: torch.Tensor


OnStep = Callable[[Step], None]
"""Called after each denoising step; an exception from it ends the painting."""


@dataclass(frozen=True)
class Request:
    """What to paint.

    control: RGB, white lines on black, in the size to be painted.
    prompt: as the caller wrote it, "" for none. negative_prompt: None for the preset's.
    control_scale: how closely the lines are followed, 0 to 2.
    guidance_scale: classifier-free guidance; 1 switches it off.
    seeds: one per picture.
    pieces: in how many pieces the text encoder takes the words; `Painter.fitted` counts them.
    """

    control: Image.Image
    prompt: str
    negative_prompt: str | None
    control_scale: float
    steps: int
    guidance_scale: float
    seeds: tuple[int, ...]
    pieces: int = 1

    def each(self) -> list["Request"]:
        """One request per picture."""
        return [replace(self, seeds=(seed,)) for seed in self.seeds]

    @property
    def bucket(self) -> tuple[object, ...]:
        """Requests of one bucket can share a batch: these arguments are one per call."""
        return (
            self.control.size,
            self.steps,
            self.guidance_scale,
            self.control_scale,
            bool(self.prompt),  # guess mode is for requests without a prompt
            self.pieces,  # padded to another's length, a prompt would give another picture
        )


def refuse_unsuited(
    preset: Preset, size: tuple[int | None, int | None], steps: int, guidance_scale: float
) -> None:
    """Raises InvalidInput for values that the weights of `preset` were not made for.

    size: requested (width, height) in px, None where it follows from the sketch.
    """
    if preset.is_for_steps_only and steps != preset.steps:
        raise InvalidInput(
            f"Cannot paint: 'steps' must be {preset.steps}, for which the weights of {preset.name} "
            f"are made, got {steps}"
        )
    if preset.is_for_steps_only and guidance_scale > 1.0:
        raise InvalidInput(
            f"Cannot paint: 'guidance' must be 1, as the weights of {preset.name} are "
            f"made for no other, got {guidance_scale:g}"
        )
    sides = [round(side / 64) for side in size if side]  # as they are delivered
    if len(sides) == 2 and max(sides) > preset.max_aspect * min(sides):
        raise InvalidInput(
            f"Cannot paint: the longer of 'width' and 'height' must be at most "
            f"{preset.max_aspect:g} times the shorter with {preset.name}, got {size[0]} × {size[1]}"
        )


class Painter(Protocol):
    """A loaded model. Not safe for two threads at once."""

    preset: Preset
    device: str
    together: int
    """Pictures in one batch at most. 1 on a CPU: more would only make all wait for the last."""

    def prompt_for(self, request: Request) -> str:
        """The prompt that the model gets for `request`, "" for none."""
        ...

    def fitted(self, request: Request) -> Request:
        """`request` with as many of its words as the model takes, and their pieces counted."""
        ...

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        """One RGB picture per request, in the size of its control picture.

        requests: of one picture and one bucket each. Picture i depends on request i alone, not on
        what is painted with it.

        Raises OutOfMemory when it does not fit (what was allocated is freed), and
        FloatingPointError when the model answers with NaN.
        """
        ...

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        """A small picture of what step `done` leads to; None if it cannot be computed now.

        before, after: (1, …), latents of the request's picture as two successive `Step`s have them.
        """
        ...


def generators(requests: Sequence[Request]) -> list[torch.Generator]:
    """Always on the CPU, so that a seed gives the same noise on every GPU."""
    return [
        torch.Generator("cpu").manual_seed(seed) for request in requests for seed in request.seeds
    ]


def readable(text: str) -> str:
    """`text` as a tokenizer accepts it: trimmed, without the lone surrogates that JSON allows."""
    return text.encode("utf-8", "ignore").decode("utf-8").strip()


def as_pictures(pixels: npt.NDArray[np.float32]) -> list[Image.Image]:
    """(pictures, H, W, 3) float32, 0 to 1, as RGB pictures of 8 bits.

    Raises FloatingPointError when a value is NaN, which diffusers would deliver as black.
    """
    if not np.isfinite(pixels).all():
        raise FloatingPointError("Cannot paint: the model answered with NaN or infinity")
    pictures: list[Image.Image] = VaeImageProcessor.numpy_to_pil(pixels)
    return pictures


def callback(on_step: OnStep) -> Callable[..., dict[str, Any]]:
    """`on_step` as diffusers' callback_on_step_end."""

    def after_step(pipe: Any, index: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # Some schedulers take one step more than requested (PNDM).
        on_step(Step(index + 1, pipe.num_timesteps, tensors["latents"]))
        return {}

    return after_step
