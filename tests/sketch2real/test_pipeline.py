"""pipeline.py: our way through each preset's real classes is diffusers' own, and fails cleanly.

Weights are tiny and random; classes, configuration files and loading are the real ones.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pipeline
import pytest
import torch
from controlnet import ControlNetPainter
from errors import OutOfMemory
from painting import Stop, difference, load, make_request, paint, silent
from PIL import Image
from prompt_pieces import MOST_PIECES
from request import Painter, Request, Step, as_pictures
from transformers import TokenizersBackend
from transformers.utils import PaddingStrategy
from weights import choose

PRESETS = ("sd15", "sdxl", "klein")


def stock(name: str, folder: Path, request: Request) -> np.ndarray:
    """What a user of plain diffusers gets from the same folder: (H, W, 3) float32, 0 to 1."""
    pipe = getattr(diffusers, choose(str(folder), 0.0, has_bfloat16=False).pipeline)
    pipe = pipe.from_pretrained(folder)
    generator = torch.Generator().manual_seed(request.seeds[0])
    preset = choose(str(folder), 0.0, has_bfloat16=False)
    if name == "klein":
        return pipe(
            prompt=preset.instruction,
            image=Image.fromarray(255 - np.asarray(request.control)),
            width=64, height=96, num_inference_steps=request.steps, generator=generator,
            guidance_scale=1.0, output_type="np",
        ).images[0]  # fmt: skip
    return pipe(
        preset.instruction,
        image=request.control, width=64, height=96, negative_prompt=preset.negative,
        num_inference_steps=request.steps, guidance_scale=request.guidance_scale,
        controlnet_conditioning_scale=request.control_scale, guess_mode=preset.guess_mode,
        generator=generator, output_type="np",
    ).images[0]  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_equals_stock_diffusers(
    name: str,
    folders: dict[str, Path],
    painters: dict[str, Painter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The picture is the one plain diffusers paints from the same folder and seed: within 1e-4 in
    every value, before they are rounded."""
    seen: list[np.ndarray] = []

    def watched(pixels: np.ndarray) -> list[Image.Image]:
        seen.append(pixels)
        return as_pictures(pixels)

    for module in ("controlnet", "klein"):
        monkeypatch.setattr(f"{module}.as_pictures", watched)
    picture = paint(painters[name], make_request())
    assert picture.size == (64, 96)
    assert np.asarray(picture).std() > 1
    ((unrounded,),) = seen
    np.testing.assert_allclose(
        unrounded, stock(name, folders[name], make_request()), rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(np.asarray(picture) / 255, unrounded, rtol=0, atol=0.501 / 255)


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_same_picture_after_a_restart(
    name: str, folders: dict[str, Path], painters: dict[str, Painter]
) -> None:
    """Loaded again, a seed gives the same picture, and another seed another."""
    first = paint(painters[name], make_request())
    assert difference(first, paint(load(folders[name]), make_request())) == 0
    assert difference(first, paint(painters[name], make_request(seeds=(6,)))) > 0.01


@pytest.mark.parametrize("name", PRESETS)
def test_painted_together_or_alone_is_the_same(name: str, painters: dict[str, Painter]) -> None:
    """Of requests painted together each gets what it would get alone: its lines, words, seed."""
    upside_down = make_request().control.rotate(180)
    requests = [
        make_request(prompt="a red house"),
        make_request(prompt="a cat", seeds=(6,), negative_prompt="fog"),
        make_request(prompt="a red house", seeds=(7,), control=upside_down),
    ]
    assert len({request.bucket for request in requests}) == 1
    painter = painters[name]
    together = painter.paint(requests, silent)
    for one, request in zip(together, requests, strict=True):
        assert difference(one, paint(painter, request)) <= 1 / 255
    for i, j in ((0, 1), (1, 2), (0, 2)):
        assert difference(together[i], together[j]) > 0.004


@pytest.mark.parametrize("name", PRESETS)
def test_lines_and_words_matter(name: str, painters: dict[str, Painter]) -> None:
    """Other lines or other words give another picture."""
    painter = painters[name]
    usual = paint(painter, make_request())
    blank = Image.new("RGB", (64, 96))
    assert difference(usual, paint(painter, make_request(control=blank))) > 0.004
    assert difference(usual, paint(painter, make_request(prompt="a red house"))) > 0.004
    assert "a red house" in painter.prompt_for(make_request(prompt="a red house"))


@pytest.mark.parametrize("name", PRESETS)
def test_every_step_is_reported_once(name: str, painters: dict[str, Painter]) -> None:
    """In order, up to the number announced, with the latents of all that are painted."""
    seen: list[Step] = []
    painters[name].paint([make_request(), make_request(seeds=(6,))], seen.append)
    announced = seen[0].steps
    assert announced in (3, 4)  # PNDM, which SD 1.5 comes with, takes a step more
    assert [(step.done, step.steps) for step in seen] == [
        (done, announced) for done in range(1, announced + 1)
    ]
    assert all(len(step.latents) == 2 for step in seen)


@pytest.mark.parametrize("name", PRESETS)
def test_cancel_between_steps_leaves_nothing_behind(
    name: str, painters: dict[str, Painter]
) -> None:
    """Stopped after its first step, a painter paints the next request as if nothing had been."""
    before = paint(painters[name], make_request())
    steps: list[int] = []

    def cancel(step: Step) -> None:
        steps.append(step.done)
        raise Stop

    with pytest.raises(Stop):
        paint(painters[name], make_request(seeds=(9,)), cancel)
    assert steps == [1]
    assert difference(before, paint(painters[name], make_request())) == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "shortage",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
     RuntimeError("DefaultCPUAllocator: can't allocate memory")],
    ids=["cuda", "python", "cpu"],
)  # fmt: skip
def test_out_of_memory_is_reported_and_survived(
    name: str, shortage: Exception, painters: dict[str, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture too large fails with a sentence; the next request is painted."""
    painter: Any = painters[name]
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise shortage

        patch.setattr(painter._pipe.vae, "decode", fail)
        with pytest.raises(OutOfMemory, match="Cannot paint 64 × 96: out of memory"):
            paint(painter, make_request())
    assert paint(painter, make_request()).size == (64, 96)


@pytest.mark.parametrize("name", PRESETS)
def test_nan_is_an_error_not_a_black_picture(
    name: str, painters: dict[str, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision can overflow: that fails by name, and the next request is painted."""
    painter: Any = painters[name]
    decode = painter._pipe.vae.decode
    with monkeypatch.context() as patch:
        patch.setattr(
            painter._pipe.vae, "decode", lambda z, **options: decode(z * float("nan"), **options)
        )
        with pytest.raises(FloatingPointError, match="NaN"):
            paint(painter, make_request())
    assert np.asarray(paint(painter, make_request())).std() > 1


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_known_words_are_not_encoded_again(name: str, folders: dict[str, Path]) -> None:
    """The constant words and those met lately cost nothing; the picture is the same."""
    painter: Any = load(folders[name])
    calls: list[int] = []
    painter._pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    first = paint(painter, make_request(prompt="a cat"))
    assert len(calls) == 2  # what is wanted, and what is not
    assert difference(first, paint(painter, make_request(prompt="a cat"))) == 0
    assert len(calls) == 2
    paint(painter, make_request(prompt="a dog"))
    assert len(calls) == 3


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_words_beyond_77_tokens_count(name: str, painters: dict[str, Painter]) -> None:
    """In pieces; what even those do not hold is not in `prompt_used`. Each batch has one length."""
    painter = painters[name]
    words = "a red house by the sea, " * 10

    def fitted(prompt: str) -> Request:
        return painter.fitted(make_request(prompt=prompt))

    short, long, other = fitted("a cat"), fitted(words + "a cat"), fitted(words + "a tree")
    assert long.pieces > short.pieces == 1
    assert long.bucket != short.bucket
    assert long.prompt == words + "a cat"
    picture = paint(painter, long)
    assert difference(picture, paint(painter, other)) > 0
    together = painter.paint([long, other], silent)
    assert difference(together[0], picture) <= 1 / 255
    cut = fitted(words * 20)
    assert cut.pieces == MOST_PIECES
    assert (words * 20).startswith(cut.prompt)
    assert cut.prompt in painter.prompt_for(cut)
    assert len(cut.prompt) < len(words * 20)


@pytest.mark.parametrize("name", PRESETS)
def test_words_are_counted_while_others_are_encoded(
    name: str,
    folders: dict[str, Path],
    painters: dict[str, Painter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """transformers sets the padding and encodes afterwards; a count between changes nothing."""
    painter = load(folders[name])
    request = make_request(prompt="a tree")
    set_both = TokenizersBackend.set_truncation_and_padding
    between: list[Request] = []

    def interrupted(tokenizer: TokenizersBackend, **settings: Any) -> None:
        set_both(tokenizer, **settings)
        if settings["padding_strategy"] != PaddingStrategy.DO_NOT_PAD:
            between.append(painter.fitted(make_request(prompt="a house")))

    with monkeypatch.context() as patch:
        patch.setattr(TokenizersBackend, "set_truncation_and_padding", interrupted)
        picture = paint(painter, request)
    assert between
    assert difference(picture, paint(painters[name], request)) == 0


def test_guess_mode_only_without_words(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SD 1.5 lets the lines lead alone when there are no words, and listens when there are."""
    painter = load(folders["sd15"])
    assert isinstance(painter, ControlNetPainter)
    asked: list[bool] = []
    call = type(painter._pipe).__call__

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["guess_mode"])
        return call(*args, **kwargs)

    monkeypatch.setattr(type(painter._pipe), "__call__", spy)
    paint(painter, make_request())
    paint(painter, make_request(prompt="a cat"))
    assert asked == [True, False]


@pytest.mark.parametrize("name", PRESETS)
def test_warming_changes_no_picture(name: str, painters: dict[str, Painter]) -> None:
    """The steps painted at set-up, one in each common shape, leave no trace in what follows."""
    painter = painters[name]
    small = replace(painter.preset, paint_area_px=96 * 96, multiple_px=16)
    before = paint(painter, make_request())
    painter.preset = small
    assert pipeline.warm(painter) == 3  # at this size, two pairs of shapes round to the same
    assert difference(before, paint(painter, make_request())) == 0


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_a_tokenizer_that_names_no_limit(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """CLIP's is assumed; transformers would pad to a number that no tokenizer takes."""
    folder = Path(shutil.copytree(folders[name], tmp_path / "copy"))
    for config in folder.glob("tokenizer*/tokenizer_config.json"):
        settings = json.loads(config.read_text(encoding="utf-8"))
        del settings["model_max_length"]
        config.write_text(json.dumps(settings), encoding="utf-8")
    assert paint(load(folder), make_request(prompt="a house")).size == (64, 96)
