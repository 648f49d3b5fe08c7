"""The endpoint's promises, through the runner."""

import asyncio
import json
import tempfile
import threading

import pytest
from draw import annotate
from engines import load_engine
from errors import InvalidInput
from picture import load_rgb
from PIL import Image
from run import CPU_THREADS, DEFAULT_LABELS


def test_the_apps_three_fields(call, shapes_png):
    """image, text_queries and box_threshold find the sample's shapes, best first."""
    output = call(shapes_png, text_queries="red circle, blue square", box_threshold=0.35)
    assert [d["label"] for d in output.detections] == ["red circle", "blue square"]
    assert [d["label_index"] for d in output.detections] == [0, 1]
    scores = [d["score"] for d in output.detections]
    assert scores == sorted(scores, reverse=True)
    assert (output.image["width"], output.image["height"]) == (480, 360)
    for found, expected in zip(
        output.detections, [[40, 45, 165, 170], [285, 45, 405, 168]], strict=True
    ):
        assert found["box"] == pytest.approx(expected, abs=6)
        assert found["box_normalized"] == pytest.approx(
            [
                found["box"][0] / 480,
                found["box"][1] / 360,
                found["box"][2] / 480,
                found["box"][3] / 360,
            ],
            abs=1e-4,
        )
    assert output.truncated is False
    assert output.model == "drawn"


def test_defaults_are_echoed(call, shapes_png):
    """Without queries the documented list is used, and said."""
    output = call(shapes_png)
    assert output.queries_used == DEFAULT_LABELS.split(", ")
    assert output.thresholds["box_threshold"] == 0.35
    assert output.thresholds["text_threshold"] == 0.25
    assert output.thresholds["nms"] is None
    assert call(shapes_png, text_queries="").queries_used == output.queries_used


def test_nothing_found_is_an_answer(call, shapes_png):
    """A threshold of 1 finds nothing, and that is no error."""
    output = call(shapes_png, text_queries="red circle", box_threshold=1.0, annotated=True)
    assert output.detections == []
    assert output.annotated_image.exists()
    output.annotated_image.unlink()


def test_duplicates_and_unknown_labels(call, shapes_png):
    """Repetitions count once; what the model cannot read is listed, and found nowhere."""
    output = call(shapes_png, text_queries='["Red circle", "red circle.", "🚗", "blue square"]')
    assert output.queries_used == ["Red circle", "🚗", "blue square"]
    assert output.queries_ignored == ["🚗"]
    assert {(d["label"], d["label_index"]) for d in output.detections} == {
        ("Red circle", 0),
        ("blue square", 2),
    }


def test_max_detections_truncates_the_weakest(call, shapes_png):
    """The best stay, and the answer says that there were more."""
    queries = "red circle, blue square, yellow star, green triangle"
    everything = call(shapes_png, text_queries=queries)
    two = call(shapes_png, text_queries=queries, max_detections=2)
    assert len(everything.detections) >= 4
    assert not everything.truncated
    assert two.truncated
    assert two.detections == everything.detections[:2]


def test_nms_leaves_one_box_a_shape(call, shapes_png):
    """With suppression the sample's four shapes are four detections."""
    queries = "red circle, blue square, yellow star, green triangle"
    output = call(shapes_png, text_queries=queries, nms=0.5)
    assert sorted(d["label"] for d in output.detections) == sorted(queries.split(", "))


def test_labels_of_every_chunk_compete(call, shapes_png):
    """64 labels need four passes of the drawn weights; the right ones win, under their index."""
    colours = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]
    kinds = ["circle", "square", "triangle", "star", "ring", "cross", "heart", "arrow"]
    labels = [f"{colour} {kind}" for colour in colours for kind in kinds]
    output = call(shapes_png, text_queries=",".join(labels), box_threshold=0.25, nms=0.5)
    found = {d["label"]: d for d in output.detections}
    assert set(found) == {"red circle", "yellow star", "blue square", "green triangle"}
    for label, detection in found.items():
        assert labels[detection["label_index"]] == label


def test_a_thousand_labels(call, shapes_png):
    """All are searched, none is cut off, and one thing is reported once however many passes
    saw it."""
    words = ["chair", "lamp", "kite", "oven"]
    labels = [f"{word} number {n}" for word in words for n in range(250)]
    there = {100: "red circle", 600: "yellow star", 950: "green triangle"}
    for index, label in there.items():
        labels[index] = label
    output = call(shapes_png, text_queries=json.dumps(labels))
    assert output.queries_used == labels
    assert output.queries_ignored == []
    for found in output.detections:
        assert labels[found["label_index"]] == found["label"]
    certain = [d["label_index"] for d in output.detections if d["score"] > 0.5]
    assert sorted(certain) == sorted(there)


