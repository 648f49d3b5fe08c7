"""Which Whisper to load, on which device, in which precision: environment and defaults."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import demo_weights
import torch

# The hub ids of OpenAI's own weights, all MIT. No revision is pinned: none could be looked up.
PRESETS: Final[dict[str, str]] = {
    "full": "openai/whisper-large-v3-turbo",
    "large": "openai/whisper-large-v3",
    "small": "openai/whisper-small",
    "base": "openai/whisper-base",
}
DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Choice:
    """What to load. name: for the output; source: a hub id or a folder for `from_pretrained`."""

    name: str
    source: str
    device: torch.device
    dtype: torch.dtype


def choose() -> Choice:
    """Read WEIGHTS, DEVICE and DTYPE; prepare the demo weights if WEIGHTS is demo.

    Raises ValueError when DTYPE is unknown or DEVICE is not there, and
    demo_weights.WeightsUnavailable when the demo weights cannot be downloaded.
    """
    device = _device(os.environ.get("DEVICE", ""))
    # turbo has eleven times the parameters of base: too slow on a CPU.
    wanted = os.environ.get("WEIGHTS", "") or ("full" if device.type == "cuda" else "base")
    dtype_name = os.environ.get("DTYPE", "") or ("float16" if device.type == "cuda" else "float32")
    if dtype_name not in DTYPES:
        raise ValueError(f"Cannot load: DTYPE must be one of {', '.join(DTYPES)}, got {dtype_name}")
    if wanted == "demo":
        return Choice("whisper-base", str(demo_weights.prepare()), device, DTYPES[dtype_name])
    source = PRESETS.get(wanted, wanted)
    name = Path(source).name
    return Choice(name, source, device, DTYPES[dtype_name])


def _device(wanted: str) -> torch.device:
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("Cannot load: DEVICE is cuda, but torch sees no CUDA device")
    return device
