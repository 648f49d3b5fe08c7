"""The detector: weights, device, precision, and one forward pass at a time.

Any checkpoint of the family loads here by transformers' from_pretrained: Grounding DINO,
MM-Grounding-DINO and LLMDet (which has the latter's architecture).
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

# The Pil class by its module: the class of the bare name wants torchvision.
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from weights import Source

TEXT_CACHE_SIZE = 64
"""Text encodings kept: 64 chunks of 256 tokens × 768 float32 are at most 50 MB."""

_log = logging.getLogger(__name__)

# No bfloat16: its 8 bits moved a score of the demo weights by 0.16.
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Prediction(NamedTuple):
    """What the model says about one picture and one chunk of labels."""

    token_probabilities: NDArray[np.float32]
    """(queries, tokens), 0 to 1."""
    boxes: NDArray[np.float32]
    """(queries, 4) centre x, centre y, width, height, as fractions of the picture."""


class Remembering(nn.Module):
    """A module that need not run twice on what it has seen.

    The caller names the input by setting `key` before the forward pass: comparing tensors would
    cost a transfer from the GPU. Without a key the module runs as it is.
    """

    def __init__(self, module: nn.Module, capacity: int) -> None:
        super().__init__()
        self.module = module
        self.key: object = None
        self._capacity = capacity
        self._seen: OrderedDict[object, Any] = OrderedDict()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.key is None:
            return self.module(*args, **kwargs)
        if self.key not in self._seen:
            self._seen[self.key] = self.module(*args, **kwargs)
            while len(self._seen) > self._capacity:
                self._seen.popitem(last=False)
        self._seen.move_to_end(self.key)
        return _fresh(self._seen[self.key])

    def forget(self) -> None:
        """Drop everything remembered, and the key."""
        self._seen.clear()
        self.key = None

    def __getattr__(self, name: str) -> Any:
        # The model around it reaches for attributes of the backbone (position_embedding).
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _fresh(value: Any) -> Any:
    """A copy of the lists around the tensors: the model appends to what its backbone returns."""
    if type(value) in (list, tuple):
        return type(value)(map(_fresh, value))
    return value


class Detector:
    """A loaded checkpoint, ready to look at pictures."""

    def __init__(self, source: Source, device: str | None = None, dtype: str | None = None) -> None:
        """Load the weights.

        device: "cuda", "cpu", …; None: CUDA if there is one.
        dtype: "float32" or "float16"; None: float16 on CUDA, else float32. The
        weights stay float32 and lower precision is autocast, so that coordinates, softmax and
        grid_sample keep float32: the model cast as a whole gives NaN.
        """
        self.name = source.name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        wanted = dtype or ("float16" if self.device.type == "cuda" else "float32")
        if wanted not in _DTYPES:
            raise ValueError(
                f"Cannot load: DTYPE must be one of {', '.join(_DTYPES)}, got {wanted}"
            )
        self.dtype = _DTYPES[wanted]
        kwargs = {"revision": source.revision} if source.revision else {}
        self.tokenizer = AutoTokenizer.from_pretrained(source.location, **kwargs)
        self.image_processor = GroundingDinoImageProcessorPil.from_pretrained(
            source.location, **kwargs
        )
        model = AutoModelForZeroShotObjectDetection.from_pretrained(
            source.location, dtype=torch.float32, **kwargs
        )
        self.model = model.to(self.device).eval()
        self.max_tokens: int = model.config.max_text_len
        inner = self.model.model
        self._text = inner.text_backbone = Remembering(inner.text_backbone, TEXT_CACHE_SIZE)
        self._vision = inner.backbone = Remembering(inner.backbone, 1)

    def detect(self, pixels: torch.Tensor, prompts: Sequence[Sequence[int]]) -> list[Prediction]:
        """Look at one picture, once for each chunk of labels; the backbone runs once in all.

        pixels: (1, 3, H, W) float32, normalised. prompts: token ids of each chunk.
        Raises: FloatingPointError if the model answers with NaN or infinity even in float32.
        """
        seen = self._passes(pixels.to(self.device), prompts)
        if not _finite(seen) and self.dtype is not torch.float32:
            # float16 ends at 65504, and the fusion layers' products can go beyond.
            _log.warning("float16 overflowed; going on in float32")
            self.dtype = torch.float32
            self._text.forget()
            seen = self._passes(pixels.to(self.device), prompts)
        if not _finite(seen):
            raise FloatingPointError("the model answered with NaN or infinity")
        return seen

    @torch.inference_mode()
    def _passes(self, pixels: torch.Tensor, prompts: Sequence[Sequence[int]]) -> list[Prediction]:
        self._vision.key = "this picture" if len(prompts) > 1 else None
        try:
            return [self._forward(pixels, prompt) for prompt in prompts]
        finally:
            self._vision.forget()

    def _forward(self, pixels: torch.Tensor, prompt: Sequence[int]) -> Prediction:
        ids = torch.tensor([list(prompt)], device=self.device)
        self._text.key = tuple(prompt)
        with self._precision():
            output = self.model(pixel_values=pixels, input_ids=ids)
        probabilities = output.logits[0, :, : ids.shape[1]].float().sigmoid()
        return Prediction(probabilities.cpu().numpy(), output.pred_boxes[0].float().cpu().numpy())

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _finite(predictions: Sequence[Prediction]) -> bool:
    return all(np.isfinite(array).all() for prediction in predictions for array in prediction)
