"""run.py with other weights than the demo's: sizes, the safety checker, files."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safety
import tiny
import torch
from errors import InvalidInput
from PIL import Image
from run import Runner


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private temp folder, as the router gives every process one."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Set up with a tiny Stable Diffusion and a tiny checker that objects to everything."""
    monkeypatch.setenv("DEVICE", "cpu")
    weights = tiny.sd15(tmp_path / "sd15")
    sizes = {"paint_area_px": 64 * 64, "max_area_px": 64 * 64, "multiple_px": 16}
    (weights / "sketch2real.json").write_text(json.dumps(sizes), encoding="utf-8")
    monkeypatch.setenv("WEIGHTS", str(weights))
    monkeypatch.setenv("SAFETY_CHECKER", str(tiny.safety_checker(tmp_path / "checker")))
    monkeypatch.setenv("SAFETY_WITHHOLD", "1")
    ready = Runner()
    ready.setup()
    assert ready.checker is not None
    torch.nn.init.constant_(ready.checker._model.concept_embeds_weights, -2.0)
    return ready


def run(runner: Runner, image: Path, **changes: Any) -> Any:
    """`run()` with the defaults that the server would fill in, two steps, a small picture."""
    inputs: dict[str, Any] = {
        "image": image, "prompt": "", "negative_prompt": None, "strength": None, "steps": 2,
        "guidance": None, "seed": 3, "width": 128, "height": 128, "num_outputs": 1,
        "output_format": "png", "previews": False,
    }  # fmt: skip
    return asyncio.run(runner.run(**(inputs | changes)))


def test_flagged_pictures_are_flagged_and_withheld_only_if_asked(
    runner: Runner, page: Image.Image, tmp_path: Path, temp: Path
) -> None:
    """With SAFETY_WITHHOLD=1 a flagged picture is grey; without, it is delivered with its flag."""
    sketch = tmp_path / "page.png"
    page.save(sketch)
    grey = run(runner, sketch)
    assert grey.flagged is True
    assert Image.open(grey.image).getcolors() == [(128 * 128, safety.WITHHELD_GREY)]
    runner.withholds = False
    shown = run(runner, sketch)
    assert shown.flagged is True
    assert np.asarray(Image.open(shown.image)).std() > 1
    assert runner.checker is not None
    torch.nn.init.constant_(runner.checker._model.concept_embeds_weights, 2.0)
    torch.nn.init.constant_(runner.checker._model.special_care_embeds_weights, 2.0)
    assert run(runner, sketch).flagged is False
    assert runner.preset.name == "sd15"
    assert all(path.is_relative_to(temp) for path in (shown.image, shown.control_image))


def test_a_refused_sketch_leaves_no_file(
    runner: Runner, tmp_path: Path, temp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written and nothing painted for a page without lines."""
    sketch = tmp_path / "empty.png"
    Image.new("RGB", (200, 200), "black").save(sketch)
    with pytest.raises(InvalidInput, match="got an empty page"):
        run(runner, sketch)
    assert list(temp.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_an_interrupted_write_leaves_no_file(
    runner: Runner, page: Image.Image, tmp_path: Path, temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while pictures are written does not keep half of them."""
    sketch = tmp_path / "page.png"
    page.save(sketch)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space left"):
            run(runner, sketch, num_outputs=2)
    assert list(temp.iterdir()) == []
    assert len(run(runner, sketch, num_outputs=2).images) == 2


def test_words_no_tokenizer_takes_are_left_out(
    runner: Runner, page: Image.Image, tmp_path: Path, temp: Path
) -> None:
    """JSON can carry half of a surrogate pair: it is dropped, and the answer is valid UTF-8."""
    sketch = tmp_path / "page.png"
    page.save(sketch)
    shown = run(runner, sketch, prompt=" a \ud800dog", negative_prompt="\udfff", guidance=3.0)
    assert "a photograph of a dog," in shown.prompt_used
    assert run(runner, sketch, prompt="\ud800").prompt_used == run(runner, sketch).prompt_used


def test_a_captioner_speaks_for_those_who_say_nothing(
    runner: Runner, page: Image.Image, tmp_path: Path, temp: Path
) -> None:
    """Its words go where a person's would; a person's own words come first."""
    sketch = tmp_path / "page.png"
    page.save(sketch)
    shown: list[Image.Image] = []

    class Watcher:
        def describe(self, paper: Image.Image) -> str:
            shown.append(paper)
            return "a house"

    assert runner.captioner is None
    runner.captioner = Watcher()
    assert "a photograph of a house" in run(runner, sketch).prompt_used
    assert np.asarray(shown[0]).mean() > 128  # dark on light, as captioners know drawings
    assert "a photograph of a dog" in run(runner, sketch, prompt=" a dog ").prompt_used
    assert len(shown) == 1
