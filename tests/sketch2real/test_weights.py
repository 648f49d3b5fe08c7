"""weights.py and hardware.py: what `WEIGHTS` means on which machine."""

import json
import shutil
from pathlib import Path

import hardware
import pytest
import tiny
import torch
from errors import BadWeights
from weights import PRESETS, choose


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
