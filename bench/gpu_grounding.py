"""grounding's part of bench/gpu.py: LLMDet's architecture in its two smaller sizes.

Set-up, milliseconds of 1 and 4 pictures against stock transformers, memory of a row of the pass
against rows.py's estimate, what happens on a small card, float16 and bfloat16 against float32.
"""
# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "grounding"))

import numpy as np
import rows
import torch
from gpu_figures import DEVICE, GIB, IS_CUDA, Figures, build, card_of, peaks, start_peak, timed
from model import MAX_ROWS, Detector
from PIL import Image, ImageChops
from postprocess import merge
from prediction import DetectInput, Prediction
from prompt import build_chunks, tokenize
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from weights import PRESETS, Source

DRAWN = PRESETS["drawn"]
PICTURE = ROOT / "grounding" / "samples" / "shapes.png"
LABELS = [
    "person", "head", "hand", "dog", "cat", "bird", "car", "bicycle", "chair", "table", "bottle",
    "cup", "phone", "laptop", "book", "plant", "bag", "shoe",
]  # fmt: skip
SHAPES = ["red circle", "red star", "blue circle", "blue star", "green circle", "green star"]
REPEATS = 5
MOST_OFF = {"float16": 0.02, "bfloat16": 0.25}
"""Bounds of a score's difference from float32, on the trained weights of drawn shapes."""

SWIN: dict[str, dict[str, Any]] = {
    "llmdet-tiny": {
        "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7,
    },
    "llmdet-base": {
        "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12,
        "image_size": 384,
    },
}  # fmt: skip
TINY: dict[str, Any] = {
    "text_config": BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    ),
    "encoder_layers": 1, "decoder_layers": 2, "num_queries": 50,
}  # fmt: skip


def detectors(figures: Figures, folder: Path, is_tiny: bool) -> None:
    """Both sizes, then precision on trained weights."""
    if IS_CUDA:
        torch.zeros(1, device=DEVICE)  # CUDA's start is no part of a set-up
    for name in SWIN:
        _Bench(figures, name, folder, is_tiny=is_tiny).run()
    for dtype in ("float16", "bfloat16"):
        figures.measure("half_to_float32", partial(_precision, dtype), of="drawn", precision=dtype)


class _Bench:
    """The figures of one size."""

    def __init__(self, figures: Figures, name: str, folder: Path, *, is_tiny: bool) -> None:
        self.figures = figures
        self.name = name
        self.source = Source(name, str(folder / name))
        self.is_tiny = is_tiny
        self.detector: Any = None
        noise = np.random.default_rng(0).integers(0, 256, (80, 133, 3), np.uint8)
        picture = Image.fromarray(noise).resize((1333, 800))
        self.pictures = [ImageChops.offset(picture, 300 * turn) for turn in range(4)]

    def run(self) -> None:
        """All figures, the most valuable first."""

        def measure(measure: str, work: Any, **fields: Any) -> bool:
            return self.figures.measure(measure, work, preset=self.name, **fields)

        if not (measure("written", self.write) and measure("setup", self.set_up)):
            return
        for count in (1, 4):
            measure("pictures", partial(self.against_stock, count), pictures=count)
        for tokens in (_tokens(self.detector, LABELS), 256):
            for count in (1, 4, MAX_ROWS):
                measure("row", partial(self.row, tokens, count), tokens=tokens, rows=count)
        with card_of(6):
            measure("drill", self.drill, card_gib=6)
        self.detector = None

    def write(self) -> dict[str, Any]:
        """A folder of random weights."""
        torch.manual_seed(0)

        def save() -> None:
            build(self.make, torch.float32).save_pretrained(self.source.location)

        seconds = timed(save)
        side = (96, 160) if self.is_tiny else (800, 1333)
        images = GroundingDinoImageProcessorPil(
            size={"shortest_edge": side[0], "longest_edge": side[1]}
        )
        GroundingDinoProcessor(images, _tokenizer()).save_pretrained(self.source.location)
        return {"seconds": round(seconds, 2)}

    def make(self) -> MMGroundingDinoForObjectDetection:
        more = TINY if self.is_tiny else {"text_config": BertConfig()}
        swin = SwinConfig(**SWIN[self.name])
        if self.is_tiny:
            swin = SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4])
        swin.out_indices = [2, 3, 4]
        return MMGroundingDinoForObjectDetection(
            MMGroundingDinoConfig(backbone_config=swin, disable_custom_kernels=True, **more)
        )

    def set_up(self) -> dict[str, Any]:
        """By the package's own code, in its precision on this device."""

        def load() -> None:
            self.detector = Detector(self.source, DEVICE)

        start_peak()
        seconds = timed(load)
        precision = _name(self.detector.dtype)
        return {"seconds": round(seconds, 2), "precision": precision, **peaks()}

    def against_stock(self, count: int) -> dict[str, Any]:
        """Decoded pictures to labelled boxes, medians: ours, and stock in the same precision."""
        pictures = self.pictures[:count]
        detector = self.detector
        stock = MMGroundingDinoForObjectDetection.from_pretrained(self.source.location)
        stock.to(DEVICE).eval()
        processor = GroundingDinoProcessor(detector.image_processor, detector.tokenizer)

        @torch.inference_mode()
        def theirs(precision: Any) -> None:
            inputs = processor(images=pictures, text=[LABELS] * count, return_tensors="pt")
            with precision():
                output = stock(**inputs.to(DEVICE))
            processor.post_process_grounded_object_detection(
                output, threshold=0.35, text_threshold=0.25,
                target_sizes=[picture.size[::-1] for picture in pictures],
            )  # fmt: skip

        def mine() -> None:
            _detected(detector, pictures, LABELS)

        mine()
        start_peak()
        mine()
        row: dict[str, Any] = {"precision": _name(detector.dtype), **peaks()}
        precision, row["stock_precision"] = detector._precision, row["precision"]
        try:
            theirs(precision)
        except (RuntimeError, ValueError) as error:  # it may not know this precision
            row["stock_error"] = f"{type(error).__name__}: {error}"[:200]
            precision, row["stock_precision"] = nullcontext, "float32"
            theirs(precision)
        pairs = [(timed(mine), timed(lambda: theirs(precision))) for _ in range(REPEATS)]
        ours, of_stock = (list(each) for each in zip(*pairs, strict=True))
        return row | {
            "ours_ms_each": _each_ms(ours, count), "stock_ms_each": _each_ms(of_stock, count),
            "value": round(statistics.median(mine / stock for mine, stock in pairs), 3),
        }  # fmt: skip

    def row(self, tokens: int, count: int) -> dict[str, Any]:
        """What a row takes besides the weights, and what rows.py reckons with before it knows."""
        detector = self.detector
        prompts = [_prompt(tokens, first) for first in range(count)]
        pixels = detector.prepare(self.pictures[0])
        detector.detect(pixels, prompts)  # the text cache is filled, kernels are there
        limit = detector._limit = rows.RowLimit(detector.device, MAX_ROWS)
        height, width = pixels.shape[2:]
        positions = rows.positions_of(width, height)
        seconds = timed(lambda: detector.detect(pixels, prompts))
        per_position = rows.BYTES_PER_POSITION + rows.BYTES_PER_POSITION_AND_TOKEN * tokens
        row: dict[str, Any] = {
            "seconds_each": round(seconds / count, 4),
            "estimate_gib_each": round(positions * per_position / GIB, 3),
        }
        if limit._measured:
            taken = max(limit._measured.values()) / GIB
            ratio = taken * GIB / (positions * per_position)
            row |= {"gib_each": round(taken, 3), "value": round(ratio, 3)}
        return row

    def drill(self) -> dict[str, Any]:
        """Eight rows of 256 tokens on a small card."""
        detector = self.detector
        detector._limit = rows.RowLimit(detector.device, MAX_ROWS)
        prompts = [_prompt(256, first) for first in range(MAX_ROWS)]
        start_peak()
        found = detector.detect(detector.prepare(self.pictures[0]), prompts)
        failed = list(detector._limit._failed.values())
        return {"outcome": f"{len(found)} of {MAX_ROWS} rows", "halved_to": failed, **peaks()}


