"""The two training stages: pictures as latents (VAE), then latents from lines (diffusion)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from tools.demo import nets
from tools.demo.loop import Loop

VAE_BATCH, CROP_PX = 12, 64
BATCH = 16

_CHROMA = torch.tensor(((-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)))
"""RGB to Cb and Cr (ITU-T T.871, JFIF)."""


def vae_loss(loop: Loop, pictures: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Differences of pixels, of gradients and of chroma, on random crops.

    pictures: (N, 128, 128, 3) uint8.
    """
    vae: Any = loop.modules["vae"]

    def loss() -> torch.Tensor:
        whole = loop.progress() > 0.85  # the borders of whole pictures come last
        chosen = pictures[
            torch.randint(0, len(pictures), (VAE_BATCH // 3 if whole else VAE_BATCH,))
        ]
        if not whole:
            top, left = torch.randint(0, pictures.shape[1] - CROP_PX + 1, (2,)).tolist()
            chosen = chosen[:, top : top + CROP_PX, left : left + CROP_PX]
        real = nets.as_input(chosen)
        with torch.autocast("cpu", torch.bfloat16):
            code = vae.encode(real).latent_dist.mean
            # A little noise, since sampled latents are never exactly encoded ones.
            made = vae.decode(code + 0.05 * torch.randn_like(code)).sample
        off = made.float() - real
        edges = sum(part.abs().mean() for part in (off.diff(dim=2), off.diff(dim=3)))
        chroma = torch.einsum("kc,nchw->nkhw", _CHROMA, off).abs().mean()
        size = 1e-4 * code.float().pow(2).mean()
        total: torch.Tensor = off.abs().mean() + 4 * off.pow(2).mean() + 0.5 * edges + chroma + size
        return total

    return loss


@torch.no_grad()
def whiten(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Bring each latent channel of `pictures` to mean 0 and deviation 1, within the VAE's weights.

    Its log variance becomes constant and small: the encoder is then nearly deterministic.
    """
    codes = encode(vae, pictures)
    mean, deviation = codes.mean((0, 2, 3)), codes.std((0, 2, 3))
    to_code, from_code, count = vae.quant_conv, vae.post_quant_conv, nets.LATENT_CHANNELS
    to_code.weight[:count] /= deviation[:, None, None, None]
    to_code.bias[:count] = (to_code.bias[:count] - mean) / deviation
    to_code.weight[count:], to_code.bias[count:] = 0, -12
    from_code.bias += from_code.weight[:, :, 0, 0] @ mean
    from_code.weight *= deviation[None, :, None, None]


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """(N, 128, 128, 3) uint8 as (N, 4, 32, 32) float32."""
    return torch.cat(
        [vae.encode(nets.as_input(part)).latent_dist.mode() for part in torch.split(pictures, 32)]
    )


def diffusion_loss(
    loop: Loop, latents: torch.Tensor, sketches: torch.Tensor, prompts: list[str], tokenizer: Any
) -> Callable[[], torch.Tensor]:
    """Mean squared error of v (Salimans & Ho 2022) for random noise levels.

    latents: (N, 4, 32, 32). sketches: (N, 128, 128) uint8.
    """
    unet, control, text = (loop.modules[name] for name in ("unet", "controlnet", "text_encoder"))
    alphas = nets.scheduler().alphas_cumprod
    vocabulary = sorted(set(prompts))
    number = {prompt: index for index, prompt in enumerate(vocabulary)}
    spoken = torch.tensor([number[prompt] for prompt in prompts])
    tokens = tokenizer(
        vocabulary, padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids

    def loss() -> torch.Tensor:
        chosen = torch.randint(0, len(latents), (BATCH,))
        real, times = latents[chosen].float(), _times(BATCH)
        lines = (sketches[chosen].float() / 255)[:, None].expand(-1, 3, -1, -1)
        signal = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(real)
        noisy = signal.sqrt() * real + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * real
        noisy, lines = (t.contiguous(memory_format=torch.channels_last) for t in (noisy, lines))
        with torch.autocast("cpu", torch.bfloat16):
            distinct, place = torch.unique(spoken[chosen], return_inverse=True)
            meaning = text(tokens[distinct])[0][place]
            down, middle = control(noisy, times, meaning, lines, return_dict=False)
            made = unet(
                noisy, times, meaning,
                down_block_additional_residuals=down, mid_block_additional_residual=middle,
            ).sample  # fmt: skip
        return F.mse_loss(made.float(), velocity)

    return loss


def _times(count: int) -> torch.Tensor:
    """Random noise levels, more of the high ones and a tenth at the maximum: with few steps the
    first ones decide the picture."""
    times = (1000 * torch.rand(count) ** 0.7).long().clamp(0, 999)
    return torch.where(torch.rand(count) < 0.1, torch.full_like(times, 999), times)


def diffusion_modules(tokenizer: CLIPTokenizer) -> dict[str, nn.Module]:
    """The modules that the second stage trains."""
    unet = nets.unet().to(memory_format=torch.channels_last)
    control = nets.controlnet().to(memory_format=torch.channels_last)
    for net in (unet, control):
        # Unfused attention: with torch's fused one a step is a third slower in bfloat16 on a CPU
        # (1.02 s against 0.76 s a step of 16 pictures, one thread).
        net.set_attn_processor(AttnProcessor())
    return {"unet": unet, "controlnet": control, "text_encoder": nets.text_encoder(tokenizer)}


def as_tensor(arrays: list[np.ndarray[Any, Any]]) -> torch.Tensor:
    """The arrays stacked."""
    return torch.from_numpy(np.stack(arrays))
