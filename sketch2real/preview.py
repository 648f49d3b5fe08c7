"""Small pictures of the intermediate results while a picture is painted."""

import base64
import io
from typing import Any

import diffusers
import torch
from PIL import Image
from torch.nn import functional as F

SIDE_PX = 128
"""Longer side of a preview; as WebP it takes 2 to 5 kB."""

MOST_NOISE = 2.0
"""More hides the picture, which is the point of a preview."""

Level = tuple[float, float]
"""(a, s): latents are a × picture + s × noise."""


def level(scheduler: Any, position: int) -> Level:
    """Of the latents before step `position`; after the last step they are all picture."""
    if position >= len(scheduler.timesteps):
        return 1.0, 0.0
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        sigma = float(scheduler.sigmas[position])
        return 1.0 - sigma, sigma
    if isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        return 1.0, float(scheduler.sigmas[position])
    kept = float(scheduler.alphas_cumprod[int(scheduler.timesteps[position])])
    return kept**0.5, (1.0 - kept) ** 0.5


def clean_estimate(
    before: torch.Tensor, level_before: Level, after: torch.Tensor, level_after: Level
) -> torch.Tensor | None:
    """The noise-free picture that two successive latents lead to.

    A deterministic step keeps the picture x and the noise e in a x + s e (Song et al. 2021, DDIM,
    equation 12), so two of them can be solved for x. For samplers that remember earlier steps it is
    an approximation. None if the step changed nothing (PNDM repeats a step).
    """
    (a, s), (b, r) = level_before, level_after
    if abs(s * b - r * a) < 1e-6:
        return None
    return (s * after.float() - r * before.float()) / (s * b - r * a)


def noise_of(level: Level) -> float:
    """How much noise a preview shows, for each part of picture: `MOST_NOISE` × the share of noise
    in the latents. 0 after the last step."""
    picture, noise = level
    return MOST_NOISE * noise / (picture + noise)


def decoded_small(
    pipe: Any, latents: torch.Tensor, size: tuple[int, int], noise: float
) -> Image.Image:
    """(1, C, h, w) `latents`, scaled as the VAE takes them, decoded at `SIDE_PX` or below.

    size: of the whole picture, in px. noise: what is shown of it, for each part of picture: what
    the next steps may still change. Without it few-step models seem to be done at once. It is added
    after the reduction, which would average it away, and is the same for every preview.
    """
    share = SIDE_PX / max(size)
    with torch.no_grad():
        if share < 1:
            # Latents average as pictures do, roughly; decoding costs by the pixel.
            to = [max(2, round(side * share)) for side in latents.shape[-2:]]
            latents = F.interpolate(latents.float(), to, mode="area")
        same = torch.Generator().manual_seed(0)
        grain = torch.randn(latents.shape, generator=same).to(latents)
        latents = latents + noise * latents.std() * grain
        pixels = pipe.vae.decode(latents.to(pipe.vae.dtype), return_dict=False)[0]
    picture: Image.Image = pipe.image_processor.postprocess(pixels, output_type="pil")[0]
    return picture


def as_data_uri(picture: Image.Image) -> str:
    """`picture` as a WebP data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
