"""SAM 3 against stock transformers on the same random weights, and through the runner."""

import asyncio

import numpy as np
import pytest
import rows
import sam3
import tiny_sam3
import torch
import torch.nn.functional as F
from conftest import with_defaults
from engines import load_engine
from errors import InvalidInput
from masks import encode
from PIL import Image
from prediction import DetectInput
from run import Runner
from sam3 import Sam3Detector, bytes_of_row
from test_masks import decoded
from test_rows import LiveBytes
from transformers.models.sam3.modeling_sam3 import Sam3Model
from weights import PRESETS, resolve

LABELS = ["red circle", "blue square", "a star", "Бабушка", "green triangle"]
FLOOR = 0.2
"""A score that some of the random weights' queries reach and some do not."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sam3.write(tmp_path_factory.mktemp("tiny-sam3"))


@pytest.fixture(scope="module")
def tiny(folder):
    return Sam3Detector(resolve(str(folder)), "cpu")


@pytest.fixture(scope="module")
def stock(folder):
    return Sam3Model.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def turned(shapes):
    return shapes.transpose(Image.Transpose.ROTATE_180)


@pytest.fixture(scope="module")
def sam3_runner(folder):
    patch = pytest.MonkeyPatch()
    patch.setenv("WEIGHTS", str(folder))
    runner = Runner()
    runner.setup()
    patch.undo()
    yield runner
    runner.batcher.close()


def stock_answers(stock, picture, label, masks_from):
    """Scores, boxes and masks of the queries from a score on, by the steps of the library's
    processor, whose module needs torchvision: tokenizer, model, post-processing."""
    pixels = F.interpolate(
        torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None],
        (tiny_sam3.SIDE_PX,) * 2, mode="bilinear", antialias=True,
    )  # fmt: skip
    text = tiny_sam3.tokenizer()([label], padding="max_length", max_length=32, return_tensors="pt")
    with torch.inference_mode():
        output = stock(pixel_values=(pixels / 255 - 0.5) / 0.5, **text)
    scores = (output.pred_logits.sigmoid() * output.presence_logits.sigmoid())[0].numpy()
    kept = output.pred_masks.sigmoid()[:, scores >= masks_from]
    size = picture.size[::-1]
    masks = F.interpolate(kept, size, mode="bilinear", align_corners=False)[0] > 0.5
    return scores, output.pred_boxes[0].numpy(), masks.numpy()


def detect(engine, pictures, labels, masks_from):
    """A list of predictions for each picture."""
    prompts = tuple(chunk.input_ids for chunk in engine.read_labels(labels).chunks)
    inputs = [DetectInput(engine.prepare(one), prompts, masks_from) for one in pictures]
    return engine.detect_many(inputs)


@pytest.mark.parametrize("labels", [LABELS[:1], LABELS])
def test_scores_boxes_and_masks_equal_stock(tiny, stock, shapes, turned, labels):
    """Alone, and two pictures with five labels each in common passes."""
    pictures = [shapes, turned][: len(labels)]
    seen = detect(tiny, pictures, labels, FLOOR)
    some = 0
    for picture, predictions in zip(pictures, seen, strict=True):
        for label, found in zip(labels, predictions, strict=True):
            scores, boxes, masks = stock_answers(stock, picture, label, FLOOR)
            np.testing.assert_allclose(found.token_probabilities[:, 0], scores, atol=1e-5)
            centre, size = found.boxes[:, :2], found.boxes[:, 2:]
            np.testing.assert_allclose(centre - size / 2, boxes[:, :2], atol=1e-5)
            np.testing.assert_allclose(centre + size / 2, boxes[:, 2:], atol=1e-5)
            assert list(found.masks) == np.flatnonzero(scores >= FLOOR).tolist()
            for grid, expected in zip(found.masks.values(), masks, strict=True):
                mine = decoded(encode(grid, *picture.size))
                assert (mine != expected).mean() < 0.002
                some += expected.any() and not expected.all()
    assert some > 2  # masks that are neither empty nor full


def test_the_backbone_runs_once_for_all_labels(tiny, shapes):
    """And the text encoder once for each label, also over several requests; without masks the
    mask decoder does not run."""
    calls = []
    parts = {
        "backbone": tiny.model.vision_encoder.backbone, "text": tiny.model.text_encoder,
        "masks": tiny.model.mask_decoder.module,
    }  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
        for name, part in parts.items()
    ]
    tiny._text_cache.clear()
    with_masks = detect(tiny, [shapes], LABELS, 0.0)[0]
    without = detect(tiny, [shapes], LABELS, None)[0]
    for hook in hooks:
        hook.remove()
    assert [calls.count(name) for name in ("backbone", "text", "masks")] == [2, 5, 1]
    assert [len(one.masks) for one in with_masks] == [tiny_sam3.QUERIES] * 5
    for one, other in zip(with_masks, without, strict=True):
        assert not other.masks
        np.testing.assert_allclose(other.token_probabilities, one.token_probabilities, atol=1e-6)


def test_the_input_is_the_stretched_picture(tiny, shapes):
    """transformers' processor gives the same tensor to the bit where torchvision is (checked by
    hand); Pillow's filter is within one level of 255."""
    square = shapes.resize((tiny_sam3.SIDE_PX,) * 2, Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 127.5 - 1
    pixels = tiny.prepare(shapes)
    assert (pixels.shape, pixels.dtype) == ((1, 3, 112, 112), torch.float32)
    torch.testing.assert_close(pixels, expected, atol=1.01 / 127.5, rtol=0)
    assert tiny.prepare(Image.new("RGB", (9000, 1))).shape == pixels.shape


def test_half_precision_is_near(folder, shapes):
    """Autocast, as a GPU has it."""
    exact = detect(Sam3Detector(resolve(str(folder)), "cpu"), [shapes], LABELS, FLOOR)[0]
    rough = detect(Sam3Detector(resolve(str(folder)), "cpu", "bfloat16"), [shapes], LABELS, 0)[0]
    for one, other in zip(exact, rough, strict=True):
        np.testing.assert_allclose(other.token_probabilities, one.token_probabilities, atol=0.02)
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.03)
        for query, grid in one.masks.items():
            assert ((grid > 127) != (other.masks[query] > 127)).mean() < 0.1
    with pytest.raises(ValueError, match="float32, float16, bfloat16, got half"):
        Sam3Detector(resolve(str(folder)), "cpu", "half")


