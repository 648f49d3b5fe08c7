"""How well does grounding find things, by COCO's own measure (pycocotools)?

FOLDER is in COCO layout: annotations (a .json file in it or in its annotations/) and pictures
(in images/, in the folder named as the annotations' split, or beside). Every picture is asked for
all categories, or, where the annotations name `neg_category_ids` as LVIS does, for its own and
those. --drawn evaluates scenes that the drawn weights' training never drew.

AP looks at all scores; recall, precision and `absent_fire` (share of absent labels with at least
one box) are of the shipped thresholds. ENGINE, WEIGHTS, DEVICE, DTYPE and COMPILE count as in the
package. One JSON line goes to standard output, and is appended to --out.

    WEIGHTS=drawn python bench/grounding_ap.py --drawn shapes_unseen
    python bench/grounding_ap.py coco-2017 --limit 500
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "grounding"))

from engines import load_engine  # noqa: E402
from tools.drawn.evaluate import evaluate  # noqa: E402
from tools.drawn.heldout import SETS, write_set  # noqa: E402


def main() -> None:
    """Evaluate one folder, or drawn scenes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="in COCO layout")
    parser.add_argument("--drawn", choices=sorted(SETS), help="held-out drawn scenes instead")
    parser.add_argument("--scenes", type=int, default=400, help="how many of those")
    parser.add_argument("--side", type=int, default=160, help="their side in px")
    parser.add_argument("--limit", type=int, help="only the first pictures")
    parser.add_argument("--out", type=Path, help="append to this file")
    chosen = parser.parse_args()
    if (chosen.folder is None) == (chosen.drawn is None):
        parser.error("give a folder or --drawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.folder or Path(scratch)
        if chosen.drawn:
            write_set(chosen.drawn, folder, chosen.scenes, chosen.side)
        engine = load_engine(os.environ)
        try:
            figures = evaluate(engine, folder, chosen.limit)
        except FileNotFoundError as error:
            sys.exit(str(error))
    row = {"bench": "grounding_ap", "weights": engine.name, "data": chosen.drawn or folder.name}
    if chosen.drawn:
        row["side_px"] = chosen.side
    line = json.dumps({**row, **figures})
    print(line, flush=True)
    if chosen.out:
        with chosen.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
