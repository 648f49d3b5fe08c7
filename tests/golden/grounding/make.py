"""Write shapes.json, what the drawn weights find in the sample picture: only `make golden` may.

python tests/golden/grounding/make.py
"""

import asyncio
import hashlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parents[2] / "grounding"
INPUTS = {
    "text_queries": "red circle, blue square, yellow star, green triangle, purple heart",
    "box_threshold": 0.35,
    "text_threshold": 0.25,
    "max_detections": 100,
    "nms": 0.5,
    "annotated": False,
    "format": "detections",
    "masks": "none",
}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Run the package on its sample and keep the answer."""
    sys.path.insert(0, str(PACKAGE))
    os.environ.update(WEIGHTS="drawn", DEVICE="cpu", DTYPE="float32")
    from cog import Path as CogPath
    from run import Runner

    runner = Runner()
    runner.setup()
    picture = PACKAGE / "samples" / "shapes.png"
    output = asyncio.run(runner.run(image=CogPath(picture), **INPUTS))
    record = {
        "source": "grounding/samples/draw.py",
        "licence": "CC0-1.0",
        "picture_sha256": sha256(picture),
        "weights_sha256": sha256(PACKAGE / "weights" / "drawn" / "model.safetensors"),
        "inputs": INPUTS,
        "tolerance": {"score": 0.01, "box_px": 1.0},
        "detections": output.detections,
    }
    (HERE / "shapes.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
