"""caption.py: captions of sketches; where the model fits; no words about paper."""

from pathlib import Path

import pytest
import tiny
import torch
from caption import Florence, source_for, subject
from PIL import Image
from weights import KLEIN, SD15_SCRIBBLE, SDXL_SCRIBBLE, choose


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A drawing of a house.", "a house"),
        ("A black and white drawing of a house on a white background.", "a house"),
        ("a simple line drawing of a cat with whiskers", "a cat with whiskers"),
        ("This is a sketch of two trees and a sun", "two trees and a sun"),
        ("The image shows a pencil sketch of a boat", "a boat"),
        ("A cartoon illustration of a car, in black and white.", "a car"),
        ("Hand-drawn doodle of a flower on the paper", "a flower"),
        ("A house with a black door.", "A house with a black door"),
        ("a painter drawing a picture", "a painter drawing a picture"),
        ("", ""),
    ],
)
def test_what_is_said_of_paper_and_pen_goes(caption: str, expected: str) -> None:
    """The picture is to be of the thing, not of a drawing of it; everything else stays."""
    assert subject(caption) == expected


@pytest.mark.parametrize(
    ("preset", "memory_gib", "asked", "is_loaded"),
    [
        (SDXL_SCRIBBLE, 24.0, None, True),
        (SDXL_SCRIBBLE, 12.0, None, False),  # it would not fit with the model
        (SD15_SCRIBBLE, 8.0, None, True),
        (SD15_SCRIBBLE, 4.0, None, False),
        (SD15_SCRIBBLE, 0.0, None, False),  # no card
        (KLEIN, 80.0, None, False),  # needs no words
        (SDXL_SCRIBBLE, 24.0, "", False),
        (KLEIN, 0.0, "some/model", True),
    ],
)
def test_it_is_off_where_it_does_not_fit(
    preset: object, memory_gib: float, asked: str | None, is_loaded: bool
) -> None:
    """By default only with a ControlNet preset on a GPU with room; `CAPTIONER` overrides."""
    assert bool(source_for(preset, memory_gib, asked)) is is_loaded  # type: ignore[arg-type]


def test_the_demo_needs_no_captioner() -> None:
    """Weights from a folder have none of their own."""
    demo = choose("demo", 80.0, has_bfloat16=True)
    assert source_for(demo, 80.0, None) == ""


def test_florences_own_classes_describe_a_page(tmp_path: Path) -> None:
    """Tiny random weights of the real model and processor, saved and loaded as published ones."""
    florence = Florence(str(tiny.florence(tmp_path)), "cpu", torch.float32)
    page = Image.new("RGB", (100, 60), "white")
    words = florence.describe(page)
    assert isinstance(words, str)
    assert words == florence.describe(page)  # no dice: the same sketch gets the same words
    assert "<" not in words