def test_any_size(call, tmp_path):
    """1 × 1 and 8000 × 6000, and slivers, are searched like any picture."""
    for width, height in [(1, 1), (8000, 6000), (3000, 38), (2, 3)]:
        path = tmp_path / "picture.png"
        Image.new("RGB", (width, height), (200, 30, 40)).save(path)
        output = call(path, text_queries="red square", box_threshold=0.0, text_threshold=0.0)
        assert (output.image["width"], output.image["height"]) == (width, height)
        for found in output.detections:
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 <= x2 <= width
            assert 0 <= y1 <= y2 <= height


def test_boxes_are_of_the_upright_picture(call, shapes, tmp_path):
    """A picture stored on its side gives the boxes that its viewer would draw."""
    path = tmp_path / "phone.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    shapes.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    output = call(path, text_queries="red circle, blue square")
    assert (output.image["width"], output.image["height"]) == (480, 360)
    assert output.detections[0]["box"] == pytest.approx([40, 45, 165, 170], abs=6)


def test_the_same_answer_twice(call, shapes_png):
    """Nothing is random, and the text cache changes nothing."""
    first = call(shapes_png, text_queries="yellow star, green triangle")
    assert call(shapes_png, text_queries="yellow star, green triangle") == first


@pytest.mark.parametrize(
    "wrong",
    [(b"", "cat"), (b"text, not pixels", "cat"), (None, "?"), (None, "🚗"), (None, "[1]")],
)
def test_bad_input_leaves_nothing_behind(call, shapes_png, tmp_path, monkeypatch, wrong):
    """The caller's mistakes are InvalidInput, and no file remains in the temporary directory."""

    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    content, queries = wrong
    path = shapes_png
    if content is not None:
        path = tmp_path / "upload.png"
        path.write_bytes(content)
    with pytest.raises(InvalidInput):
        call(path, text_queries=queries, annotated=True)
    assert list(scratch.iterdir()) == []


def test_cancelled_while_it_draws_leaves_no_file(ask, shapes_png, tmp_path, monkeypatch):
    """A prediction cancelled while its picture is drawn leaves no file to clean up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    drawing, go_on = threading.Event(), threading.Event()

    def slowly(canvas, detections, grids):
        drawing.set()
        assert go_on.wait(60)
        return annotate(canvas, detections, grids)

    monkeypatch.setattr("run.annotate", slowly)

    async def cancelled():
        task = asyncio.create_task(ask(shapes_png, text_queries="star", annotated=True))
        assert await asyncio.to_thread(drawing.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(cancelled())  # it waits for its threads
    assert list(tmp_path.iterdir()) == []


def test_few_pictures_are_read_at_once(call_many, shapes_png, monkeypatch):
    """Eight requests at once do not unpack eight times 50 megapixels together."""
    too_many = threading.Barrier(CPU_THREADS + 1)
    met = []

    def waiting_for_others(path):
        try:
            met.append(too_many.wait(timeout=0.5))
        except threading.BrokenBarrierError:
            return load_rgb(path)
        raise AssertionError("one too many")

    monkeypatch.setattr("reading.load_rgb", waiting_for_others)
    answers = call_many(shapes_png, [{"text_queries": "star"}] * 8)
    assert met == []
    assert [answer.queries_used for answer in answers] == [["star"]] * 8


def test_requests_that_share_a_pass_answer_as_if_alone(call_many, call, shapes_png):
    """Gathered, with different labels and thresholds, they are batched; one that is wrong fails
    by itself."""
    asked = [
        {"text_queries": "red circle, blue square"},
        {"text_queries": "yellow star", "box_threshold": 0.2},
        {"text_queries": "?"},
        {"text_queries": "green triangle, red circle", "max_detections": 1},
    ]
    together = call_many(shapes_png, asked)
    assert isinstance(together[2], InvalidInput)
    for inputs, got in zip(asked, together, strict=True):
        if isinstance(got, InvalidInput):
            continue
        alone = call(shapes_png, **inputs)
        assert [d["label"] for d in got.detections] == [d["label"] for d in alone.detections]
        for found, expected in zip(got.detections, alone.detections, strict=True):
            assert found["score"] == pytest.approx(expected["score"], abs=1e-4)
            assert found["box"] == pytest.approx(expected["box"], abs=0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ENGINE": "yolo"}, "one of transformers, coco80, sam3, groundingdino-py, got yolo"),
        ({"COMPILE": "yes"}, "COMPILE must be 0 or 1, got yes"),
    ],
)
def test_a_wrong_setting_fails_at_setup(wrong, message):
    """Before any weights are loaded."""
    with pytest.raises(ValueError, match=message):
        load_engine(wrong)
