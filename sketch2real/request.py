"""What is ordered from a model, and what every model offers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from weights import Preset


@dataclass(frozen=True)
class Step:
    """What is known after a denoising step.

    done, steps: of the whole way, 1 to steps. latents: (pictures, …) as the model keeps them.
    """

    done: int
    steps: int
    latents: torch.Tensor


OnStep = Callable[[Step], None]
"""Called after each denoising step; what it raises ends the painting."""


@dataclass(frozen=True)
class Request:
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

    def each(self) -> list["Request"]:
        """One request per picture."""
        return [replace(self, seeds=(seed,)) for seed in self.seeds]

    @property
    def bucket(self) -> tuple[object, ...]:
        """Orders of equal buckets can be painted together: what the model takes once per call."""
        return (
            self.control.size,
            self.steps,
            self.guidance_scale,
            self.control_scale,
            bool(self.prompt),  # guess mode is for those without words
        )


class Painter(Protocol):
    """A loaded model. Not safe for two threads at once."""

    preset: Preset
    device: str
    together: int
    """How many pictures it paints at once at most. On a processor one: more would only make all
    wait for the last."""

    def prompt_for(self, request: Request) -> str:
        """The words that the model is given for `request`, "" if none."""
        ...

    def paint(self, requests: Sequence[Request], on_step: OnStep) -> list[Image.Image]:
        """One RGB picture per request, in the size of its control picture.

        requests: of one picture and one bucket each. Picture i depends on request i alone, not on
        what is painted with it.

        Raises: OutOfMemory: it did not fit; what was allocated is freed. FloatingPointError: the
        model answered with NaN.
        """
        ...

    def preview(
        self, request: Request, before: torch.Tensor, after: torch.Tensor, done: int
    ) -> Image.Image | None:
        """A small picture of what step `done` heads for; None if that cannot be told now.

        before, after: (1, …), latents of the request's picture as two successive `Step`s have them.
        """
        ...


def generators(requests: Sequence[Request]) -> list[torch.Generator]:
    """On the processor always: a seed then gives the same noise on every card."""
    return [
        torch.Generator("cpu").manual_seed(seed) for request in requests for seed in request.seeds
    ]


def readable(text: str) -> str:
    """`text` as a tokenizer takes it: trimmed, without the unpaired surrogates JSON can carry."""
    return text.encode("utf-8", "ignore").decode("utf-8").strip()


def as_pictures(pixels: npt.NDArray[np.float32]) -> list[Image.Image]:
    """(pictures, H, W, 3) float32, 0 to 1, as RGB pictures of 8 bits.

    Raises: FloatingPointError: a NaN, which diffusers would deliver as black.
    """
    if not np.isfinite(pixels).all():
        raise FloatingPointError("Cannot paint: the model answered with NaN or infinity")
    pictures: list[Image.Image] = VaeImageProcessor.numpy_to_pil(pixels)
    return pictures


def callback(on_step: OnStep) -> Callable[..., dict[str, Any]]:
    """`on_step` as diffusers calls it."""

    def after_step(pipe: Any, index: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # Some schedulers take a step more than asked for (PNDM).
        on_step(Step(index + 1, pipe.num_timesteps, tensors["latents"]))
        return {}

    return after_step
