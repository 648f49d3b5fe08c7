"""klein.py: its instruction, its text encoder that comes and goes, its reference picture."""

from pathlib import Path
from typing import Any

import diffusers
import pipeline
import pytest
import tiny
import torch
from errors import OutOfMemory
from klein import KleinPainter
from painting import Stop, difference, load, make_request, paint
from PIL import Image
from request import Painter
from weights import LOOSE_INSTRUCTION, choose


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
