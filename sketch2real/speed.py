"""Puts a loaded pipeline on its device and makes it faster.

`tune` changes the picture by 1e-5 at most (float32). `quantised` changes it visibly, but less than
another seed does, and only where `QUANTIZE` is set.
"""

import os
from typing import Any

import torch
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


def place(pipe: Any, preset: Preset, device: str, memory_gib: float) -> None:
    """Put `pipe` on `device` and tune it; on a GPU too small for it, off-load its parts."""
    pipe.set_progress_bar_config(disable=True)
    if memory_gib and memory_gib < preset.needs_gib * (0.6 if asked_quantisation() else 1.0):
        pipe.enable_model_cpu_offload(device=device)
        pipe.vae.enable_slicing()  # decodes one picture at a time; the same pixels
    else:
        pipe.to(device)
        tune(pipe, device)


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
        pipe.fuse_qkv_projections()
    if is_compiling():
        denoiser = getattr(pipe, "unet", None) or pipe.transformer
        denoiser.compile_repeated_blocks(fullgraph=True)


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
