"""Shifts the scores so that the package's default thresholds are the right operating point.

    python -m tools.drawn.calibrate RUN/weights OUT

Training sets the order of the scores; their level depends on its loss. A constant added to every
token's logit shifts the level and nothing else. It is chosen on scenes that no evaluation uses: the
largest recall with at most MOST_ABSENT of the absent labels firing.

Grounding DINO's head has no bias for it: a logit is the product of a query and a token's
feature. Queries come out of a LayerNorm, h = γ x̂ + β with Σ x̂ = 0, so h · (1/γ) = Σ β/γ is the same
for every query, and adding the right multiple of 1/γ to the text features adds the constant. The
decoder, which attends to the text as well, gets biases that undo it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from model import Detector
from numpy.typing import NDArray
from PIL import Image
from postprocess import merge, overlaps
from prediction import DetectInput, Prediction
from prompt import Chunk, build_chunks, tokenize
from transformers import AutoModelForZeroShotObjectDetection
from weights import Source

from tools.drawn.evaluate import BOX_THRESHOLD, TEXT_THRESHOLD
from tools.drawn.export import save_weights
from tools.drawn.heldout import cases
from tools.drawn.scenes import Scene
from tools.drawn.vocabulary import Phrase

MOST_ABSENT = 0.05
"""Share of absent labels that may fire on the calibration scenes."""

SEED = 800_001
SHIFTS = np.linspace(-2.0, 2.0, 81)


class Seen(NamedTuple):
    """One calibration scene, its labels, and the model's predictions."""

    scene: Scene
    labels: list[Phrase]
    chunks: list[Chunk]
    predictions: list[Prediction]


def predict_scenes(detector: Detector, count: int) -> list[Seen]:
    """The model's predictions for calibration scenes: half of shapes alone, half of all things."""
    seen = []
    shapes = cases("shapes", count - count // 2, seed=SEED + 1)
    for scene, labels in shapes + cases("all", count // 2, seed=SEED):
        words = tokenize([label.text for label in labels], detector.tokenizer)
        chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
        pixels = detector.prepare(Image.fromarray(scene.pixels))
        prompts = tuple(chunk.input_ids for chunk in chunks)
        (predictions,) = detector.detect_many([DetectInput(pixels, prompts)])
        seen.append(Seen(scene, labels, chunks, predictions))
    return seen


def shifted(probabilities: NDArray[np.float32], shift: float) -> NDArray[np.float32]:
    """The probabilities with every logit increased by `shift`."""
    p = probabilities.astype(np.float64).clip(1e-9, 1 - 1e-9)
    odds = p / (1 - p) * np.exp(shift)
    moved: NDArray[np.float32] = (odds / (1 + odds)).astype(np.float32)
    return moved


def operating_point(seen: Sequence[Seen], shift: float) -> tuple[float, float]:
    """Recall and share of absent labels that fire, at the default thresholds."""
    true = found = absent = fired = 0
    for scene, labels, chunks, predictions in seen:
        moved = [Prediction(shifted(p.token_probabilities, shift), p.boxes) for p in predictions]
        kept = merge(moved, chunks, BOX_THRESHOLD, TEXT_THRESHOLD, None)
        height, width = scene.pixels.shape[:2]
        corners = (kept.boxes * np.array([width, height] * 2)).astype(np.float32)
        for index, label in enumerate(labels):
            boxes = corners[kept.labels == index]
            pairs = zip(scene.boxes, scene.things, strict=True)
            truth = [box for box, thing in pairs if label.names(thing)]
            true += len(truth)
            found += sum(
                len(boxes) > 0 and overlaps(np.array(box, np.float32), boxes).max() >= 0.5
                for box in truth
            )
            if not truth:
                absent += 1
                fired += len(boxes) > 0
    return found / max(1, true), fired / max(1, absent)


def best_shift(seen: Sequence[Seen]) -> float:
    """The shift of the largest recall within MOST_ABSENT, or else the smallest shift."""
    points = [(float(shift), *operating_point(seen, float(shift))) for shift in SHIFTS]
    allowed = [point for point in points if point[2] <= MOST_ABSENT] or points[:1]
    return max(allowed, key=lambda point: point[1])[0]


@torch.no_grad()
def fold(model: Any, shift: float) -> None:
    """Add `shift` to every logit of the decoder, in place; boxes stay as they are.

    The proposals' logits move by almost the same, since their LayerNorm has a γ of its own.
    """
    queries = model.model.decoder.layer_norm
    step = shift / (queries.bias / queries.weight).sum() / queries.weight
    model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after.bias.add_(step)
    for layer in model.model.decoder.layers:
        attention = layer.encoder_attn_text
        for projection in (attention.key, attention.value):
            projection.bias.sub_(projection.weight @ step)


def main() -> None:
    """Choose the shift, fold it in, write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--shift", type=float, help="this one, instead of the best")
    chosen = parser.parse_args()
    detector = Detector(Source("weights", str(chosen.weights)), "cpu")
    shift = chosen.shift
    if shift is None:
        shift = best_shift(predict_scenes(detector, chosen.scenes))
    model = AutoModelForZeroShotObjectDetection.from_pretrained(chosen.weights, dtype=torch.float32)
    fold(model, shift)
    save_weights(model, detector.tokenizer, chosen.out)
    print(f"logits shifted by {shift:.2f}")


if __name__ == "__main__":
    main()
