"""The answer in the formats of other tools, and drawn."""

import draw
import numpy as np
import pytest
from draw import annotate, label_colour, save, shrunk
from formats import export, to_coco, to_detections, to_label_studio
from outputs import PictureSize
from PIL import Image

SIZE = PictureSize(width=200, height=100)
LABELS = ["cat", "dog"]
FOUND = to_detections(
    np.array([[0.1, 0.2, 0.5, 0.8], [0.0, 0.0, 1.0, 1.0]], np.float32),
    np.array([0.9, 0.4], np.float32),
    np.array([1, 0]),
    LABELS,
    SIZE,
)


def test_detections_are_in_pixels_and_fractions():
    """x scales with the width, y with the height; plain floats, rounded."""
    first = FOUND[0]
    assert (first["label"], first["label_index"], first["score"]) == ("dog", 1, 0.9)
    assert first["box"] == [20.0, 20.0, 100.0, 80.0]
    assert first["box_normalized"] == pytest.approx([0.1, 0.2, 0.5, 0.8])
    assert all(
        type(value) is float for value in [first["score"], *first["box"], *first["box_normalized"]]
    )


def test_coco():
    """Boxes are x, y, width, height in px; category ids start at 1 and all labels are listed."""
    data = to_coco(FOUND, SIZE, LABELS)
    assert data["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert data["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        "bbox": [20.0, 20.0, 80.0, 60.0],
        "area": 4800.0,
        "iscrowd": 0,
        "score": 0.9,
    }
    assert {a["image_id"] for a in data["annotations"]} == {data["images"][0]["id"]}


def test_label_studio():
    """Boxes are percentages, with the size they were measured on."""
    task = to_label_studio(FOUND, SIZE, "demo")
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "demo"
    region = prediction["result"][0]
    assert region["value"] == {
        "x": pytest.approx(10, abs=1e-3),
        "y": pytest.approx(20, abs=1e-3),
        "width": pytest.approx(40, abs=1e-3),
        "height": pytest.approx(60, abs=1e-3),
        "rotation": 0,
        "rectanglelabels": ["dog"],
    }
    assert (region["original_width"], region["original_height"]) == (200, 100)


def test_formats_of_nothing():
    """An empty answer exports as an empty data set."""
    assert export("detections", FOUND, SIZE, LABELS, "demo") is None
    assert to_coco([], SIZE, LABELS)["annotations"] == []
    assert to_label_studio([], SIZE, "demo")["predictions"][0]["result"] == []


def test_annotated_picture_shows_the_boxes(tmp_path, monkeypatch):
    """The frame of a detection has its label's colour; the file lies in the temporary folder."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = save(annotate(Image.new("RGB", (200, 100), "white"), FOUND[:1], [None]))
    assert path.parent == tmp_path
    with Image.open(path) as drawn:
        assert drawn.size == (200, 100)
        pixel = np.array(drawn.convert("RGB").getpixel((60, 80)), int)  # the bottom edge
    assert np.abs(pixel - label_colour(1)).max() < 90  # JPEG


def test_labels_keep_out_of_each_others_way(monkeypatch):
    """Also those of boxes that lie on each other, at an edge, or inside out; all in the picture."""
    places = []
    free = draw._free

    def noted(*args):
        places.append(free(*args))
        return places[-1]

    monkeypatch.setattr(draw, "_free", noted)
    size = PictureSize(width=640, height=480)
    boxes = np.array([[0.4, 0.4, 0.8, 0.8]] * 6 + [[0, 0, 1, 1], [0.9, 0.9, 1.0, 0.8]], np.float32)
    found = to_detections(boxes, np.full(8, 0.5, np.float32), np.zeros(8, int), LABELS, size)
    annotate(Image.new("RGB", (640, 480)), found, [None] * 8)
    assert len(places) == 8
    assert all(0 <= p[0] < p[2] <= 640 and 0 <= p[1] < p[3] <= 480 for p in places)
    assert not any(draw._overlap(a, b) for i, a in enumerate(places) for b in places[:i])


def test_a_label_that_no_font_has_is_a_number(monkeypatch):
    """And not a row of boxes."""
    monkeypatch.setattr(draw, "font_for", lambda text, size_px: None)
    text, _ = draw._text(FOUND[0], 12)
    assert text == "label 2: 0.90"


@pytest.mark.parametrize(
    ("size", "expected"), [((8000, 6000), (2048, 1536)), ((9000, 1), (2048, 1)), ((9, 5), (9, 5))]
)
def test_the_canvas_is_bounded_and_a_copy(size, expected):
    """A large picture is drawn smaller: the answer carries it. A small one is not touched."""
    picture = Image.new("RGB", size, "white")
    canvas = shrunk(picture)
    assert canvas.size == expected
    canvas.paste((0, 0, 0), (0, 0, *expected))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_neighbouring_labels_differ_in_colour():
    """The first twenty labels have distinct colours."""
    colours = [label_colour(n) for n in range(20)]
    assert len(set(colours)) == 20
    assert colours[0] == label_colour(0)
