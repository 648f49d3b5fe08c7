"""sketch2real's folder first on sys.path, as coglet puts it; a page to draw from."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

PACKAGE = Path(__file__).parents[2] / "sketch2real"
sys.path.insert(0, str(PACKAGE))
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the hub must fail at once

torch.set_num_threads(1)  # tiny models: a second thread only waits for a busy core


@pytest.fixture(scope="session")
def package() -> Path:
    """The package's folder."""
    return PACKAGE


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each preset's class with tiny random weights, saved to a folder."""
    import tiny  # it imports the models' libraries, which most tests do without

    root = tmp_path_factory.mktemp("tiny")
    makers = {"sd15": tiny.sd15, "sdxl": tiny.sdxl, "klein": tiny.klein}
    return {name: make(root / name) for name, make in makers.items()}


@pytest.fixture(scope="session")
def painters(folders: dict[str, Path]) -> Any:
    """Each folder's painter."""
    from painting import Painters

    return Painters(folders)


@pytest.fixture
def page() -> Image.Image:
    """A white page with a black square, a circle and a diagonal."""
    picture = Image.new("RGB", (320, 240), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((60, 80, 140, 160), outline="black", width=4)
    pen.ellipse((180, 60, 260, 140), outline="black", width=4)
    pen.line((40, 200, 280, 190), fill="black", width=4)
    return picture


@pytest.fixture
def pixels(page: Image.Image) -> np.ndarray:
    """`page` as (240, 320, 3) uint8."""
    return np.asarray(page)
