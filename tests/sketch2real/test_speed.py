"""speed.py: placing on a card, warming, quantising; what cannot be done fails at set-up."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pipeline
import pytest
import speed
import torch
from errors import BadWeights
from PIL import Image
from request import Request
from weights import choose


class Pipe:
    """Remembers how it was placed."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.vae = self
        self.unet = torch.nn.Linear(2, 2)
        self.config = SimpleNamespace(block_out_channels=(1, 2))

    def set_progress_bar_config(self, *, disable: bool) -> None:
        assert disable

    def enable_model_cpu_offload(self, device: str) -> None:
        self.done.append(f"offload to {device}")

    def enable_slicing(self) -> None:
        self.done.append("slice")

    def to(self, *where: str, **_: Any) -> None:
        self.done += where

    def decode(self) -> None: ...

    def fuse_qkv_projections(self) -> None:
        """diffusers' way, which keeps the separate projections too."""
        self.done.append("fuse and keep")


@pytest.mark.parametrize(
    ("memory_gib", "quantise", "expected"),
    [
        (24.0, "", ["slice", "cuda", "fuse", "fuse"]),
        (8.0, "", ["slice", "offload to cuda"]),
        (8.0, "int8", ["slice", "cuda"]),  # fused projections would be new, unquantised layers
    ],
)
def test_a_card_too_small_gets_the_parts_in_turns(
    memory_gib: float, quantise: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the preset's need against the card's memory; quantised it needs less."""
    monkeypatch.setenv("QUANTIZE", quantise)
    preset = choose("sdxl-scribble", memory_gib, has_bfloat16=True)
    pipe = Pipe()
    monkeypatch.setattr(speed, "fuse", lambda _part: pipe.done.append("fuse"))
    speed.place(pipe, preset, "cuda", memory_gib)
    assert pipe.done == expected


def test_unknown_quantisations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt value fails at set-up with the list of what there is."""
    monkeypatch.setenv("QUANTIZE", "int3")
    with pytest.raises(BadWeights, match="'QUANTIZE' must be one of int8, fp8, got int3"):
        speed.asked_quantisation()


def test_without_torchao_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao is not among the requirements; the error says what to install."""
    monkeypatch.setenv("QUANTIZE", "int8")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(BadWeights, match="pip install torchao"):
        speed.quantised(Pipe(), "unet")


@pytest.mark.parametrize("name", ["sd15", "sdxl", "klein"])
def test_int8_paints_nearly_the_same(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every denoiser's linear layers are quantised, and the picture stays the same to the eye."""
    pytest.importorskip("torchao")
    preset = choose(str(folders[name]), 0.0, has_bfloat16=False)
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[20:40, 10:50] = 255
    request = Request(Image.fromarray(lines), "", None, 1.0, 3, 1.0, (5,))
    pictures = []
    for kind in ("", "int8"):
        monkeypatch.setenv("QUANTIZE", kind)
        painter: Any = pipeline.load(preset, "cpu", torch.float32, 0.0)
        pictures.append(np.asarray(painter.paint([request], lambda _step: None)[0], float))
    denoiser = getattr(painter._pipe, "unet", None) or painter._pipe.transformer
    kinds = {type(layer.weight).__name__ for layer in linear_layers(denoiser)}
    assert kinds == {"Int8Tensor"}
    other_seed = Request(Image.fromarray(lines), "", None, 1.0, 3, 1.0, (6,))
    other = np.asarray(painter.paint([other_seed], lambda _step: None)[0], float)
    changed = np.abs(pictures[0] - pictures[1]).mean()
    assert 0 < changed < 0.25 * np.abs(other - pictures[1]).mean()


def test_what_the_device_cannot_do_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp8 needs compute capability 8.9; a processor has none."""
    pytest.importorskip("torchao")
    monkeypatch.setenv("QUANTIZE", "fp8")
    with pytest.raises(BadWeights, match="cannot do 'QUANTIZE'=fp8"):
        speed.quantised(Pipe(), "unet")


def linear_layers(model: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_free_memory_of_a_card_by_any_name(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """torch takes "cuda" for most of its questions about memory, but not for the fraction: there
    its own check of the index runs."""
    cuda = torch.cuda
    monkeypatch.setattr(cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(cuda, "current_device", lambda: 0)
    shares = {0: 0.5, 1: 0.25}
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", shares.get, raising=False)
    monkeypatch.setattr(cuda, "mem_get_info", lambda _: (90, 100))
    monkeypatch.setattr(cuda, "memory_reserved", lambda _: 20)
    monkeypatch.setattr(cuda, "memory_allocated", lambda _: 5)
    allowed = {"cuda": 50, "cuda:1": 25}[device]
    assert speed.free_bytes(device) == allowed - 5
