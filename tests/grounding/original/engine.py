"""Runs the package itself with ENGINE=groundingdino-py, in the original's environment.

engine.py PICTURE INPUTS.json ANSWER.json, with WEIGHTS and BERT in the environment.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import torchvision_ops

_operators = torchvision_ops.install()
sys.path.insert(0, str(Path(__file__).parents[3] / "grounding"))
os.environ.update(ENGINE="groundingdino-py", DEVICE="cpu")

from cog import Path as CogPath  # noqa: E402 - the operators come first
from run import Runner  # noqa: E402


def main(picture, inputs, answer):
    """One prediction, as coglet would ask for it."""
    runner = Runner()
    runner.setup()
    given = json.loads(Path(inputs).read_text())
    output = asyncio.run(runner.run(image=CogPath(picture), **given))
    fields = ("detections", "image", "queries_used", "thresholds", "truncated", "model")
    Path(answer).write_text(json.dumps({name: getattr(output, name) for name in fields}))


if __name__ == "__main__":
    main(*sys.argv[1:])
