"""The sample's answer does not drift."""

import hashlib
import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "grounding" / "shapes.json"


def test_sample_gives_the_recorded_answer(call, shapes_png):
    """Labels as recorded, scores and boxes within the recorded tolerance; the record is of this
    picture and these weights."""
    golden = json.loads(GOLDEN.read_text())
    weights = shapes_png.parents[1] / "weights" / "drawn" / "model.safetensors"
    assert hashlib.sha256(shapes_png.read_bytes()).hexdigest() == golden["picture_sha256"]
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == golden["weights_sha256"]
    got = call(shapes_png, **golden["inputs"]).detections
    assert [d["label"] for d in got] == [d["label"] for d in golden["detections"]]
    for found, expected in zip(got, golden["detections"], strict=True):
        assert found["score"] == pytest.approx(expected["score"], abs=golden["tolerance"]["score"])
        assert found["box"] == pytest.approx(expected["box"], abs=golden["tolerance"]["box_px"])
