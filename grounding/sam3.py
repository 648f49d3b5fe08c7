"""SAM 3: boxes and masks of what words name, one label at a time.

transformers' Sam3Model, called with the picture's features and the label's features that were
computed before: a picture goes through the backbone once, whatever the number of labels. The
geometry encoder, for which the library wants torchvision, is never called: there are no box
prompts.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from errors import InvalidInput
from features import LRUCache
from PIL import Image
from prediction import DetectInput, MaskGrid, Prediction, all_finite
from prompt import Chunk, Query
from rows import Need, RowLimit
from torch import nn
from transformers import CLIPTokenizer

# By its module: of the bare name the library gives a placeholder where there is no torchvision.
from transformers.models.sam3.modeling_sam3 import Sam3MaskDecoderOutput, Sam3Model
from weights import Source

MAX_ROWS = 8
"""Pairs of a picture and a label in one pass, where memory allows (rows.py)."""

TEXT_CACHE_SIZE = 2048
"""Labels whose features are in the cache: 32 tokens × 256 float32 each, at most 67 MB."""

MOST_MASKS = 1000
"""Of one request, those of the best scores: 83 MB at the published size."""

BYTES_PER_PATCH = 24_000
BYTES_PER_PATCH_WITH_MASK = 75_000
"""Upper bound of a row's need in float32, from counting the live bytes of a pass at the published
width; tests/grounding/test_sam3.py counts again."""

MEAN = STD = 0.5
"""As the published processor normalises."""

Prompt = tuple[int, ...]
"""Token ids of one label."""

Pair = tuple[int, Prompt]
"""A picture's index and a label."""

