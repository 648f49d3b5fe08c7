"""How good a folder of weights is on drawn scenes: `python -m demo.evaluate [FOLDER]`.

Everything goes the way that a request goes, thresholds at their defaults, save that AP looks at
all scores. The scenes come from seeds that training does not use. `bench/grounding_ap.py` runs
the same on a folder in COCO layout.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from model import Detector
from PIL import Image
from postprocess import Candidates, candidates, combine, overlaps
from preprocess import to_tensor
from prompt import build_chunks, tokenize
from weights import Source

from demo.scenes import Scene, draw_scene
from demo.vocabulary import ALL_PAIRS, SEEN, SHAPES, UNSEEN, Pair, Phrase, caption

BOX_THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25
"""The package's defaults."""

SHAPE_PAIRS = tuple(pair for pair in SEEN if pair[1] in SHAPES)
UNSEEN_SHAPE_PAIRS = frozenset(pair for pair in UNSEEN if pair[1] in SHAPES)


class Case(NamedTuple):
    """A scene and what is asked about it."""

    scene: Scene
    phrases: list[Phrase]


def cases(
    seed: int,
    count: int,
    pairs: Sequence[Pair],
    side: int = 160,
    must: frozenset[Pair] = frozenset(),
) -> list[Case]:
    """Scenes of `pairs`, one to eight pairs asked of each; at least one of `must` is in it."""
    rng = random.Random(seed)
    found: list[Case] = []
    while len(found) < count:
        scene = draw_scene(rng, side, side, pairs)
        phrases = caption(rng, scene.things, pairs, rng.randint(1, 8), pairs_only=True)
        if not must or any((t.colour, t.kind) in must for t in scene.things):
            found.append(Case(scene, phrases))
    return found


def held_out(count: int, side: int = 160) -> dict[str, tuple[list[Case], frozenset[Pair] | None]]:
    """The sets that the model card speaks of; the pairs that count in each (None: all)."""
    shapes_all = tuple(pair for pair in ALL_PAIRS if pair[1] in SHAPES)
    return {
        "shapes": (cases(900_001, count, SHAPE_PAIRS, side), None),
        "shapes_unseen": (
            cases(900_002, count, shapes_all, side, UNSEEN_SHAPE_PAIRS),
            UNSEEN_SHAPE_PAIRS,
        ),
        "all": (cases(900_003, count, SEEN, side), None),
        "all_unseen": (cases(900_004, count, ALL_PAIRS, side, UNSEEN), UNSEEN),
    }


def look(detector: Detector, case: Case) -> Candidates:
    """Every box with its best label, unfiltered; labels index the case's phrases."""
    words = tokenize([phrase.text for phrase in case.phrases], detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    pixels = to_tensor(Image.fromarray(case.scene.pixels), detector.image_processor)
    seen = detector.detect(pixels, [chunk.input_ids for chunk in chunks])
    passes = [
        candidates(*prediction, chunk.word_spans, chunk.label_indices, number)
        for number, (prediction, chunk) in enumerate(zip(seen, chunks, strict=True))
    ]
    return combine(passes, None)


class Tally:
    """Counts over cases: AP50 pooled over phrases, and what the default thresholds let through."""

    def __init__(self, counted: frozenset[Pair] | None) -> None:
        self._counted = counted
        self._hits: list[tuple[float, bool]] = []
        self.true = self.found = self.absent = self.fired = self.kept = self.kept_true = 0

    def add(self, case: Case, found: Candidates) -> None:
        """Account for one case."""
        height, width = case.scene.pixels.shape[:2]
        size = np.array([width, height, width, height], np.float32)
        kept = (found.scores >= BOX_THRESHOLD) & (found.weakest >= TEXT_THRESHOLD)
        for index, phrase in enumerate(case.phrases):
            if self._counted is not None and (phrase.colour, phrase.kind) not in self._counted:
                continue
            pairs = zip(case.scene.boxes, case.scene.things, strict=True)
            truth = np.array([b for b, t in pairs if phrase.names(t)], np.float32).reshape(-1, 4)
            rows = np.flatnonzero(found.labels == index)
            right = _greedy(found.boxes[rows] * size, truth)
            self._hits += zip(found.scores[rows].tolist(), right, strict=True)
            passing = kept[rows]
            self.true += len(truth)
            self.found += int((passing & right).sum())
            self.kept += int(passing.sum())
            self.kept_true += int((passing & right).sum())
            if not len(truth):
                self.absent += 1
                self.fired += bool(passing.any())

    def summary(self) -> dict[str, float]:
        """AP50, and at the default thresholds recall, precision, share of absent that fire."""
        return {
            "ap50": round(self._average_precision(), 4),
            "recall": round(self.found / max(1, self.true), 4),
            "precision": round(self.kept_true / max(1, self.kept), 4),
            "absent_fire": round(self.fired / max(1, self.absent), 4),
            "boxes": self.true,
            "absent": self.absent,
        }

    def _average_precision(self) -> float:
        ranked = np.array([hit for _, hit in sorted(self._hits, key=lambda h: -h[0])], float)
        reached = ranked.cumsum()
        precision = reached / np.arange(1, len(ranked) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((envelope * ranked).sum() / max(1, self.true))


def _greedy(boxes: Any, truth: Any) -> Any:
    """(N,) bool: boxes, best first, that hit (IoU ≥ 0.5) a true box not yet hit."""
    free = list(range(len(truth)))
    right = np.zeros(len(boxes), bool)
    for row, box in enumerate(boxes):
        if free:
            shares = overlaps(box, truth[free])
            if shares.max() >= 0.5:
                right[row] = True
                free.pop(int(shares.argmax()))
    return right


def score_folder(folder: Path, count: int, side: int = 160) -> dict[str, Any]:
    """The summary of every held-out set for one folder of weights."""
    detector = Detector(Source("weights", str(folder)), "cpu")
    rows = {}
    for name, (of_set, counted) in held_out(count, side).items():
        tally = Tally(counted)
        for case in of_set:
            tally.add(case, look(detector, case))
        rows[name] = tally.summary()
    return rows


def main() -> None:
    """Print a line of JSON for each set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("weights/demo"))
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--side", type=int, default=160)
    chosen = parser.parse_args()
    for name, row in score_folder(chosen.folder, chosen.scenes, chosen.side).items():
        print(json.dumps({"set": name, **row}), flush=True)


if __name__ == "__main__":
    main()