def _tokenizer() -> BertTokenizer:
    """BERT's special tokens and marks at their places, the labels' words, and fillers."""
    tokens = [f"[unused{index}]" for index in range(30522)]
    tokens[0], tokens[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens[1012], tokens[1029] = ".", "?"
    tokens[2417 : 2417 + len(LABELS)] = LABELS
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _each_ms(seconds: Sequence[float], count: int) -> float:
    return round(statistics.median(seconds) / count * 1e3, 2)


def _prompt(tokens: int, first: int) -> tuple[int, ...]:
    """[CLS], words, a period, [SEP]; another one for each `first`."""
    return (101, 2417 + first, *[2417] * (tokens - 4), 1012, 102)


def _tokens(detector: Detector, labels: list[str]) -> int:
    words = tokenize(labels, detector.tokenizer)
    return len(build_chunks(words, detector.max_tokens, detector.tokenizer)[0].input_ids)


def _detected(
    detector: Detector, pictures: Sequence[Image.Image], labels: list[str]
) -> list[list[Prediction]]:
    """The package's path from decoded pictures to detections."""
    words = tokenize(labels, detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    prompts = tuple(chunk.input_ids for chunk in chunks)
    seen = detector.detect_many([DetectInput(detector.prepare(one), prompts) for one in pictures])
    for predictions in seen:
        merge(predictions, chunks, 0.35, 0.25, None)
    return seen


def _precision(dtype: str) -> dict[str, Any]:
    """Of the trained weights: scores and boxes in `dtype` against float32, query by query."""
    if not Path(DRAWN.location).is_dir():
        return {"skipped": "the trained weights are not on this machine"}
    detector = Detector(DRAWN, DEVICE, "float32")
    pictures = [Image.open(PICTURE).convert("RGB")]
    exact = _detected(detector, pictures, SHAPES)[0][0]
    detector.dtype = getattr(torch, dtype)
    detector._text_cache.clear()
    rough = _detected(detector, pictures, SHAPES)[0][0]
    # Rounding may swap queries of equal score, so each is compared with the nearest box.
    sure = exact.token_probabilities.max(axis=1) >= 0.2
    apart = np.abs(exact.boxes[sure][:, None] - rough.boxes[None]).max(axis=2)
    nearest = apart.argmin(axis=1)
    off = np.abs(exact.token_probabilities[sure] - rough.token_probabilities[nearest]).max(axis=1)
    return {
        "queries": int(sure.sum()), "score_off_max": round(float(off.max()), 5),
        "score_off_mean": round(float(off.mean()), 5),
        "box_off_max": round(float(apart.min(axis=1).max()), 5),
        "became": _name(detector.dtype),
        "is_within": bool(off.max() <= MOST_OFF[dtype]),
    }  # fmt: skip