_log = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Sam3Detector:
    """A loaded checkpoint; see prediction.Engine."""

    has_masks = True

    def __init__(self, source: Source, device: str | None = None, dtype: str | None = None) -> None:
        """Load the weights.

        device: "cuda", "cpu", …; None: CUDA if there is one. dtype: "float32", "float16" or
        "bfloat16"; None: on CUDA bfloat16 where the card has it, else float16; on a CPU float32.
        The weights stay float32 and lower precision is autocast.

        Raises ValueError when dtype is none of these, OSError when the weights are not to be had.
        """
        self.name = source.name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        wanted = dtype or _usual_precision(self.device)
        if wanted not in _DTYPES:
            raise ValueError(
                f"Cannot load: DTYPE must be one of {', '.join(_DTYPES)}, got {wanted}"
            )
        self.dtype = _DTYPES[wanted]
        kwargs = {"revision": source.revision} if source.revision else {}
        self.tokenizer = CLIPTokenizer.from_pretrained(source.location, **kwargs)
        model = Sam3Model.from_pretrained(source.location, dtype=torch.float32, **kwargs)
        self.model = model.to(self.device).eval()
        self.side_px = int(model.config.vision_config.backbone_config.image_size)
        self.max_tokens: int = model.config.text_config.max_position_embeddings
        patch_px = int(model.config.vision_config.backbone_config.patch_size)
        self._patches = (self.side_px // patch_px) ** 2
        self._masks = model.mask_decoder = _Optional(model.mask_decoder)
        self._text_cache = LRUCache(TEXT_CACHE_SIZE)
        self._limit = RowLimit(self.device, MAX_ROWS, estimate=bytes_of_row)

    def read_labels(self, labels: Sequence[str]) -> Query:
        """One chunk for each label, whose only token stands for the whole label.

        Raises InvalidInput when a label has more tokens than the model's text length.
        """
        tokens = self.tokenizer(list(labels), add_special_tokens=False)["input_ids"]
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        chunks = []
        for index, of_label in enumerate(tokens):
            # A label may spell a special token, which would end it for the model.
            ids = tuple(one for one in of_label if one not in (begin, end))
            if len(ids) > self.max_tokens - 2:
                raise InvalidInput(
                    f"Cannot search: label {index + 1} of 'text_queries' must have at most "
                    f"{self.max_tokens - 2} tokens, got {len(ids)}"
                )
            if ids:
                chunks.append(Chunk((begin, *ids, end), (index,), (((0, 1),),)))
        known = {index for chunk in chunks for index in chunk.label_indices}
        if not known:
            raise InvalidInput(
                "Cannot search: 'text_queries' must hold words that the model knows, got none"
            )
        return Query(chunks, frozenset(range(len(labels))) - known, {})

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Stretch to the model's square and normalise: (1, 3, H, W) float32.

        The resize is torch's own of 8-bit pictures, which transformers' processor calls through
        torchvision: the result is the same to the bit.
        """
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        square = F.interpolate(
            pixels, (self.side_px, self.side_px), mode="bilinear", antialias=True
        )
        return (square.float() - 255 * MEAN) / (255 * STD)

    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """For each input a prediction per label: score and box of each query, and masks.

        The inputs of one call either all want masks or none does.
        Raises FloatingPointError when the model answers with NaN or infinity even in float32.
        """
        seen = self._passes(inputs)
        if not all_finite(seen) and self.dtype is not torch.float32:
            _log.warning("%s overflowed; continuing in float32", self.dtype)
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
        self._masks.is_wanted = any(one.masks_from is not None for one in inputs)
        with self._precision():
            levels = self._see(pixels)
            work = partial(self._rows, levels, [one.masks_from for one in inputs])
            need = self._patches, int(self._masks.is_wanted)
            # In groups, so that no more masks than MOST_MASKS of a request are kept for long.
            for first in range(0, len(pairs), 8 * MAX_ROWS):
                group = pairs[first : first + 8 * MAX_ROWS]
                found = self._limit.run(work, group, need)
                for (place, _), prediction in zip(group, found, strict=True):
                    answers[place].append(prediction)
                answers = [_best_masks(of_input) for of_input in answers]
        return answers

    def _see(self, pixels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Feature map and positions of each level that this pass needs, coarsest last."""
        seen = self.model.get_vision_features(pixels)
        levels = list(zip(seen.fpn_hidden_states, seen.fpn_position_encoding, strict=True))
        # The model leaves the last one out. Without masks it looks at the one before it only.
        return levels[:-1] if self._masks.is_wanted else levels[-2:-1]

    def _rows(
        self,
        levels: Sequence[tuple[torch.Tensor, torch.Tensor]],
        masks_from: Sequence[float | None],
        pairs: Sequence[Pair],
    ) -> list[Prediction]:
        """Run the rest of the model on pairs of a picture's index and a label."""
        texts = torch.stack([self._read(prompt) for _, prompt in pairs])
        mask = torch.stack([_mask(prompt, self.max_tokens) for _, prompt in pairs])
        places = [place for place, _ in pairs]
        maps = [_of_pictures(features, places) for features, _ in levels]
        positions = [_of_pictures(position, places) for _, position in levels]
        output = self.model(
            vision_embeds=SimpleNamespace(
                fpn_hidden_states=(*maps, maps[-1]),
                fpn_position_encoding=(*positions, positions[-1]),
                hidden_states=None,
                attentions=None,
            ),
            text_embeds=SimpleNamespace(pooler_output=texts),
            attention_mask=mask.to(self.device),
        )
        scores = output.pred_logits.float().sigmoid() * output.presence_logits.float().sigmoid()
        corners = output.pred_boxes.float()
        low, high = corners[..., :2], corners[..., 2:]
        boxes = torch.cat([(low + high) / 2, high - low], dim=-1).cpu().numpy()
        every = scores.cpu().numpy()
        return [
            Prediction(
                every[row, :, None],
                boxes[row],
                {}
                if (least := masks_from[place]) is None
                else _grids(output.pred_masks[row], np.flatnonzero(every[row] >= least)),
            )
            for row, place in enumerate(places)
        ]

    def _read(self, prompt: Prompt) -> torch.Tensor:
        """(max_tokens, D) features of one label, cached."""

        def encode() -> torch.Tensor:
            mask = _mask(prompt, self.max_tokens)
            ids = torch.full((self.max_tokens,), prompt[-1])
            ids[: len(prompt)] = torch.tensor(prompt)
            text = self.model.get_text_features(
                input_ids=ids[None].to(self.device), attention_mask=mask[None].to(self.device)
            )
            features: torch.Tensor = text.pooler_output[0]
            return features

        text: torch.Tensor = self._text_cache.get(prompt, encode)
        return text

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


class _Optional(nn.Module):
    """The mask decoder, which a pass without masks leaves out: most of a row's memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.is_wanted = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs) if self.is_wanted else Sam3MaskDecoderOutput()


def bytes_of_row(need: Need) -> float:
    """What a row takes; need: patches of the picture, and 1 with masks, else 0."""
    patches, with_mask = need
    return patches * (BYTES_PER_PATCH_WITH_MASK if with_mask else BYTES_PER_PATCH)


def _usual_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _mask(prompt: Prompt, length: int) -> torch.Tensor:
    return (torch.arange(length) < len(prompt)).long()


def _of_pictures(features: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """The features of these pictures, in this order; of a single one without a copy."""
    if len(set(places)) == 1:
        first = places[0]
        return features[first : first + 1].expand(len(places), *features.shape[1:])
    return features.index_select(0, torch.tensor(list(places), device=features.device))


def _grids(logits: torch.Tensor, queries: np.ndarray[Any, Any]) -> dict[int, MaskGrid]:
    """Masks of some queries. logits: (Q, H, W)."""
    chosen = logits[torch.from_numpy(queries).to(logits.device)].float()
    levels = (chosen.sigmoid() * 255 - 0.5).ceil()  # one half is not in the mask, as in stock
    grids = levels.to(torch.uint8).cpu().numpy()
    return {int(query): grid for query, grid in zip(queries, grids, strict=True)}


def _best_masks(predictions: list[Prediction]) -> list[Prediction]:
    """A request's predictions with no more than MOST_MASKS masks, those of the best scores."""
    if sum(len(one.masks) for one in predictions) <= MOST_MASKS:
        return predictions
    ranked = sorted(
        (-float(one.token_probabilities[query, 0]), number, query)
        for number, one in enumerate(predictions)
        for query in one.masks
    )
    best = {(number, query) for _, number, query in ranked[:MOST_MASKS]}
    # Copies, since each is a view of all masks of its label.
    return [
        one._replace(masks={q: g.copy() for q, g in one.masks.items() if (number, q) in best})
        for number, one in enumerate(predictions)
    ]
