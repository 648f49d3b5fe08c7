"""weights.py and hardware.py: what `WEIGHTS` means on which machine."""

import json
import shutil
from pathlib import Path

import hardware
import numpy as np
import pytest
import tiny
import torch
from condition import make_plan
from errors import BadWeights, InvalidInput
from request import refuse_unsuited
from weights import KLEIN, PRESETS, SDXL_SCRIBBLE, Preset, choose

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "sketch2real_memory.jsonl"


@pytest.mark.parametrize(
    ("memory_gib", "has_bfloat16", "expected"),
    [
        (80, True, "klein"),
        (24, True, "klein"),
        (12, True, "sdxl-scribble"),
        (24, False, "sdxl-scribble"),
        (6, True, "sd15-scribble"),
        (2, True, "sd15-scribble"),
        (0, False, "sd15-scribble"),
    ],
)
def test_the_card_decides_by_default(memory_gib: float, has_bfloat16: bool, expected: str) -> None:
    """Unset, the best preset that fits is taken; klein only where there is bfloat16."""
    assert choose("", memory_gib, has_bfloat16=has_bfloat16).name == expected


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_by_name_whatever_the_card(name: str) -> None:
    """Who names a preset gets it."""
    assert choose(name, 0.0, has_bfloat16=False) is PRESETS[name]


def test_demo_is_a_folder_with_its_own_settings() -> None:
    """The demo weights say themselves that they paint at 128 px."""
    demo = choose("demo", 80.0, has_bfloat16=True)
    assert demo.pipeline == "StableDiffusionControlNetPipeline"
    assert demo.areas_px == (128 * 128, 512 * 512, 128 * 128)
    assert (demo.steps, demo.guidance_scale, demo.safety_checker) == (8, 1.0, "")


def test_a_folder_by_its_pipeline_class(tmp_path: Path) -> None:
    """A folder takes the preset of its class, less what that preset mixes in from elsewhere."""
    preset = choose(str(tiny.sdxl(tmp_path / "mine")), 0.0, has_bfloat16=False)
    assert preset.pipeline == "StableDiffusionXLControlNetPipeline"
    assert preset.name == "mine"
    assert (preset.controlnet, preset.vae, preset.unet_file) == ("", "", "")


@pytest.mark.parametrize("name", ["no-such-preset", "nobody/no-such-model", "/no/such/folder"])
def test_unknown_names_fail_without_paths(name: str) -> None:
    """A name that is nothing fails at set-up with the list of what there is."""
    with pytest.raises(BadWeights, match=r"must be a preset .*klein.*demo") as caught:
        choose(name, 0.0, has_bfloat16=False)
    assert "/no/such" not in str(caught.value)


def test_other_pipeline_classes_are_refused(tmp_path: Path) -> None:
    """A text-to-image folder is not half-used."""
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(BadWeights, match="got StableDiffusionPipeline"):
        choose(str(tmp_path), 0.0, has_bfloat16=False)


@pytest.mark.parametrize("key", ["stepz", "source", "pipeline"])
def test_misspelt_overrides_are_refused(tmp_path: Path, key: str, package: Path) -> None:
    """A key that is no setting is an error, not silence."""
    shutil.copy(package / "weights" / "demo" / "model_index.json", tmp_path)
    (tmp_path / "sketch2real.json").write_text(json.dumps({key: 1}))
    with pytest.raises(BadWeights, match=key):
        choose(str(tmp_path), 0.0, has_bfloat16=False)


def test_precision_follows_the_hardware_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision on a card, single on a processor; `DTYPE` and `DEVICE` override."""
    card = hardware.Hardware("cuda", 24.0, has_bfloat16=True)
    assert card.dtype_for("bfloat16") == torch.bfloat16
    assert hardware.Hardware("cpu").dtype_for("bfloat16") == torch.float32
    monkeypatch.setenv("DEVICE", "cpu")
    monkeypatch.setenv("DTYPE", "bf16")
    assert hardware.detect().dtype_for("float16") == torch.bfloat16
    monkeypatch.setenv("DTYPE", "int3")
    with pytest.raises(BadWeights, match="'DTYPE' must be one of"):
        hardware.detect()


def test_a_card_without_bfloat16_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """klein on such a card fails at set-up with what to do; in float32 it may run."""
    old = hardware.Hardware("cuda", 24.0, has_bfloat16=False)
    with pytest.raises(BadWeights, match=r"need bfloat16.*sdxl-scribble"):
        old.dtype_for(PRESETS["klein"].half)
    assert old.dtype_for("float16") == torch.float16
    asked = hardware.Hardware("cuda", 24.0, has_bfloat16=False, dtype=torch.bfloat16)
    with pytest.raises(BadWeights, match=r"'DTYPE' is bfloat16.*leave it out or set float16"):
        asked.dtype_for(PRESETS["sd15-scribble"].half)
    with pytest.raises(BadWeights, match="need bfloat16"):
        asked.dtype_for(PRESETS["klein"].half)
    exact = hardware.Hardware("cuda", 24.0, has_bfloat16=False, dtype=torch.float32)
    assert exact.dtype_for("bfloat16") == torch.float32


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_needs_is_what_was_counted(name: str) -> None:
    """Weights, the largest stage of four pictures, and room for CUDA itself."""
    rows = [
        row
        for row in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
        if row["preset"] == name
    ]
    usual = PRESETS[name].paint_area_px
    weights_gib = sum(row["gib"] for row in rows if row["measure"] == "weights")
    work = [row["gib"] for row in rows if row["measure"] != "weights" and row["area_px"] <= usual]
    assert len(work) >= 3
    assert PRESETS[name].needs_gib >= weights_gib + max(work) + 0.75


@pytest.mark.parametrize(
    ("preset", "size", "steps", "guidance", "words"),
    [
        (SDXL_SCRIBBLE, (None, None), 20, 1.0, "'steps' must be 8"),
        (SDXL_SCRIBBLE, (None, None), 8, 4.0, "'guidance' must be 1"),
        (KLEIN, (2048, 192), 4, 1.0, r"at most 8 times the shorter with klein, got 2048 × 192"),
        (KLEIN, (159, 1087), 4, 1.0, "at most 8 times"),  # rounded to 128 × 1088
    ],
)
def test_what_the_weights_were_not_made_for_is_refused(
    preset: Preset, size: tuple[int, int], steps: int, guidance: float, words: str
) -> None:
    """As input, before anything is painted; the presets' own values pass."""
    with pytest.raises(InvalidInput, match=words):
        refuse_unsuited(preset, size, steps, guidance)
    refuse_unsuited(preset, (1024, None), preset.steps, preset.guidance_scale)
    refuse_unsuited(choose("demo", 0.0, has_bfloat16=False), size, 20, 4.0)


def test_klein_paints_every_size_that_is_not_refused() -> None:
    """Rounded to what the model can paint, no size is over 8 to 1, where diffusers refuses it."""
    lines = np.ones((64, 64), bool)
    for width in range(128, 2049, 64):
        for height in range(128, 2049, 64):
            if max(width, height) <= 8 * min(width, height):
                plan = make_plan(lines, width, height, areas=KLEIN.areas_px, multiple=64)
                assert max(plan.painted) <= 8 * min(plan.painted)
