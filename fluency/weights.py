"""Which Whisper to load, on which device, in which precision: environment and defaults."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import demo_weights
import int8
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
    "int8": torch.float16,  # until they are converted: half the memory
}


@dataclass(frozen=True)
class Choice:
    """What to load. name: for the output; source: a hub id or a folder for `from_pretrained`.

    dtype: what the weights are loaded in; is_int8: the large ones become int8 after that.
    """

    name: str
    source: str
    device: torch.device
    dtype: torch.dtype
    is_int8: bool = False


def choose() -> Choice:
    """Read WEIGHTS, DEVICE and DTYPE; prepare the demo weights if WEIGHTS is demo.

    Raises ValueError when DTYPE is unknown or not for this device, or DEVICE is not there, and
    demo_weights.WeightsUnavailable when the demo weights cannot be downloaded.
    """
    device = _device(os.environ.get("DEVICE", ""))
    # turbo has eleven times the parameters of base: too slow on a CPU.
    wanted = os.environ.get("WEIGHTS", "") or ("full" if device.type == "cuda" else "base")
    dtype_name = os.environ.get("DTYPE", "") or _default_dtype(device)
    if dtype_name not in DTYPES:
        raise ValueError(f"Cannot load: DTYPE must be one of {', '.join(DTYPES)}, got {dtype_name}")
    if dtype_name == "int8" and (device.type != "cpu" or not int8.is_possible()):
        raise ValueError(f"Cannot load: DTYPE int8 is for processors with VNNI, not for {device}")
    precision = (device, DTYPES[dtype_name], dtype_name == "int8")
    if wanted == "demo":
        return Choice("whisper-base", str(demo_weights.prepare()), *precision)
    source = PRESETS.get(wanted, wanted)
    return Choice(Path(source).name, source, *precision)


def _default_dtype(device: torch.device) -> str:
    if device.type != "cpu":
        return "float16"
    return "int8" if int8.is_possible() else "float32"


def _device(wanted: str) -> torch.device:
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("Cannot load: DEVICE is cuda, but torch sees no CUDA device")
    return device
