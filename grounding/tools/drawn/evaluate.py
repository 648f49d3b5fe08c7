"""Evaluates an engine on a folder in COCO layout; bench/grounding_ap.py prints the figures.

Each picture is processed as a request is, from the file to the boxes. AP (pycocotools) uses all
scores, as COCO defines it; the other figures are at the default thresholds.
"""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from labels import parse_labels
from model import Detector
from picture import load_rgb
from postprocess import Candidates, merge, overlaps
from prediction import DetectInput, Engine
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm
from weights import Source

from tools.drawn.heldout import SETS, write_set

BOX_THRESHOLD, TEXT_THRESHOLD = 0.35, 0.25
"""The package's defaults."""

MOST_BOXES = 100
"""Per picture, as COCO's evaluation counts them."""


class Asked(NamedTuple):
    """One picture and the labels to find in it."""

    image: dict[str, Any]
    categories: list[int]
    """Their names are the labels."""


class Found(NamedTuple):
    """The answer."""

    candidates: Candidates
    """Best first, unfiltered; labels index Asked.categories."""
    size: list[int]
    """[width, height, width, height] in px."""


def layout(folder: Path) -> tuple[Path, Path]:
    """The annotations file and the folder of pictures.

    The annotations: one .json file in the folder or in its annotations/, of several the one named
    instances…. The pictures: in images/, in a folder named like the
    annotations' split, or in the folder itself.

    Raises FileNotFoundError when either is missing or there are several.
    """
    files = sorted(folder.glob("*.json")) or sorted((folder / "annotations").glob("*.json"))
    instances = [file for file in files if "instances" in file.name] or files
    if len(instances) != 1:
        raise FileNotFoundError(
            f"Cannot evaluate: '{folder.name}' must hold one annotations file, got {len(instances)}"
        )
    split = instances[0].stem.removeprefix("instances_")
    first = json.loads(instances[0].read_text())["images"][0]["file_name"]
    for place in (folder / "images", folder / split, folder / "images" / split, folder):
        if (place / first).is_file():
            return instances[0], place
    raise FileNotFoundError(
        f"Cannot evaluate: '{folder.name}' must hold {first}, also in images/ or {split}/"
    )


def evaluate(engine: Engine, folder: Path, limit: int | None = None) -> dict[str, Any]:
    """All figures of one folder, or of its first `limit` pictures."""
    annotations, pictures = layout(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    info = coco.dataset.get("info") or {}
    counted = set(info.get("evaluated_category_ids") or names)
    at_default = AtDefault(counted)
    detections: list[dict[str, Any]] = []
    ids = []
    questions = list(_questions(coco))[:limit]
    for asked in tqdm(questions, desc="pictures", unit="", file=sys.stderr):
        labels = [names[category] for category in asked.categories]
        found = _detect(engine, pictures / asked.image["file_name"], labels)
        detections += _records(asked, found)
        at_default.add(coco, asked, found)
        ids.append(asked.image["id"])
    figures = _average_precision(coco, detections, ids, sorted(counted))
    return {"pictures": len(ids), **figures, **at_default.summary()}


def _questions(coco: COCO) -> Iterator[Asked]:
    """Every category, or with LVIS's `neg_category_ids` those present and those."""
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        wanted = sorted(coco.getCatIds())
        if "neg_category_ids" in image:
            present = {a["category_id"] for a in coco.loadAnns(coco.getAnnIds(image["id"]))}
            wanted = sorted(present | set(image["neg_category_ids"]))
        if wanted:
            yield Asked(image, wanted)


def _detect(engine: Engine, file: Path, labels: list[str]) -> Found:
    texts = [parse_labels(json.dumps([label]), "")[0].text for label in labels]
    chunks = engine.read_labels(texts).chunks
    picture = load_rgb(file)
    work = DetectInput(engine.prepare(picture), tuple(chunk.input_ids for chunk in chunks))
    (seen,) = engine.detect_many([work])
    return Found(merge(seen, chunks, 0.0, 0.0, None), [*picture.size, *picture.size])


def _records(asked: Asked, found: Found) -> list[dict[str, Any]]:
    """Detections as pycocotools takes them: x, y, width, height in px."""
    best = found.candidates.take(slice(MOST_BOXES))
    corners = best.boxes * np.array(found.size)
    return [
        {
            "image_id": asked.image["id"],
            "category_id": asked.categories[label],
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "score": float(score),
        }
        for box, score, label in zip(corners, best.scores, best.labels, strict=True)
    ]


class AtDefault:
    """Counts at the default thresholds, of the evaluated categories."""

    def __init__(self, counted: set[int]) -> None:
        self._counted = counted
        self._boxes = self._found = self._kept = self._absent = self._fired = 0

    def add(self, coco: COCO, asked: Asked, found: Found) -> None:
        """Count one picture. A hit has IoU ≥ 0.5 with a box of its label that has no hit yet."""
        kept = found.candidates.above(BOX_THRESHOLD, TEXT_THRESHOLD)
        corners = (kept.boxes * np.array(found.size)).astype(np.float32)
        annotations = coco.loadAnns(coco.getAnnIds(asked.image["id"], iscrowd=False))
        for index, category in enumerate(asked.categories):
            if category not in self._counted:
                continue
            truth = [a["bbox"] for a in annotations if a["category_id"] == category]
            boxes = corners[kept.labels == index]
            self._boxes += len(truth)
            self._kept += len(boxes)
            self._found += _hits(boxes, truth)
            if not truth:
                self._absent += 1
                self._fired += bool(len(boxes))

    def summary(self) -> dict[str, float]:
        """Recall, precision, and the share of absent labels that fire."""
        return {
            "boxes": self._boxes,
            "recall": round(self._found / max(1, self._boxes), 4),
            "precision": round(self._found / max(1, self._kept), 4),
            "absent": self._absent,
            "absent_fire": round(self._fired / max(1, self._absent), 4),
        }


def _hits(boxes: Any, truth: list[list[float]]) -> int:
    free = np.array([[x, y, x + w, y + h] for x, y, w, h in truth], np.float32).reshape(-1, 4)
    count = 0
    for box in boxes:  # best first
        if not len(free):
            break
        shares = overlaps(box, free)
        if shares.max() >= 0.5:
            count += 1
            free = np.delete(free, int(shares.argmax()), axis=0)
    return count


def _average_precision(
    coco: COCO, detections: list[dict[str, Any]], images: list[int], categories: list[int]
) -> dict[str, float]:
    """COCO's AP, AP50 and AP75, means over the categories that have boxes."""
    if not detections:
        return {"ap": 0.0, "ap50": 0.0, "ap75": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco, coco.loadRes(detections), "bbox")
        judge.params.imgIds, judge.params.catIds = images, categories
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    values = zip(("ap", "ap50", "ap75"), judge.stats, strict=False)
    return {name: round(max(0.0, float(value)), 4) for name, value in values}


def score_folder(weights: Path, count: int, side: int = 160) -> dict[str, Any]:
    """Every held-out set's figures for one folder of weights."""
    detector = Detector(Source("weights", str(weights)), "cpu")
    rows = {}
    for name in SETS:
        with tempfile.TemporaryDirectory() as folder:
            write_set(name, Path(folder), count, side)
            rows[name] = evaluate(detector, Path(folder))
    return rows
