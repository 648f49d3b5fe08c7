"""The detector: weights, device, precision, and forward passes.

Any checkpoint of the family loads here by transformers' from_pretrained: Grounding DINO,
MM-Grounding-DINO and LLMDet (which has the latter's architecture).
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from features import Levels, LRUCache, Supplied, blocks, padded, rows_of
from PIL import Image
from prediction import DetectInput, Prediction, all_finite
from preprocess import to_tensor
from prompt import Query, delimiters, read_labels
from rows import RowLimit, positions_of
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

# The Pil class by its module: the class of the bare name wants torchvision.
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from weights import Source

TEXT_CACHE_SIZE = 64
"""Text encodings in the cache: 64 chunks of 256 tokens × 768 float32 are at most 50 MB."""

MAX_ROWS = 8
"""Pairs of a picture and a chunk of labels in one pass, where memory allows (rows.py)."""

TEXT_BUCKET = 64
"""In compiled mode prompts are padded to a multiple of this, so that few lengths are compiled."""

Prompt = tuple[int, ...]
"""Token ids."""

_log = logging.getLogger(__name__)

# No bfloat16: its 8 bits moved a score of the drawn weights by 0.16.
_DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Detector:
    """A loaded checkpoint; see prediction.Engine."""

    has_masks = False

    def __init__(
        self,
        source: Source,
        device: str | None = None,
        dtype: str | None = None,
        compiler: str | None = None,
    ) -> None:
        """Load the weights.

        device: "cuda", "cpu", …; None: CUDA if there is one.
        dtype: "float32" or "float16"; None: float16 on CUDA, else float32. The
        weights stay float32 and lower precision is autocast, so that coordinates, softmax and
        grid_sample keep float32: the model cast as a whole gives NaN.
        compiler: a backend of torch.compile ("inductor"); None: not compiled. With one,
        pictures get the nearest of a few sizes, since each new size compiles (preprocess.bucket).
        """
        self.name = source.name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        wanted = dtype or ("float16" if self.device.type == "cuda" else "float32")
        if wanted not in _DTYPES:
            raise ValueError(
                f"Cannot load: DTYPE must be one of {', '.join(_DTYPES)}, got {wanted}"
            )
        self.dtype = _DTYPES[wanted]
        self.compiled = compiler is not None
        kwargs = {"revision": source.revision} if source.revision else {}
        self.tokenizer = AutoTokenizer.from_pretrained(source.location, **kwargs)
        self.image_processor = GroundingDinoImageProcessorPil.from_pretrained(
            source.location, **kwargs
        )
        model = AutoModelForZeroShotObjectDetection.from_pretrained(
            source.location, dtype=torch.float32, **kwargs
        )
        self.model, inner = model.to(self.device).eval(), model.model
        self.max_tokens: int = model.config.max_text_len
        self._delimiters = delimiters(self.tokenizer)
        if compiler is not None:
            _compile((inner.backbone.conv_encoder.model, inner.encoder, inner.decoder), compiler)
        self._text = inner.text_backbone = Supplied(inner.text_backbone)
        self._vision = inner.backbone = Supplied(inner.backbone)
        self._text_cache = LRUCache(TEXT_CACHE_SIZE)
        self._limit = RowLimit(self.device, MAX_ROWS, powers_of_two=self.compiled)

    def read_labels(self, labels: Sequence[str]) -> Query:
        """The labels word by word; see prompt.read_labels."""
        return read_labels(labels, self.tokenizer, self.max_tokens)

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Resize and normalise, on the GPU if there is one: (1, 3, H, W) float32."""
        return to_tensor(picture, self.image_processor, self.device, in_buckets=self.compiled)

    def detect(self, pixels: torch.Tensor, prompts: Sequence[Sequence[int]]) -> list[Prediction]:
        """Predict for one picture, once for each chunk of labels.

        pixels: (1, 3, H, W) float32, normalised. prompts: token ids of each chunk.
        Raises FloatingPointError when detect_many does.
        """
        return self.detect_many([DetectInput(pixels, tuple(map(tuple, prompts)))])[0]

    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """Predict for several pictures of one size in common passes.

        Each picture goes through the vision backbone once, each text that is not in the cache
        through the text backbone once, and their pairs through the rest, MAX_ROWS at a time.

        Raises FloatingPointError when the model answers with NaN or infinity even in float32.
        """
        seen = self._passes(inputs)
        if not all_finite(seen) and self.dtype is not torch.float32:
            # The largest float16 is 65504; the fusion layers' products can exceed it.
            _log.warning("float16 overflowed; continuing in float32")
            self.dtype = torch.float32
            self._text_cache.clear()
            seen = self._passes(inputs)
        if not all_finite(seen):
            raise FloatingPointError("the model answered with NaN or infinity")
        return seen

    @torch.inference_mode()
    def _passes(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        pixels = torch.cat([one.pixels for one in inputs]).to(self.device)
        pairs = [(place, prompt) for place, one in enumerate(inputs) for prompt in one.prompts]
        answers: list[list[Prediction]] = [[] for _ in inputs]
        with self._precision():
            levels = self._see(pixels)
            height, width = pixels.shape[2:]
            need = positions_of(width, height), max(len(prompt) for _, prompt in pairs)
            found = self._limit.run(partial(self._rows, pixels, levels), pairs, need)
        for (place, _), prediction in zip(pairs, found, strict=True):
            answers[place].append(prediction)
        return answers

    def _see(self, pixels: torch.Tensor) -> Levels:
        """Run the vision backbone."""
        count, _, height, width = pixels.shape
        mask = torch.ones((count, height, width), dtype=torch.long, device=self.device)
        if self.compiled:
            pixels, mask = _filled(pixels), _filled(mask)
        levels: Levels = self._vision.module(pixels, mask)
        return levels

    def _rows(
        self, pixels: torch.Tensor, levels: Levels, pairs: Sequence[tuple[int, Prompt]]
    ) -> list[Prediction]:
        """Run the rest of the model on pairs of a picture's index and a prompt."""
        length = max(len(prompt) for _, prompt in pairs)
        filled = list(pairs)
        if self.compiled:
            length = min(-(-length // TEXT_BUCKET) * TEXT_BUCKET, self.max_tokens)
            filled += [filled[-1]] * (_power_of_two(len(pairs)) - len(pairs))
        ids = torch.zeros((len(filled), length), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (_, prompt) in enumerate(filled):
            ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
        texts = padded([self._read(prompt) for _, prompt in filled], length)
        self._text.value = SimpleNamespace(last_hidden_state=texts)
        self._vision.value = rows_of(levels, [place for place, _ in filled])
        try:
            output = self.model(
                pixel_values=pixels[:1].expand(len(filled), -1, -1, -1),  # only its shape is used
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
            )
        finally:  # a pass that failed early has not taken them, and they would stay alive
            self._text.value = self._vision.value = None
        probabilities = output.logits[..., :length].float().sigmoid().cpu().numpy()
        boxes = output.pred_boxes.float().cpu().numpy()
        return [
            Prediction(probabilities[row, :, : len(prompt)], boxes[row])
            for row, (_, prompt) in enumerate(pairs)
        ]

    def _read(self, prompt: Prompt) -> torch.Tensor:
        """(L, D) the text backbone's output for one prompt, cached."""

        def encode() -> torch.Tensor:
            ids = torch.tensor([prompt], device=self.device)
            mask, positions = blocks(prompt, self._delimiters)
            output = self._text.module(
                ids,
                mask[None, None].to(self.device),
                torch.zeros_like(ids),
                positions[None].to(self.device),
                return_dict=True,
            )
            features: torch.Tensor = output.last_hidden_state[0]
            return features

        text: torch.Tensor = self._text_cache.get(prompt, encode)
        return text

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _compile(modules: Sequence[torch.nn.Module], backend: str) -> None:
    """Compile in place, one graph per shape; more than torch's default of 8 shapes are kept."""
    torch._dynamo.config.cache_size_limit = 64
    # Each attention layer reads a scalar to check sizes: without this there are 13 graphs, not 3.
    torch._dynamo.config.capture_scalar_outputs = True
    for module in modules:
        module.compile(backend=backend, dynamic=False)


def _filled(rows: torch.Tensor) -> torch.Tensor:
    """The last row repeated up to a power of two, so that few batch sizes are compiled."""
    missing = _power_of_two(len(rows)) - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
