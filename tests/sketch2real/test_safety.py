"""safety.py: the checker's word is passed on, and acted on only if asked."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safety import WITHHELD_GREY, SafetyChecker, withheld


@pytest.fixture
def checker(tmp_path: Path) -> SafetyChecker:
    """The real class with random weights."""
    return SafetyChecker(str(tiny.safety_checker(tmp_path / "checker")), "cpu")


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


@pytest.mark.parametrize(("threshold", "expected"), [(2.0, False), (-2.0, True)])
def test_each_picture_is_judged(checker: SafetyChecker, threshold: float, expected: bool) -> None:
    """A similarity above the concepts' thresholds flags; cosines never pass 2 nor miss −2."""
    torch.nn.init.constant_(checker._model.concept_embeds_weights, threshold)
    torch.nn.init.constant_(checker._model.special_care_embeds_weights, 2.0)
    before = [np.asarray(picture).copy() for picture in pictures()]
    seen = pictures()
    assert checker.flags(seen) == [expected, expected]
    assert all((np.asarray(a) == b).all() for a, b in zip(seen, before, strict=True))


def test_pictures_are_prepared_as_clip_does(checker: SafetyChecker) -> None:
    """Same pixels as transformers' own CLIP preprocessing, to two grey levels."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = {"height": 32, "width": 32}
    stock = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=side)
    for picture in pictures():
        ours = checker._prepared(picture)
        theirs = stock(picture, return_tensors="np")["pixel_values"][0]
        assert np.abs(ours - theirs).max() < 2 / 255 / 0.26


def test_only_flagged_pictures_are_withheld() -> None:
    """A withheld picture is plain grey of the same size; the others are untouched."""
    first, second = pictures()
    kept, grey = withheld([first, second], [False, True])
    assert kept is first
    assert grey.size == second.size
    assert grey.getcolors() == [(60 * 40, WITHHELD_GREY)]
