"""Puts a loaded pipeline on its device and makes it faster.

`tune` changes the picture by 1e-5 at most (float32). `quantised` changes it visibly, but less than
another seed does, and only where `QUANTIZE` is set.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from errors import BadWeights
from weights import Preset

PARTS = ("unet", "controlnet", "vae")
"""The convolutional parts; a diffusion transformer gains nothing from the memory format."""

QUANTISATIONS = {
    "int8": "Int8WeightOnlyConfig",
    "fp8": "Float8DynamicActivationFloat8WeightConfig",
}
"""`QUANTIZE` and torchao's name for it: int8 weights halve the memory on any GPU; fp8 for weights
and activations also doubles the rate of the matrix products, from compute capability 8.9 on."""


DECODE_BYTES_PER_PX = 1536
"""Most live bytes of the decoder per pixel of one picture, in half precision, as counted with fake
tensors (bench/results/sketch2real_memory.jsonl): 1.5 GiB at 1024 × 1024. Twice that in float32."""

TILE_PX = 512
"""Side of a tile where a whole picture cannot be decoded: 0.4 GiB in half precision."""


def place(
    pipe: Any, preset: Preset, device: str, memory_gib: float, *, offload: bool = False
) -> None:
    """Put `pipe` on `device` and tune it; on a GPU too small for it, off-load its parts.

    offload: off-load them in any case.
    """
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.enable_slicing()  # decodes one picture at a time; the same pixels
    needed = preset.needs_gib * (0.6 if asked_quantisation() else 1.0)
    if offload or (memory_gib and memory_gib < needed):
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
        tune(pipe, device)
    if device.startswith("cuda"):
        decode_by_free_memory(pipe.vae, lambda: free_bytes(device))


def decode_by_free_memory(vae: Any, free: Callable[[], int]) -> None:
    """Let `vae` decode in tiles whenever the free memory is too small for a whole picture.

    free: the bytes that can be allocated now. Tiles change the picture slightly where they meet.
    """
    whole = vae.decode
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.tile_sample_min_size = TILE_PX
    vae.tile_latent_min_size = TILE_PX // scale

    @functools.wraps(whole)
    def decode(latents: torch.Tensor, *args: Any, **options: Any) -> Any:
        hook = getattr(vae, "_hf_hook", None)
        if hook is not None:  # the off-loaded UNet leaves before the memory is measured
            hook.pre_forward(vae)
        pixels = latents.shape[-2] * latents.shape[-1] * scale**2
        needed = pixels * DECODE_BYTES_PER_PX * latents.element_size() // 2
        vae.use_tiling = needed > free()
        return whole(latents, *args, **options)

    vae.decode = decode


def free_bytes(device: str) -> int:
    """Bytes of the GPU that torch may still take, and those that it keeps without using them.

    torch may be told to take a part of the GPU only (`set_per_process_memory_fraction`).
    """
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    # This function refuses "cuda" without a number, the others take it.
    share = torch.cuda.get_per_process_memory_fraction(torch.device(device).index)
    allowed = total * share - reserved
    return int(min(free, allowed)) + reserved - torch.cuda.memory_allocated(device)


def is_offloaded(pipe: Any) -> bool:
    """Whether its parts come to the device only while they are used."""
    return bool(getattr(pipe, "_all_hooks", []))


def tune(pipe: Any, device: str) -> None:
    """Convolutions in channels-last order; on an accelerator, attention's three projections fused.

    `COMPILE=1` also compiles the repeated blocks (diffusers' regional compilation): the first
    pictures then take a minute or so longer and the others are faster. Off by default, since a
    server that starts on demand would compile at every start.

    Measured on a CPU with the demo weights: channels-last takes 10 % off. The gains on a GPU are
    those of diffusers' documentation ("Accelerate inference"), not measured here.
    """
    for name in PARTS:
        part = getattr(pipe, name, None)
        if part is not None:
            part.to(memory_format=torch.channels_last)
    # Fused projections are new, unquantised layers.
    if device.startswith("cuda") and not asked_quantisation() and fuses(pipe):
        for part in (pipe.unet, pipe.vae):
            fuse(part)
    if is_compiling():
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        denoiser.compile_repeated_blocks(fullgraph=True)


def fuse(part: Any) -> None:
    """Compute query, key and value of `part`'s attention in one product, in the same memory.

    diffusers' own `fuse_qkv_projections` keeps the separate projections too: SDXL's UNet would grow
    from 4.8 to 6.0 GiB.
    """
    layers = [layer for layer in part.modules() if isinstance(layer, Attention)]
    for layer in layers:
        if not layer.fused_projections:
            is_cross = layer.is_cross_attention
            with torch.no_grad():
                layer.fuse_projections(fuse=True)
            for name in ("to_k", "to_v") if is_cross else ("to_q", "to_k", "to_v"):
                delattr(layer, name)
    if layers:  # a small VAE has none
        part.set_attn_processor(FusedAttnProcessor2_0())


def fuses(pipe: Any) -> bool:
    """Whether its attention can compute query, key and value in one product."""
    return hasattr(pipe, "fuse_qkv_projections")


def is_compiling() -> bool:
    """Whether `COMPILE=1` is set."""
    return os.environ.get("COMPILE", "") == "1"


def asked_quantisation() -> str:
    """The value of `QUANTIZE`, "" for none.

    Raises BadWeights when it is neither int8 nor fp8.
    """
    kind = os.environ.get("QUANTIZE", "")
    if kind and kind not in QUANTISATIONS:
        raise BadWeights(
            f"Cannot start: 'QUANTIZE' must be one of {', '.join(QUANTISATIONS)}, got {kind}"
        )
    return kind


def quantised(pipe: Any, part: str) -> Any:
    """`pipe` with the linear layers of its denoiser `part` quantised as `QUANTIZE` says.

    Raises BadWeights when torchao is not installed or cannot do it on this card.
    """
    kind = asked_quantisation()
    if not kind:
        return pipe
    try:
        from torchao import quantization  # noqa: PLC0415 -- optional: it costs 0.4 s to import
    except ImportError as error:
        raise BadWeights(
            "Cannot start: 'QUANTIZE' needs torchao; pip install torchao==0.18.0, or unset it"
        ) from error
    config = getattr(quantization, QUANTISATIONS[kind])()
    try:
        quantization.quantize_(getattr(pipe, part), config)
    except (AssertionError, RuntimeError) as error:
        raise BadWeights(f"Cannot start: this device cannot do 'QUANTIZE'={kind}") from error
    return pipe
