"""How much memory does each full preset of sketch2real need? Counted, without a GPU.

The presets' architectures in the published sizes run on fake tensors (shapes without data), and
the bytes that live are counted as an allocator would: the weights of each part, and the most that
lives besides in the decoder, klein's encoder and a denoising step of 1, 2 and 4 pictures. The
`needs_gib` of sketch2real/weights.py comes from here. Rows: bench/results/sketch2real_memory.jsonl,
written over each time.

    python bench/sketch2real_memory.py
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "sketch2real"), str(ROOT / "tests" / "sketch2real")]

import pipeline
import sketch2real_models
import weights
from gpu_figures import GIB
from live_bytes import LiveBytes
from torch._subclasses.fake_tensor import FakeTensorMode

RESULTS = ROOT / "bench" / "results" / "sketch2real_memory.jsonl"


def main() -> None:
    """Count each preset."""
    rows = []
    for preset in weights.PRESETS.values():
        for row in counted(preset):
            rows.append(json.dumps(row))
            print(rows[-1], flush=True)
    RESULTS.write_text("\n".join(rows) + "\n", encoding="utf-8")


def counted(preset: weights.Preset) -> Iterator[dict[str, Any]]:
    """The rows of one preset."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if preset.half == "bfloat16" else torch.float16)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            yield from _counted(preset, sketch2real_models.MAKERS[preset.name]())
    finally:
        torch.set_default_dtype(before)


def _counted(preset: weights.Preset, pipe: Any) -> Iterator[dict[str, Any]]:
    constant = {"bench": "sketch2real_memory", "preset": preset.name}
    models = {
        name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)
    }
    for name, model in models.items():
        # klein's encoder is gone while a picture is painted.
        if not (preset.name == "klein" and name == "text_encoder"):
            size = sum(weight.nbytes for weight in model.parameters()) / GIB
            yield constant | {"measure": "weights", "of": name, "gib": round(size, 2)}
    for area in (preset.paint_area_px, preset.max_area_px):
        for stage, (together, work) in _stages(preset, pipe, round(area**0.5)).items():
            with LiveBytes(models.values()) as live:
                work()
            yield constant | {
                "measure": stage, "together": together, "area_px": area,
                "gib": round(live.peak / GIB, 2),
            }  # fmt: skip


def _stages(
    preset: weights.Preset, pipe: Any, side: int
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name: how many pictures at once, and the work."""
    stages: dict[str, tuple[int, Callable[[], object]]] = {
        "decode": (1, lambda: _decode(pipe, side))
    }
    if preset.name == "klein":
        stages["encode"] = (1, lambda: pipe.vae.encode(torch.empty(1, 3, side, side)))
    for count in (1, 2, pipeline.TOGETHER):
        stages[f"step of {count}"] = (count, lambda count=count: _step(pipe, preset, side, count))
    return stages


def _decode(pipe: Any, side: int) -> None:
    scale = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    channels = pipe.vae.config.latent_channels
    pipe.vae.decode(torch.empty(1, channels, side // scale, side // scale), return_dict=False)


def _step(pipe: Any, preset: weights.Preset, side: int, together: int) -> None:
    """One call of the denoiser (and the ControlNet), guided as the preset is."""
    if preset.name == "klein":
        tokens = 2 * (side // 16) ** 2  # the picture's and the reference's
        pipe.transformer(
            hidden_states=torch.empty(together, tokens, 128),
            timestep=torch.ones(together),
            guidance=None,
            encoder_hidden_states=torch.empty(together, 512, 7680),
            txt_ids=torch.zeros(together, 512, 4),
            img_ids=torch.zeros(together, tokens, 4),
            return_dict=False,
        )
        return
    batch = together * (2 if preset.guidance_scale > 1 else 1)
    latents = torch.empty(batch, 4, side // 8, side // 8)
    words = torch.empty(batch, 77, pipe.unet.config.cross_attention_dim)
    more: dict[str, Any] = {}
    if preset.name == "sdxl-scribble":
        more["added_cond_kwargs"] = {
            "text_embeds": torch.empty(batch, 1280), "time_ids": torch.empty(batch, 6),
        }  # fmt: skip
    down, middle = pipe.controlnet(
        latents, torch.tensor(1.0), encoder_hidden_states=words,
        controlnet_cond=torch.empty(batch, 3, side, side), return_dict=False, **more,
    )  # fmt: skip
    pipe.unet(
        latents, torch.tensor(1.0), encoder_hidden_states=words, return_dict=False,
        down_block_additional_residuals=down, mid_block_additional_residual=middle, **more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