def test_what_overflows_is_done_in_float32(folder, shapes):
    """The answer is float32's, and so are the next ones; NaN in float32 is an error."""
    engine = Sam3Detector(resolve(str(folder)), "cpu", "float16")
    bad = [torch.float16]

    def overflows(module, args, output):
        if engine.dtype in bad:
            output.last_hidden_state.fill_(float("inf"))

    engine.model.text_encoder.register_forward_hook(overflows)
    exact = detect(Sam3Detector(resolve(str(folder)), "cpu"), [shapes], LABELS, None)[0]
    for one, other in zip(exact, detect(engine, [shapes], LABELS, None)[0], strict=True):
        np.testing.assert_allclose(other.token_probabilities, one.token_probabilities, atol=1e-6)
    bad.append(engine.dtype)
    with pytest.raises(FloatingPointError):
        detect(engine, [shapes], ["another"], None)


def test_rows_are_halved_when_memory_runs_out(folder, shapes, monkeypatch):
    """Five labels, and room for one: all are answered, and nothing of a failed pass stays."""
    monkeypatch.setattr(rows, "free_bytes", lambda device: None)
    engine = Sam3Detector(resolve(str(folder)), "cpu")
    expected = detect(engine, [shapes], LABELS, FLOOR)[0]
    sizes = []

    def scarce(module, args, kwargs):
        sizes.append(len(kwargs["text_features"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine.model.detr_encoder.register_forward_pre_hook(scarce, with_kwargs=True)
    seen = detect(engine, [shapes], LABELS, FLOOR)[0]
    assert sizes == [5, 2, 1, 1, 1, 1, 1]
    for one, other in zip(expected, seen, strict=True):
        np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-5)
        assert other.masks.keys() == one.masks.keys()


@pytest.mark.parametrize("masks_from", [None, 2.0])
def test_the_estimate_is_above_what_a_row_takes_but_not_far(tmp_path, masks_from):
    """Counted at the published width of all that follows the backbone, two layers deep."""
    wide = tiny_sam3.write(tmp_path, width=256, heads=8, side=504, queries=200)
    engine = Sam3Detector(resolve(str(wide)), "cpu")
    prompt = engine.read_labels(["cat"]).chunks[0].input_ids
    pixels = torch.zeros(1, 3, 504, 504)
    see, before = engine._see, []
    with LiveBytes() as counted:

        def seen(batch):
            levels = see(batch)
            before.append(counted.live)
            counted.peak = counted.live
            return levels

        engine._see = seen
        engine.detect_many([DetectInput(pixels, (prompt,) * 4, masks_from)])
    taken = (counted.peak - before[0]) / 4
    estimate = bytes_of_row((36 * 36, int(masks_from is not None)))
    assert taken <= estimate <= 1.5 * taken


def test_only_the_best_masks_of_a_request_are_kept(tiny, shapes, monkeypatch):
    """A score of 0 and many labels cannot fill the memory."""
    monkeypatch.setattr(sam3, "MOST_MASKS", 7)
    seen = detect(tiny, [shapes], LABELS * 20, 0.0)[0]
    every = np.concatenate([one.token_probabilities[:, 0] for one in seen])
    kept = [one.token_probabilities[query, 0] for one in seen for query in one.masks]
    assert len(kept) == 7
    assert min(kept) == np.sort(every)[-7]


def test_labels_that_do_not_fit(tiny):
    """A long one is named by its place; what spells a special token does not end the label."""
    with pytest.raises(InvalidInput, match="label 2 of 'text_queries' must have at most 30 tokens"):
        tiny.read_labels(["cat", "c" * 31])
    assert len(tiny.read_labels(["c" * 30]).chunks[0].input_ids) == 32
    query = tiny.read_labels(["<|endoftext|>", "cat<|endoftext|>dog", "cat"])
    assert query.ignored == {0}
    assert [chunk.label_indices for chunk in query.chunks] == [(1,), (2,)]
    assert query.chunks[0].input_ids[1:-1].count(513) == 0
    with pytest.raises(InvalidInput, match="words that the model knows"):
        tiny.read_labels(["<|endoftext|>"])


def test_through_the_runner(sam3_runner, stock, shapes, shapes_png):
    """Both forms of mask, COCO's export and the drawn picture, from file to output."""

    def ask(**inputs):
        more = {"box_threshold": FLOOR, "text_threshold": 0.0, "text_queries": ", ".join(LABELS)}
        return asyncio.run(with_defaults(sam3_runner, shapes_png, more | inputs))

    plain = ask()
    output = ask(masks="rle", format="coco", annotated=True)
    assert len(output.detections) > 2
    output.annotated_image.unlink()
    without = [{k: v for k, v in d.items() if k != "mask"} for d in output.detections]
    assert without == plain.detections
    best = output.detections[0]
    scores, boxes, masks = stock_answers(stock, shapes, best["label"], 0.0)
    query = scores.argmax()
    assert best["score"] == pytest.approx(scores[query], abs=1e-4)
    expected = boxes[query].clip(0, 1) * [480, 360, 480, 360]
    assert best["box"] == pytest.approx(expected.tolist(), abs=0.02)
    assert (decoded(best["mask"]) != masks[query]).mean() < 0.002
    annotation = output.export["annotations"][0]
    assert annotation["segmentation"] == best["mask"]
    pieces = ask(masks="polygon").detections[0]["polygons"]
    assert sum(len(piece) for piece in pieces) > 8
    # Both thresholds are for the score of the label.
    assert not ask(box_threshold=0.0, text_threshold=1.0).detections
    high = ask(masks="rle", box_threshold=0.0, text_threshold=best["score"] - 0.001).detections
    assert high[0]["mask"] == best["mask"]


def test_other_weights_refuse_masks(call, shapes_png):
    """By name, before anything is read."""
    with pytest.raises(InvalidInput, match=r"weights drawn 'masks' must be none, got rle .*sam3"):
        call(shapes_png, masks="rle")


def test_which_weights_are_sam3(folder, monkeypatch):
    """The preset, a folder by its configuration, and a hub id with ENGINE."""
    loaded = []
    monkeypatch.setattr(sam3, "Sam3Detector", lambda source, *_: loaded.append(source))
    load_engine({"WEIGHTS": "sam3", "DEVICE": "cpu"})
    load_engine({"ENGINE": "sam3"})
    load_engine({"WEIGHTS": "someone/their-sam3", "ENGINE": "sam3", "DEVICE": "cpu"})
    load_engine({"WEIGHTS": str(folder), "DEVICE": "cpu"})
    assert loaded[:2] == [PRESETS["sam3"]] * 2
    assert [source.location for source in loaded[2:]] == ["someone/their-sam3", str(folder)]
    with pytest.raises(ValueError, match="WEIGHTS llmdet-tiny needs ENGINE=transformers, got sam3"):
        load_engine({"WEIGHTS": "llmdet-tiny", "ENGINE": "sam3"})
    assert resolve(None).engine == "transformers"
