"""How fast does grounding answer, against stock transformers doing the same work?

Both sides load the same weights and go from a decoded picture to labelled boxes: stock by
GroundingDinoProcessor, the model and post_process_grounded_object_detection, ours by the
package's own path. More labels than one text holds are split into the same chunks for both; stock
then runs whole passes. Runs alternate, so that a busy machine slows both alike. One JSON line per
case goes to standard output, or is appended to --out.

    python bench/grounding.py                       the demo weights
    python bench/grounding.py --full --repeats 5    Swin-T of full size, random weights
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "grounding"))

import torch  # noqa: E402
from model import Detector  # noqa: E402
from picture import load_rgb  # noqa: E402
from postprocess import candidates, combine  # noqa: E402
from preprocess import to_tensor  # noqa: E402
from prompt import build_chunks, tokenize  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForZeroShotObjectDetection,
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SwinConfig,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (  # noqa: E402
    GroundingDinoImageProcessorPil,
)
from weights import PRESETS, Source  # noqa: E402

COLOURS = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross", "heart", "arrow"]
LABELS = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]


def full_size_folder(folder: Path, tokenizer: object) -> Source:
    """Swin-T Grounding DINO in its published shape, with seeded random weights."""
    torch.manual_seed(0)
    swin = SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_indices=[2, 3, 4]
    )
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=BertConfig(), disable_custom_kernels=True
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 800, "longest_edge": 1333})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return Source("random-swin-t", str(folder))


class Stock:
    """transformers as its documentation shows it."""

    def __init__(self, source: Source, detector: Detector) -> None:
        self.device = detector.device
        self.processor = GroundingDinoProcessor(detector.image_processor, detector.tokenizer)
        self.model = AutoModelForZeroShotObjectDetection.from_pretrained(
            source.location, dtype=torch.float32
        )
        self.model.to(self.device).eval()

    def __call__(self, picture: object, chunks: list[list[str]]) -> None:
        for labels in chunks:
            inputs = self.processor(images=picture, text=[labels], return_tensors="pt")
            with torch.inference_mode():
                output = self.model(**inputs.to(self.device))
            self.processor.post_process_grounded_object_detection(
                output,
                threshold=0.35,
                text_threshold=0.25,
                target_sizes=[picture.size[::-1]],  # type: ignore[attr-defined]
            )


def ours(detector: Detector, picture: object, labels: list[str]) -> None:
    """The package's path from a decoded picture to detections."""
    words = tokenize(labels, detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    pixels = to_tensor(picture, detector.image_processor)  # type: ignore[arg-type]
    seen = detector.detect(pixels, [chunk.input_ids for chunk in chunks])
    passes = [
        candidates(*prediction, chunk.word_spans, chunk.label_indices, number).above(0.35, 0.25)
        for number, (prediction, chunk) in enumerate(zip(seen, chunks, strict=True))
    ]
    combine(passes, None)


def time_both(first: Callable[[], None], second: Callable[[], None], repeats: int) -> np.ndarray:
    """Seconds of each, (repeats, 2), alternating, after one warm-up of both."""
    times = []
    for _ in range(repeats + 1):
        row = []
        for call in (first, second):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            row.append(time.perf_counter() - start)
        times.append(row)
    return np.array(times[1:])


def machine() -> dict[str, object]:
    """What the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "machine": platform.node(),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    """Measure every case and report it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="full size, random weights")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="append to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    source = PRESETS["demo"]
    with tempfile.TemporaryDirectory() as folder:
        if chosen.full:
            tokenizer = Detector(source, "cpu").tokenizer
            source = full_size_folder(Path(folder), tokenizer)
        detector = Detector(source)
        stock = Stock(source, detector)
    picture = load_rgb(ROOT / "grounding" / "samples" / "shapes.png")
    for count in (2, len(LABELS)):
        labels = LABELS[:count]
        words = tokenize(labels, detector.tokenizer)
        chunks = [
            [labels[index] for index in chunk.label_indices]
            for chunk in build_chunks(words, detector.max_tokens, detector.tokenizer)
        ]
        times = time_both(
            lambda texts=chunks: stock(picture, texts),  # type: ignore[misc]
            lambda texts=labels: ours(detector, picture, texts),  # type: ignore[misc]
            chosen.repeats,
        )
        p50, p95 = np.percentile(times * 1e3, [50, 95], axis=0).round(1)
        row = {
            "bench": "grounding",
            "weights": source.name,
            "labels": count,
            "passes": len(chunks),
            "repeats": chosen.repeats,
            "stock_p50_ms": p50[0],
            "stock_p95_ms": p95[0],
            "ours_p50_ms": p50[1],
            "ours_p95_ms": p95[1],
            "speedup": round(float(np.median(times[:, 0] / times[:, 1])), 2),
            **machine(),
        }
        line = json.dumps(row)
        print(line, flush=True)
        if chosen.out:
            with chosen.out.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
