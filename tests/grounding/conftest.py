"""Put the package's folder first on the path, as coglet does, and load the weights once."""

import asyncio
import os
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

PACKAGE = Path(__file__).parents[2] / "grounding"
sys.path.insert(0, str(PACKAGE))
os.environ["WEIGHTS"] = "drawn"
os.environ["DEVICE"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(2)
# On a busy machine an example may take any time.
hypothesis.settings.register_profile("grounding", deadline=None)
hypothesis.settings.load_profile("grounding")


@pytest.fixture(scope="session")
def detector():
    """The drawn weights, loaded by the production path."""
    from model import Detector
    from weights import resolve

    return Detector(resolve("drawn"), "cpu", "float32")


@pytest.fixture(scope="session")
def tokenizer(detector):
    """The BERT tokenizer of the drawn weights (the full 30,522-word vocabulary)."""
    return detector.tokenizer


@pytest.fixture(scope="session")
def runner():
    """The runner, set up."""
    from run import Runner

    runner = Runner()
    runner.setup()
    yield runner
    runner.batcher.close()


def with_defaults(runner, image, inputs):
    """What coglet would call: inputs by name, defaults applied."""
    import inspect

    from cog import Path as CogPath

    defaults = {
        name: parameter.default.default
        for name, parameter in inspect.signature(runner.run).parameters.items()
        if name != "image"
    }
    return runner.run(CogPath(str(image)), **{**defaults, **inputs})


@pytest.fixture(scope="session")
def ask(runner):
    """Call the runner as coglet would: a coroutine."""
    return lambda image, **inputs: with_defaults(runner, image, inputs)


@pytest.fixture(scope="session")
def call(runner):
    """Call the runner as coglet would."""
    return lambda image, **inputs: asyncio.run(with_defaults(runner, image, inputs))


@pytest.fixture(scope="session")
def call_many(runner):
    """Several calls at once; answers or errors, in order."""

    def run(image, asked):
        async def gather():
            calls = (with_defaults(runner, image, inputs) for inputs in asked)
            return await asyncio.gather(*calls, return_exceptions=True)

        return asyncio.run(gather())

    return run


@pytest.fixture(scope="session")
def shapes_png():
    """The sample: red circle, blue square, yellow star, green triangle; 480 × 360 px."""
    return PACKAGE / "samples" / "shapes.png"


@pytest.fixture(scope="session")
def shapes(shapes_png):
    """The sample picture, decoded."""
    with Image.open(shapes_png) as image:
        return image.convert("RGB")


@pytest.fixture
def noise():
    """A small RGB picture of seeded noise, 64 × 48 px."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
