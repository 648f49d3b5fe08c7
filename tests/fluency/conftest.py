"""Fixtures: the package on the path, the recordings with known truth, the real runner."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[2] / "fluency"
sys.path.insert(0, str(PACKAGE))
os.environ.setdefault("WEIGHTS", "demo")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Waiting threads that spin take the cores from those that work: twice the CPU time on 2 cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import audio  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from vad import SileroVad  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden" / "fluency"
Samples = NDArray[np.float32]


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recordings with known truth; SOURCES.md says where each is from."""
    return GOLDEN


@pytest.fixture(scope="session")
def transcripts(golden: Path) -> dict[str, str]:
    """What is said in each recording."""
    said: dict[str, str] = json.loads((golden / "transcripts.json").read_text())
    return said


@pytest.fixture(scope="session")
def recording(golden: Path) -> Callable[[str], Samples]:
    """Read a golden recording by name: 16 kHz mono samples."""
    return lambda name: audio.read(golden / name).samples


@pytest.fixture(scope="session")
def vad() -> SileroVad:
    """The real VAD."""
    torch.set_num_threads(2)
    return SileroVad.load()


@pytest.fixture(scope="session")
def runner() -> Any:
    """The real runner with the demo weights, set up once."""
    from run import Runner

    torch.set_num_threads(2)
    made = Runner()
    made.setup()
    return made


@pytest.fixture(scope="session")
def measure(runner: Any) -> Callable[..., Any]:
    """Call run() with its defaults, which a call outside coglet would leave as FieldInfo."""

    def call(path: Path, **inputs: Any) -> Any:
        defaults: dict[str, Any] = {
            "language": "auto",
            "pause_threshold": 0.25,
            "transcribe": True,
            "reference_text": None,
            "contours": False,
            "timeline": False,
        }
        return asyncio.run(runner.run(audio=path, **{**defaults, **inputs}))

    return call


@pytest.fixture(scope="session")
def answer_of(measure: Callable[..., Any], golden: Path) -> Callable[[str], Any]:
    """The answer for a golden recording, in English with all defaults; each measured once."""
    return cache(lambda name: measure(golden / name, language="en"))


@pytest.fixture(scope="session")
def two_cities(answer_of: Callable[[str], Any]) -> Any:
    """The answer for the longest recording."""
    return answer_of("two_cities.flac")
