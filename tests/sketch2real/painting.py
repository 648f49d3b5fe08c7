"""Painters of tiny weights, what they are asked to paint, and how two pictures differ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pipeline
import torch
from PIL import Image
from request import OnStep, Painter, Request, Step
from weights import choose


def load(folder: Path) -> Painter:
    preset = choose(str(folder), 0.0, has_bfloat16=False)
    return pipeline.load(preset, "cpu", torch.float32, 0.0)


class Stop(BaseException):
    """What coglet throws into a prediction that is cancelled is no Exception either."""


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


class Painters(dict[str, Painter]):
    """Each folder's painter, loaded by the production path when it is first asked for."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__()
        self._folders = folders

    def __missing__(self, name: str) -> Painter:
        self[name] = load(self._folders[name])
        return self[name]
