"""SAM 3's part of bench/gpu.py: grounding's preset with masks.

Set-up, milliseconds of 1 and 4 pictures with 18 labels with and without masks, against stock
transformers that runs the model once for each label; memory of a row against the estimate; what
happens on a small card.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "grounding"))

import numpy as np
import rows
import sam3
import torch
from gpu_figures import DEVICE, GIB, IS_CUDA, Figures, build, card_of, peaks, start_peak, timed
from masks import add_masks
from outputs import PictureSize
from PIL import Image, ImageChops
from postprocess import merge
from prediction import DetectInput
from transformers import CLIPTokenizer, Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model
from weights import Source

LABELS = [
    "person", "head", "hand", "dog", "cat", "bird", "car", "bicycle", "chair", "table", "bottle",
    "cup", "phone", "laptop", "book", "plant", "bag", "shoe",
]  # fmt: skip
REPEATS = 5
_PART = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_layers": 1}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
TINY: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 112,
            "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 56,
        },
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    },
    "text_config": {
        "model_type": "clip_text_model", "max_position_embeddings": 32, "num_attention_heads": 2,
        **_TEXT,
    },
    "geometry_encoder_config": _PART,
    "detr_encoder_config": _PART,
    "detr_decoder_config": {**_PART, "num_queries": 20},
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
}  # fmt: skip


def detector(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """All figures, the most valuable first."""
    if IS_CUDA:
        torch.zeros(1, device=DEVICE)  # CUDA's start is no part of a set-up
    bench = _Bench(Source("sam3", str(folder / "sam3"), engine="sam3"), is_tiny=is_tiny)

    def measure(measure: str, work: Any, **fields: Any) -> bool:
        return figures.measure(measure, work, preset="sam3", **fields)

    if not (measure("written", bench.write) and measure("setup", bench.set_up)):
        return
    for count in (1, 4):
        for masks in ("none", "rle"):
            work = partial(bench.against_stock, count, masks)
            measure("pictures", work, pictures=count, labels=len(LABELS), masks=masks)
    for masks in ("none", "rle"):
        for count in (1, sam3.MAX_ROWS):
            measure("row", partial(bench.row, count, masks), rows=count, masks=masks)
    with card_of(8):
        measure("drill", bench.drill, card_gib=8)


class _Bench:
    def __init__(self, source: Source, *, is_tiny: bool) -> None:
        self.source = source
        self.is_tiny = is_tiny
        self.detector: Any = None
        noise = np.random.default_rng(0).integers(0, 256, (80, 133, 3), np.uint8)
        picture = Image.fromarray(noise).resize((1333, 800))
        self.pictures = [ImageChops.offset(picture, 300 * turn) for turn in range(4)]

    def write(self) -> dict[str, Any]:
        """A folder of random weights, and a tokenizer whose words are the labels."""

        def save() -> None:
            config = Sam3Config(**TINY) if self.is_tiny else Sam3Config()
            build(lambda: Sam3Model(config), torch.float32).save_pretrained(self.source.location)

        seconds = timed(save)
        _tokenizer().save_pretrained(self.source.location)
        return {"seconds": round(seconds, 2)}

    def set_up(self) -> dict[str, Any]:
        """By the package's own code, in its precision on this device."""

        def load() -> None:
            self.detector = sam3.Sam3Detector(self.source, DEVICE)

        start_peak()
        seconds = timed(load)
        return {"seconds": round(seconds, 2), "precision": self._precision(), **peaks()}

    def against_stock(self, count: int, masks: str) -> dict[str, Any]:
        """Decoded pictures to labelled boxes and masks (20 masks a picture), medians."""
        stock = Sam3Model.from_pretrained(self.source.location).to(DEVICE).eval()
        engine, pictures = self.detector, self.pictures[:count]
        tokens = engine.tokenizer(
            LABELS, padding="max_length", max_length=engine.max_tokens, return_tensors="pt"
        ).to(DEVICE)

        @torch.inference_mode()
        def theirs() -> None:
            for picture in pictures:
                pixels = engine.prepare(picture).to(DEVICE)
                for number in range(len(LABELS)):
                    one = {name: value[number : number + 1] for name, value in tokens.items()}
                    with engine._precision():
                        output = stock(pixel_values=pixels, **one)
                    output.pred_boxes.cpu()

        def mine() -> None:
            self._detected(pictures, masks)

        mine()
        theirs()
        start_peak()
        mine()
        row: dict[str, Any] = {"precision": self._precision(), **peaks()}
        pairs = [(timed(mine), timed(theirs)) for _ in range(1 if self.is_tiny else REPEATS)]
        ours, of_stock = (statistics.median(each) for each in zip(*pairs, strict=True))
        return row | {
            "ours_ms_each": round(ours / count * 1e3, 2),
            "stock_ms_each": round(of_stock / count * 1e3, 2),
            "value": round(statistics.median(mine / stock for mine, stock in pairs), 3),
        }

    def row(self, count: int, masks: str) -> dict[str, Any]:
        """What a label takes besides the weights, and what is reckoned with before it is known."""
        engine = self.detector
        limit = engine._limit = rows.RowLimit(
            engine.device, sam3.MAX_ROWS, estimate=sam3.bytes_of_row
        )
        self._detected(self.pictures[:1], masks, labels=LABELS[:count])
        estimate = sam3.bytes_of_row((engine._patches, int(masks != "none")))
        row: dict[str, Any] = {"estimate_gib_each": round(estimate / GIB, 3)}
        if limit._measured:
            taken = max(limit._measured.values())
            row |= {"gib_each": round(taken / GIB, 3), "value": round(taken / estimate, 3)}
        return row

    def drill(self) -> dict[str, Any]:
        """Four pictures with masks on a small card."""
        engine = self.detector
        limit = engine._limit = rows.RowLimit(
            engine.device, sam3.MAX_ROWS, estimate=sam3.bytes_of_row
        )
        start_peak()
        found = self._detected(self.pictures, "rle")
        failed = list(limit._failed.values())
        return {"outcome": f"{found} of 4 pictures", "halved_to": failed, **peaks()}

    def _detected(self, pictures: Any, masks: str, labels: Any = LABELS) -> int:
        """The package's path from decoded pictures to detections with masks."""
        engine = self.detector
        query = engine.read_labels(labels)
        prompts = tuple(chunk.input_ids for chunk in query.chunks)
        masks_from = None if masks == "none" else 0.0
        inputs = [DetectInput(engine.prepare(one), prompts, masks_from) for one in pictures]
        seen = engine.detect_many(inputs)
        for picture, predictions in zip(pictures, seen, strict=True):
            found = merge(predictions, query.chunks, 0.0, 0.0, None, most=20)
            places = zip(found.chunks, found.queries, strict=True)
            grids = [predictions[chunk].masks.get(one) for chunk, one in places]
            size = PictureSize(width=picture.width, height=picture.height)
            add_masks([{} for _ in grids], grids, size, masks)  # type: ignore[typeddict-item]
        return len(seen)

    def _precision(self) -> str:
        return str(self.detector.dtype).removeprefix("torch.")


def _tokenizer() -> CLIPTokenizer:
    """The labels' letters, and fillers up to CLIP's size, with its special tokens at their ids."""
    letters = sorted({letter for label in LABELS for letter in label})
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"<filler{number}>" for number in range(49406 - len(tokens))]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[])
