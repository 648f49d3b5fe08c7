"""Writes held-out scenes as a folder in COCO layout.

    python -m tools.drawn.heldout SET OUT

Each picture's `neg_category_ids` (LVIS's name) are its absent labels.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tools.drawn.scenes import Scene, draw_scene
from tools.drawn.vocabulary import ALL_PAIRS, SEEN, SHAPES, UNSEEN, Pair, Phrase, caption

MOST_LABELS = 8
"""Labels per picture, at most; at least one."""


class Set(NamedTuple):
    """How a set is drawn."""

    seed: int
    pairs: tuple[Pair, ...]
    counted: frozenset[Pair]
    """The evaluated pairs. Each picture has at least one thing of them; other things and labels
    occur too."""


def _shapes(pairs: Sequence[Pair] | frozenset[Pair]) -> tuple[Pair, ...]:
    return tuple(sorted(pair for pair in pairs if pair[1] in SHAPES))


SETS = {
    "shapes": Set(900_001, _shapes(SEEN), frozenset(_shapes(SEEN))),
    "shapes_unseen": Set(900_002, _shapes(ALL_PAIRS), frozenset(_shapes(UNSEEN))),
    "all": Set(900_003, SEEN, frozenset(SEEN)),
    "all_unseen": Set(900_004, ALL_PAIRS, UNSEEN),
}
"""Shapes alone and with everyday things; pairs that are in training and pairs that are not."""


def cases(
    name: str, count: int, side: int = 160, seed: int | None = None
) -> list[tuple[Scene, list[Phrase]]]:
    """The first `count` scenes of a set with their labels, each a colour and a kind.

    seed: for other scenes of the same distribution (calibration must not use the set's own).
    """
    chosen = SETS[name]
    rng = random.Random(chosen.seed if seed is None else seed)
    found: list[tuple[Scene, list[Phrase]]] = []
    while len(found) < count:
        scene = draw_scene(rng, side, side, chosen.pairs)
        labels = caption(
            rng, scene.things, chosen.pairs, rng.randint(1, MOST_LABELS), pairs_only=True
        )
        if any((thing.colour, thing.kind) in chosen.counted for thing in scene.things):
            found.append((scene, labels))
    return found


def write_set(name: str, folder: Path, count: int, side: int = 160) -> None:
    """images/*.png and instances.json; `evaluated_category_ids` are the pairs that count."""
    chosen = SETS[name]
    ids = {pair: number for number, pair in enumerate(chosen.pairs, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, (scene, labels) in enumerate(cases(name, count, side), 1):
        file_name = f"{number:06}.png"
        Image.fromarray(scene.pixels).save(folder / "images" / file_name)
        asked = {ids[label.colour or "", label.kind or ""] for label in labels}
        for box, thing in zip(scene.boxes, scene.things, strict=True):
            if (category := ids[thing.colour, thing.kind]) in asked:
                size = [box[2] - box[0], box[3] - box[1]]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [box[0], box[1], *size],
                        "area": size[0] * size[1],
                        "iscrowd": 0,
                    }
                )
        present = {a["category_id"] for a in annotations if a["image_id"] == number}
        height, width = scene.pixels.shape[:2]
        size_px = {"width": width, "height": height}
        absent = sorted(asked - present)
        images.append({"id": number, "file_name": file_name, **size_px, "neg_category_ids": absent})
    record = {
        "info": {"evaluated_category_ids": sorted(ids[pair] for pair in chosen.counted)},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": ids[pair], "name": " ".join(pair)} for pair in chosen.pairs],
    }
    (folder / "instances.json").write_text(json.dumps(record))


def main() -> None:
    """Write one set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--side", type=int, default=160, help="px")
    chosen = parser.parse_args()
    write_set(chosen.set, chosen.out, chosen.scenes, chosen.side)


if __name__ == "__main__":
    main()
