"""How fast does grounding answer, against stock transformers doing the same work?

Both sides load the same weights and go from decoded pictures to labelled boxes: stock by
GroundingDinoProcessor, the model and post_process_grounded_object_detection, ours by the
package's own path. A batch is different pictures of one size, as requests that wait together are;
stock takes it in one call as well. More labels than one text holds are split into the same chunks
for both; stock then runs whole passes. Runs alternate, so that a busy machine slows both alike,
and before them both must have given the same boxes. One JSON line per case goes to standard
output, and is appended to --out.

    python bench/grounding.py                                the drawn weights
    python bench/grounding.py --full --repeats 5             Swin-T of full size, random weights
    python bench/grounding.py --full --compile               the same, compiled (for a GPU)
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
from PIL import Image, ImageChops  # noqa: E402
from postprocess import merge  # noqa: E402
from prediction import DetectInput, Prediction  # noqa: E402
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

    def __call__(self, pictures: list[Image.Image], chunks: list[list[str]]) -> list[np.ndarray]:
        """Boxes of every chunk, (batch, queries, 4)."""
        boxes = []
        for labels in chunks:
            inputs = self.processor(
                images=pictures, text=[labels] * len(pictures), return_tensors="pt"
            )
            with torch.inference_mode():
                output = self.model(**inputs.to(self.device))
            self.processor.post_process_grounded_object_detection(
                output,
                threshold=0.35,
                text_threshold=0.25,
                target_sizes=[picture.size[::-1] for picture in pictures],
            )
            boxes.append(output.pred_boxes.cpu().numpy())
        return boxes


def ours(
    detector: Detector, pictures: list[Image.Image], labels: list[str]
) -> list[list[Prediction]]:
    """The package's path from decoded pictures to detections."""
    words = tokenize(labels, detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    prompts = tuple(chunk.input_ids for chunk in chunks)
    seen = detector.detect_many([DetectInput(detector.prepare(p), prompts) for p in pictures])
    for predictions in seen:
        merge(predictions, chunks, 0.35, 0.25, None)
    return seen


def different(picture: Image.Image, count: int) -> list[Image.Image]:
    """The picture, and others of its size: it, moved around its edges."""
    step = picture.width // count
    return [ImageChops.offset(picture, step * number) for number in range(count)]


def farthest(theirs: list[np.ndarray], seen: list[list[Prediction]]) -> float:
    """Largest difference of a coordinate, as a fraction of the picture, over 99 % of the boxes:
    among random weights rounding swaps neighbours of equal score, which are other boxes."""
    gaps = [
        np.abs(boxes[row] - predictions[number].boxes).max(axis=1)
        for number, boxes in enumerate(theirs)
        for row, predictions in enumerate(seen)
    ]
    return float(np.quantile(np.concatenate(gaps), 0.99))


def time_both(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> np.ndarray:
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


def measure(
    stock: Stock, detector: Detector, pictures: list[Image.Image], labels: list[str], repeats: int
) -> dict[str, object]:
    """One case's row."""
    words = tokenize(labels, detector.tokenizer)
    chunks = [
        [labels[index] for index in chunk.label_indices]
        for chunk in build_chunks(words, detector.max_tokens, detector.tokenizer)
    ]
    gap = farthest(stock(pictures, chunks), ours(detector, pictures, labels))
    times = time_both(
        lambda: stock(pictures, chunks), lambda: ours(detector, pictures, labels), repeats
    )
    p50, p95 = np.percentile(times * 1e3, [50, 95], axis=0).round(1)
    return {
        "batch": len(pictures),
        "labels": len(labels),
        "passes": len(chunks),
        "repeats": repeats,
        "stock_p50_ms": p50[0],
        "stock_p95_ms": p95[0],
        "ours_p50_ms": p50[1],
        "ours_p95_ms": p95[1],
        "speedup": round(float(np.median(times[:, 0] / times[:, 1])), 2),
        "box_difference_p99": float(f"{gap:.1e}"),
    }


def main() -> None:
    """Measure every case and report it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="full size, random weights")
    parser.add_argument("--compile", action="store_true", help="ours compiled, in size buckets")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--labels", type=int, nargs="+", default=[2, len(LABELS)])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="append to this file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    source = PRESETS["drawn"]
    with tempfile.TemporaryDirectory() as folder:
        if chosen.full:
            tokenizer = Detector(source, "cpu").tokenizer
            source = full_size_folder(Path(folder), tokenizer)
        detector = Detector(source, compiler="inductor" if chosen.compile else None)
        stock = Stock(source, detector)
    picture = load_rgb(ROOT / "grounding" / "samples" / "shapes.png")
    for batch in chosen.batches:
        for count in chosen.labels:
            row = {
                "bench": "grounding",
                "weights": source.name,
                "compiled": chosen.compile,
                "dtype": str(detector.dtype).removeprefix("torch."),
                **measure(
                    stock, detector, different(picture, batch), LABELS[:count], chosen.repeats
                ),
                **machine(),
            }
            line = json.dumps(row)
            print(line, flush=True)
            if chosen.out:
                with chosen.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
