"""Detections in the package's own format and in those of annotation tools.

COCO: https://cocodataset.org/#format-data (boxes are x, y, width, height in px, category ids
start at 1). Label Studio: https://labelstud.io/guide/predictions (boxes are percentages).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from outputs import Detection, PictureSize


def to_detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    label_indices: NDArray[np.int64],
    labels: Sequence[str],
    image: PictureSize,
) -> list[Detection]:
    """The output's list, in the order given.

    boxes: (N, 4) corners as fractions of the picture; scores: (N,); label_indices: (N,).
    Scores are rounded to 1e-4, px to 0.01, fractions to 1e-6.
    """
    scale = np.array([image["width"], image["height"]] * 2, dtype=np.float64)
    return [
        Detection(
            label=labels[index],
            label_index=int(index),
            score=round(float(score), 4),
            box=[round(float(v), 2) for v in box * scale],
            box_normalized=[round(float(v), 6) for v in box],
        )
        for box, score, index in zip(boxes, scores, label_indices, strict=True)
    ]


def export(
    wanted: str,
    detections: Sequence[Detection],
    image: PictureSize,
    labels: Sequence[str],
    model: str,
) -> dict[str, Any] | None:
    """The detections as "coco" or "label_studio" JSON; any other format needs none."""
    if wanted == "coco":
        return to_coco(detections, image, labels)
    if wanted == "label_studio":
        return to_label_studio(detections, image, model)
    return None


def to_coco(
    detections: Sequence[Detection], image: PictureSize, labels: Sequence[str]
) -> dict[str, Any]:
    """A COCO data set of this one picture; annotations carry `score` as detectors' results do."""
    return {
        "images": [{"id": 1, "width": image["width"], "height": image["height"], "file_name": ""}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels, 1)],
        "annotations": [
            _coco_annotation(number, found) for number, found in enumerate(detections, 1)
        ],
    }


def _coco_annotation(number: int, found: Detection) -> dict[str, Any]:
    x1, y1, x2, y2 = found["box"]
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    annotation = {
        "id": number,
        "image_id": 1,
        "category_id": found["label_index"] + 1,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": found["score"],
    }
    if mask := found.get("mask"):
        return annotation | {"segmentation": mask, "area": sum(mask["counts"][1::2])}
    if polygons := found.get("polygons"):
        area = round(sum(area_of(polygon) for polygon in polygons), 2)
        return annotation | {"segmentation": polygons, "area": area}
    return annotation


def area_of(polygon: Sequence[float]) -> float:
    """Of x1, y1, x2, y2, …, in the square of its unit."""
    x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
    return abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))) / 2


def to_label_studio(
    detections: Sequence[Detection], image: PictureSize, model: str
) -> dict[str, Any]:
    """A Label Studio task with one prediction, for `<RectangleLabels name="label" toName="image">`.

    `data.image` is left empty: only the caller knows the picture's address.
    """
    return {
        "data": {"image": ""},
        "predictions": [
            {
                "model_version": model,
                "score": max((found["score"] for found in detections), default=0.0),
                "result": [
                    _label_studio_region(number, found, image)
                    for number, found in enumerate(detections, 1)
                ],
            }
        ],
    }


def _label_studio_region(number: int, found: Detection, image: PictureSize) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(100 * fraction, 4) for fraction in found["box_normalized"])
    return {
        "id": f"box{number}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image["width"],
        "original_height": image["height"],
        "image_rotation": 0,
        "score": found["score"],
        "value": {
            "x": x1,
            "y": y1,
            "width": round(x2 - x1, 4),
            "height": round(y2 - y1, 4),
            "rotation": 0,
            "rectanglelabels": [found["label"]],
        },
    }
