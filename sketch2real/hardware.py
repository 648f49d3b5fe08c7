"""The device and precision of this machine, read once at set-up."""

import os
from dataclasses import dataclass

import torch
from errors import BadWeights

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Hardware:
    """device: as torch names it ("cuda", "cuda:1", "cpu").

    memory_gib: total memory of the accelerator in GiB, 0 without one.
    has_bfloat16: whether the accelerator supports bfloat16 (Ampere and later).
    dtype: the precision that `DTYPE` names, None to let the preset choose.
    """

    device: str
    memory_gib: float = 0.0
    has_bfloat16: bool = False
    dtype: torch.dtype | None = None

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def dtype_for(self, half: str) -> torch.dtype:
        """The precision to load in: `DTYPE`, else `half` on an accelerator, else float32.

        Raises BadWeights when this accelerator has no bfloat16 and that is it.
        """
        chosen = self.dtype or (_DTYPES[half] if self.is_cuda else torch.float32)
        if chosen is torch.bfloat16 and self.is_cuda and not self.has_bfloat16:
            if half != "bfloat16":  # only `DTYPE` asks for it
                raise BadWeights(
                    "Cannot start: 'DTYPE' is bfloat16, which this GPU does not have; leave it "
                    "out or set float16"
                )
            raise BadWeights(
                "Cannot start: these weights need bfloat16, which this GPU does not have; set "
                "'WEIGHTS' to sdxl-scribble or sd15-scribble, or 'DTYPE' to float32"
            )
        return chosen


def detect() -> Hardware:
    """The CUDA device if there is one, else the CPU; `DEVICE` and `DTYPE` override.

    Raises BadWeights when `DTYPE` is none of float32, float16, bfloat16.
    """
    device = os.environ.get("DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    name = os.environ.get("DTYPE", "")
    if name and name not in _DTYPES:
        raise BadWeights(f"Cannot start: 'DTYPE' must be one of {', '.join(_DTYPES)}, got {name}")
    dtype = _DTYPES.get(name)
    if not device.startswith("cuda"):
        return Hardware(device, dtype=dtype)
    properties = torch.cuda.get_device_properties(device)
    return Hardware(
        device,
        memory_gib=properties.total_memory / 2**30,
        has_bfloat16=properties.major >= 8,
        dtype=dtype,
    )
