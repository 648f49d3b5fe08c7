"""Captions a sketch, for models that need a prompt where the request has none.

Florence-2 (Xiao et al. 2024, MIT) by its own classes in transformers. It is loaded only where it
fits on the GPU together with the model: see `source_for`.
"""

import re
from typing import Any, Protocol

import torch
from PIL import Image
from transformers import AutoProcessor, Florence2ForConditionalGeneration
from weights import Preset

TASK = "<CAPTION>"
LONGEST_TOKENS = 40
NEEDS_GIB = 2.5
"""For Florence-2-large: 0.77 billion parameters in half precision and room to work; an estimate."""

# "a black and white drawing of a house" describes the paper; the prompt must be "a house".
_ABOUT_PAPER = re.compile(
    r"^(?:(?:this|the image|it) (?:is|shows) )?(?:(?:an?|the) )?"
    r"(?:(?:simple|rough|black|white|and|pencil|hand|hand-drawn|drawn|line|ink|child's|cartoon"
    r"|vector|outline|stock|coloring|page)\W+)*"
    r"(?:drawing|sketch|doodle|illustration|outline|picture|image|art|cartoon|page|line art)s?"
    r" (?:of|showing|with|depicting) ",
    re.IGNORECASE,
)
_ON_PAPER = re.compile(
    r" (?:drawn |sketched )?(?:on|against|with) (?:an? |the )?(?:(?:plain|black|white) )*"
    r"(?:background|paper|page|sheet|piece of paper)\b.*$|,? in black and white\b.*$",
    re.IGNORECASE,
)


class Captioner(Protocol):
    """Describes a drawing."""

    def describe(self, paper: Image.Image) -> str:
        """What RGB `paper` (dark lines on white) shows, "" if unknown."""
        ...


class Florence:
    """Florence-2 with its <CAPTION> task: one short sentence."""

    def __init__(self, source: str, device: str, dtype: torch.dtype) -> None:
        """source: hub id or folder in transformers' own format, not the one with remote code."""
        self._device, self._dtype = device, dtype
        self._processor: Any = AutoProcessor.from_pretrained(source)
        model: Any = Florence2ForConditionalGeneration.from_pretrained(source, dtype=dtype)
        self._model = model.to(device).eval()

    def describe(self, paper: Image.Image) -> str:
        inputs = self._processor(text=TASK, images=paper, return_tensors="pt")
        with torch.no_grad():
            tokens = self._model.generate(
                **inputs.to(self._device, self._dtype),
                max_new_tokens=LONGEST_TOKENS,
                num_beams=3,
                do_sample=False,
            )
        return subject(self._processor.batch_decode(tokens, skip_special_tokens=True)[0])


def subject(caption: str) -> str:
    """`caption` without its words about paper and pen.

    >>> subject("A black and white drawing of a house on a white background.")
    'a house'
    """
    plain = _ABOUT_PAPER.sub("", caption.strip().rstrip("."))
    return _ON_PAPER.sub("", plain).strip().rstrip(".,").strip()


def source_for(preset: Preset, memory_gib: float, asked: str | None) -> str:
    """What to load the captioner from, "" for none.

    asked: the value of `CAPTIONER`: a hub id or a folder, "" for none, None (unset) for the
    preset's own if it fits on a GPU of `memory_gib` together with the model.
    """
    if asked is not None:
        return asked
    return preset.captioner if memory_gib >= preset.needs_gib + NEEDS_GIB else ""
