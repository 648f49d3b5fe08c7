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
import tiny
import torch
from controlnet import ControlNetPainter
from errors import OutOfMemory
from klein import KleinPainter
from PIL import Image
from prompt_pieces import MOST_PIECES
from request import OnStep, Painter, Request, Step, as_pictures
from transformers import TokenizersBackend
from transformers.utils import PaddingStrategy
from weights import LOOSE_INSTRUCTION, choose

PRESETS = ("sd15", "sdxl", "klein")


def load(folder: Path) -> Painter:
    preset = choose(str(folder), 0.0, has_bfloat16=False)
    return pipeline.load(preset, "cpu", torch.float32, 0.0)


@pytest.fixture(scope="module")
def painters(folders: dict[str, Path]) -> dict[str, Painter]:
    """Each folder loaded by the production path."""
    return {name: load(folder) for name, folder in folders.items()}


def make_request(**changes: Any) -> Request:
    """Lines at 64 × 96, three steps, seed 5."""
    lines = np.zeros((96, 64, 3), np.uint8)
    lines[20:76, [10, 50]] = lines[[20, 76], 10:51] = 255
    plain = Request(
        control=Image.fromarray(lines),
        prompt="",
        negative_prompt=None,
        control_scale=1.0,
        steps=3,
        guidance_scale=3.0,
        seeds=(5,),
    )
    return replace(plain, **changes)


def silent(_step: Step) -> None:
    """Ignores progress."""


def paint(painter: Painter, request: Request, on_step: OnStep = silent) -> Image.Image:
    """The one picture of `request`."""
    return painter.paint([request], on_step)[0]


def difference(a: Image.Image, b: Image.Image) -> float:
    """The largest difference of two pictures, in 0 to 1."""
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max() / 255)


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


class Stop(BaseException):
    """What coglet throws into a prediction that is cancelled is no Exception either."""


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


def test_klein_lets_its_text_encoder_go(folders: dict[str, Path]) -> None:
    """The encoder is released after set-up; new words bring it back once, known words do not."""
    painter = load(folders["klein"])
    assert isinstance(painter, KleinPainter)
    assert painter._encoder is None
    assert painter._pipe.text_encoder is None
    known = len(painter._embeddings)
    paint(painter, make_request())
    paint(painter, make_request(control_scale=0.2))
    assert len(painter._embeddings) == known
    paint(painter, make_request(prompt="a cat"))
    assert len(painter._embeddings) == known + 1
    assert painter._encoder is None


def test_klein_never_forgets_its_instruction(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many words others have sent, who sends none waits for no encoder; of the words the
    ones not used for longest go."""
    monkeypatch.setattr("embedding_cache.MAX_PROMPTS", 2)
    painter = load(folders["klein"])
    assert isinstance(painter, KleinPainter)
    constant = set(painter._embeddings)
    for words in ("a cat", "a dog", "a cat", "a bird"):
        painter._embed([words])
    assert set(painter._embeddings) == constant | {"a cat", "a bird"}


@pytest.mark.parametrize(("memory_gib", "waits"), [(16.0, True), (80.0, False), (0.0, False)])
def test_on_a_card_for_one_the_transformer_waits_for_the_encoder(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, memory_gib: float, waits: bool
) -> None:
    """New words on a card of 16 GiB: the transformer (7 GiB) leaves it to the encoder (8 GiB)."""
    preset = choose(str(folders["klein"]), 0.0, has_bfloat16=False)
    painter: Any = pipeline.load(preset, "cpu", torch.float32, memory_gib)
    moves: list[str] = []
    move = painter._pipe.transformer.to
    monkeypatch.setattr(
        painter._pipe.transformer, "to", lambda place: (moves.append(place), move(place))[1]
    )
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        patch.setattr(diffusers.Flux2KleinPipeline, "from_pretrained", full)
        if not painter._keep:
            with pytest.raises(OutOfMemory):
                paint(painter, make_request(prompt="a dog"))
    paint(painter, make_request())
    assert moves == (["cpu", painter.device] if waits else []), "the next request has it back"
    moves.clear()
    with_words = paint(painter, make_request(prompt="a cat"))
    assert moves == (["cpu", painter.device] if waits else [])
    assert difference(with_words, paint(load(folders["klein"]), make_request(prompt="a cat"))) == 0


def test_kleins_embeddings_are_those_of_the_live_encoder(folders: dict[str, Path]) -> None:
    """What is computed once at set-up equals what the whole pipeline computes."""
    painter = load(folders["klein"])
    assert isinstance(painter, KleinPainter)
    pipe = diffusers.Flux2KleinPipeline.from_pretrained(folders["klein"])
    for words in (painter.preset.instruction, LOOSE_INSTRUCTION):
        live = pipe.encode_prompt(words)[0]
        assert torch.equal(painter._embeddings[words], live)


def test_klein_follows_loosely_below_half(painters: dict[str, Painter]) -> None:
    """An editing model has no dial: below a strength of 0.5 the instruction changes."""
    painter = painters["klein"]
    assert painter.prompt_for(make_request(control_scale=0.4)) == LOOSE_INSTRUCTION
    assert painter.prompt_for(make_request(control_scale=0.6)) == painter.preset.instruction


def test_an_undistilled_klein_is_guided(tmp_path: Path) -> None:
    """Guidance changes what a base model paints; a distilled one ignores it."""
    base = load(tiny.klein(tmp_path / "base", is_distilled=False))
    weak, strong = (paint(base, make_request(guidance_scale=g)) for g in (1.0, 6.0))
    assert difference(weak, strong) > 0.004


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


def test_klein_says_which_words_it_used(painters: dict[str, Painter]) -> None:
    """Its encoder takes 512 tokens; what does not fit is neither used nor claimed."""
    painter: Any = painters["klein"]
    words = "a red house by the sea, " * 40
    cut = painter.fitted(make_request(prompt=words))
    assert words.startswith(cut.prompt)
    assert 0 < len(cut.prompt) < len(words)
    chat = painter._counter.apply_chat_template(
        [{"role": "user", "content": painter.prompt_for(cut)}], tokenize=False
    )
    assert 500 < len(painter._counter(chat)["input_ids"]) <= 512
    assert painter.fitted(make_request(prompt="a cat")).prompt == "a cat"


@pytest.mark.parametrize("size", [(1280, 832), (832, 1280), (1536, 1024), (2048, 256)])
def test_kleins_reference_has_the_size_of_the_picture(
    size: tuple[int, int], painters: dict[str, Painter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers reduces references above 1024 × 1024 and crops them: lines would drift."""
    painter: Any = painters["klein"]
    seen: list[torch.Tensor] = []

    def spy(images: list[torch.Tensor], *_: object, **__: object) -> None:
        seen.extend(images)
        raise Stop

    monkeypatch.setattr(painter._pipe, "prepare_image_latents", spy)
    with pytest.raises(Stop):
        paint(painter, make_request(control=Image.new("RGB", size)))
    assert [tuple(image.shape[-2:]) for image in seen] == [size[::-1]]


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
