"""The two training stages: pictures as latents (VAE), then latents from lines (diffusion)."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from tools.demo import nets
from tools.demo.loop import Loop
from tools.demo.store import Batch, Pool

CROP_PX = 128
VAE_BATCH = {"cpu": 6, "cuda": 64}
BATCH = {"cpu": 12, "cuda": 128}
SMALL_SHARE = 0.65
"""Of the diffusion: on pictures of half the side, four times as many a step's time. The networks
are convolutions and attention without positions: what they learn there holds at the full side."""
GROW_EVERY = 10
"""Steps after which the pool is asked for new scenes."""

_CHROMA = torch.tensor(((-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)))
"""RGB to Cb and Cr (ITU-T T.871, JFIF)."""


def vae_loss(loop: Loop, pool: Pool) -> Callable[[], torch.Tensor]:
    """Differences of pixels, of gradients at two scales and of chroma, on random crops."""
    vae: Any = loop.modules["vae"]
    chroma_of = _CHROMA.to(loop.device)

    def loss() -> torch.Tensor:
        if loop.step % GROW_EVERY == 0:
            pool.grow()
        whole = loop.progress() > 0.85  # the borders of whole pictures come last
        size = VAE_BATCH[loop.device]
        pictures = pool.batch(max(1, size // 4) if whole else size).pictures
        if not whole:
            top, left = torch.randint(0, pictures.shape[1] - CROP_PX + 1, (2,)).tolist()
            pictures = pictures[:, top : top + CROP_PX, left : left + CROP_PX]
        real = nets.as_input(pictures)
        with torch.autocast(loop.device, torch.bfloat16):
            code = vae.encode(real).latent_dist.mean
            # A little noise, since sampled latents are never exactly encoded ones.
            made = vae.decode(code + 0.05 * torch.randn_like(code)).sample
        off = made.float() - real
        chroma = torch.einsum("kc,nchw->nkhw", chroma_of, off).abs().mean()
        total: torch.Tensor = off.abs().mean() + 4 * off.pow(2).mean() + chroma
        for part in (off, F.avg_pool2d(off, 2)):
            total = (
                total + 0.5 * part.diff(dim=2).abs().mean() + 0.5 * part.diff(dim=3).abs().mean()
            )
        total = total + 1e-4 * code.float().pow(2).mean()
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
    """(N, 256, 256, 3) in 0 to 255 as (N, 8, 32, 32) float32."""
    return torch.cat(
        [vae.encode(nets.as_input(part)).latent_dist.mode() for part in torch.split(pictures, 32)]
    )


def diffusion_loss(loop: Loop, pool: Pool, vae: AutoencoderKL) -> Callable[[], torch.Tensor]:
    """Mean squared error of v (Salimans & Ho 2022) for random noise levels."""
    unet, control, text = (loop.modules[name] for name in ("unet", "controlnet", "text_encoder"))
    alphas = nets.scheduler().alphas_cumprod.to(loop.device)

    def loss() -> torch.Tensor:
        if loop.step % GROW_EVERY == 0:
            pool.grow()
        small = loop.progress() < SMALL_SHARE
        size = BATCH[loop.device] * (2 if small else 1)
        batch = pool.batch(size)
        pictures, sketches, tokens = halved(batch) if small else batch
        with torch.no_grad(), torch.autocast(loop.device, torch.bfloat16):
            real = vae.encode(nets.as_input(pictures)).latent_dist.mode().float()
        times = _times(size, loop.device)
        lines = (sketches.float() / 255)[:, None].expand(-1, 3, -1, -1)
        signal = alphas[times].view(-1, 1, 1, 1)
        noise = torch.randn_like(real)
        noisy = signal.sqrt() * real + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * real
        noisy, lines = (t.contiguous(memory_format=torch.channels_last) for t in (noisy, lines))
        with torch.autocast(loop.device, torch.bfloat16):
            meaning = text(tokens)[0]
            down, middle = control(noisy, times, meaning, lines, return_dict=False)
            made = unet(
                noisy, times, meaning,
                down_block_additional_residuals=down, mid_block_additional_residual=middle,
            ).sample  # fmt: skip
        return F.mse_loss(made.float(), velocity)

    return loss


def halved(batch: Batch) -> Batch:
    """A part of each picture, or each picture shrunk: things as large as ever, or whole."""
    pictures, lines, tokens = batch
    half = pictures.shape[1] // 2
    if torch.rand(()) < 0.5:
        top, left = torch.randint(0, half + 1, (2,)).tolist()
        part = slice(top, top + half), slice(left, left + half)
        return Batch(pictures[:, *part], lines[:, *part], tokens)
    shrunk = F.avg_pool2d(pictures.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return Batch(shrunk, F.avg_pool2d(lines[:, None].float(), 2)[:, 0], tokens)


def _times(count: int, device: str) -> torch.Tensor:
    """Random noise levels, more of the high ones and a tenth at the maximum: with few steps the
    first ones decide the picture."""
    times = (1000 * torch.rand(count, device=device) ** 0.7).long().clamp(0, 999)
    last = torch.rand(count, device=device) < 0.1
    return torch.where(last, torch.full_like(times, 999), times)


def diffusion_modules(tokenizer: CLIPTokenizer, device: str) -> dict[str, nn.Module]:
    """The modules that the second stage trains."""
    unet = nets.unet().to(memory_format=torch.channels_last)
    control = nets.controlnet().to(memory_format=torch.channels_last)
    if device == "cpu":
        for net in (unet, control):
            # Unfused attention: with torch's fused one a step is a third slower in bfloat16 on a
            # CPU (1.02 s against 0.76 s a step of 16 pictures at 128 px, one thread).
            net.set_attn_processor(AttnProcessor())
    modules = {"unet": unet, "controlnet": control, "text_encoder": nets.text_encoder(tokenizer)}
    return {name: module.to(device) for name, module in modules.items()}
