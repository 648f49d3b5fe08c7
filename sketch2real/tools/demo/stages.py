"""The two training stages: pictures as latents (VAE), then latents from lines (diffusion)."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderTiny
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from tools.demo import nets
from tools.demo.loop import Loop
from tools.demo.store import Batch, Pool

CROP_PX = 64
VAE_BATCH = {"cpu": 24, "cuda": 256}
BATCH = {"cpu": 8, "cuda": 128}
ALONE_SHARE, SMALL_SHARE, LAST_SHARE = 0.15, 0.45, 0.75
"""Of the diffusion, from its start: on scenes of one thing, whose colour word cannot be mistaken;
on pictures of half the side, four times as many in a step's time; at the last time step."""
DYED_WEIGHT = 3.0
"""More weight of what a caption can dye: backgrounds are larger and learnt sooner."""
GROW_EVERY = 10
"""Steps after which the pool is asked for new scenes."""

_YCC = torch.tensor(((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)))
"""RGB to Y, Cb and Cr (ITU-T T.871, JFIF)."""
_SPREAD = torch.tensor((2.0, 5.0, 5.0)).view(3, 1, 1)
"""Brings Y, Cb and Cr of the scenes' pictures, -1 to 1, to a deviation of about 1."""


def vae_loss(loop: Loop, pool: Pool) -> Callable[[], torch.Tensor]:
    """Differences of pixels, of gradients at two scales and of chroma, on random crops.

    Three latent channels are drawn to the mean colour of their 8 × 8 pixels: left to itself the
    VAE learns colours last, and turns turquoise into blue. The others are drawn to mean 0 and
    deviation 1, which the noise of diffusion has.
    """
    vae: Any = loop.modules["vae"]
    ycc, spread = _YCC.to(loop.device), _SPREAD.to(loop.device)

    def loss() -> torch.Tensor:
        if loop.step % GROW_EVERY == 0:
            pool.grow()
        whole = loop.progress() > 0.85  # the borders of whole pictures come last
        size = VAE_BATCH[loop.device]
        pictures = pool.batch(max(1, size // 16) if whole else size).pictures
        if not whole:
            top, left = torch.randint(0, pictures.shape[1] - CROP_PX + 1, (2,)).tolist()
            pictures = pictures[:, top : top + CROP_PX, left : left + CROP_PX]
        real = nets.as_input(pictures)
        with torch.autocast(loop.device, torch.bfloat16):
            code = vae.encode(real).latents
            # A little noise, since painted latents are never exactly encoded ones.
            made = vae.decode(code + 0.1 * torch.randn_like(code)).sample
        off = made.float() - real
        chroma = torch.einsum("kc,nchw->nkhw", ycc[1:], off).abs().mean()
        total: torch.Tensor = off.abs().mean() + 4 * off.pow(2).mean() + 2 * chroma
        for scaled in (off, F.avg_pool2d(off, 2)):
            across, down = (scaled.diff(dim=dim).abs().mean() for dim in (3, 2))
            total = total + 0.5 * across + 0.5 * down
        colour = torch.einsum("kc,nchw->nkhw", ycc, F.avg_pool2d(real, 8)) * spread
        total = total + 0.2 * (code[:, :3].float() - colour).pow(2).mean()
        deviation, mean = torch.std_mean(code[:, 3:].float(), (0, 2, 3))
        return total + 0.1 * (mean.pow(2) + (deviation - 1).pow(2)).mean()

    return loss


@torch.no_grad()
def encode(vae: AutoencoderTiny, pictures: torch.Tensor) -> torch.Tensor:
    """(N, 256, 256, 3) in 0 to 255 as (N, 12, 32, 32) float32."""
    parts = torch.split(pictures, 32)
    return torch.cat([vae.encode(nets.as_input(part)).latents.float() for part in parts])


def diffusion_loss(loop: Loop, pool: Pool, vae: AutoencoderTiny) -> Callable[[], torch.Tensor]:
    """Mean squared error of v (Salimans & Ho 2022).

    From pure noise v is the picture itself, and a caption has one picture: at the last time step
    alone, where training begins, a step learns more about colours than with random noise levels.
    """
    unet, control, text = (loop.modules[name] for name in ("unet", "controlnet", "text_encoder"))
    alphas = nets.scheduler().alphas_cumprod.to(loop.device)

    def loss() -> torch.Tensor:
        if loop.step % GROW_EVERY == 0:
            pool.grow()
        progress = loop.progress()
        pictures, sketches, tokens, dyed = _batch(loop, pool, progress)
        with torch.autocast(loop.device, torch.bfloat16):
            real = encode(vae, pictures)
        times = _times(len(tokens), loop.device, last_share=1.0 if progress < LAST_SHARE else 0.5)
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
        weight = 1 + DYED_WEIGHT * F.adaptive_avg_pool2d(dyed[:, None].float(), real.shape[-1])
        return pyramid_loss(made.float() - velocity, weight)

    return loss


def _batch(loop: Loop, pool: Pool, progress: float) -> Batch:
    """What a step at `progress` is trained on, see `ALONE_SHARE`."""
    size = BATCH[loop.device]
    if progress >= SMALL_SHARE:
        return pool.batch(size)
    return shrunk(pool.batch(2 * size, alone=progress < ALONE_SHARE))


def pyramid_loss(off: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean square of `off` at three scales: coarse ones hold the colours, fine ones also texture,
    much of which nobody can foresee."""
    total = (weight * off.pow(2)).mean()
    for _ in range(2):
        off, weight = F.avg_pool2d(off, 2), F.avg_pool2d(weight, 2)
        total = total + (weight * off.pow(2)).mean()
    return total


def shrunk(batch: Batch) -> Batch:
    """Pictures of half the side."""
    pictures, lines, tokens, dyed = batch
    return Batch(
        F.avg_pool2d(pictures.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1),
        F.avg_pool2d(lines[:, None].float(), 2)[:, 0],
        tokens,
        dyed[:, ::2, ::2],
    )


def _times(count: int, device: str, *, last_share: float) -> torch.Tensor:
    """Random noise levels, more of the high ones and `last_share` at the maximum: with few steps
    the first ones decide the picture."""
    times = (1000 * torch.rand(count, device=device) ** 0.7).long().clamp(0, 999)
    last = torch.rand(count, device=device) < last_share
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
