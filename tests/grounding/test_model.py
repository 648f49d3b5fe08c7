"""The detector against stock transformers on the same weights."""

import numpy as np
import pytest
import torch
from model import MAX_ROWS, Detector
from PIL import Image
from postprocess import candidates, combine
from prediction import DetectInput
from preprocess import MIN_SIDE_PX, bucket, resize_on, target_size, to_tensor
from prompt import build_chunks, tokenize
from tools.drawn.heldout import cases
from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor
from transformers.image_transforms import get_size_with_aspect_ratio
from weights import PRESETS, resolve

SINGLE_WORDS = ["circle", "square", "star", "triangle"]
SCORE_TOLERANCE = 1e-4  # batched against unbatched; boxes 0.5 px
PHRASES = ["red circle", "blue square", "yellow star", "green triangle"]


@pytest.fixture(scope="module")
def stock():
    """transformers' own model and processor."""
    folder = PRESETS["drawn"].location
    from transformers import AutoTokenizer
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), processor


def stock_answer(stock, picture, labels, box_threshold, text_threshold):
    model, processor = stock
    inputs = processor(images=picture, text=[labels], return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    (answer,) = processor.post_process_grounded_object_detection(
        output,
        threshold=box_threshold,
        text_threshold=text_threshold,
        target_sizes=[(picture.height, picture.width)],
    )
    return output, answer


def ours(detector, picture, labels, box_threshold, text_threshold):
    words = tokenize(labels, detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    seen = detector.detect(
        to_tensor(picture, detector.image_processor), [chunk.input_ids for chunk in chunks]
    )
    passes = [
        candidates(*prediction[:2], chunk.word_spans, chunk.label_indices, number)
        for number, (prediction, chunk) in enumerate(zip(seen, chunks, strict=True))
    ]
    return seen, combine([p.above(box_threshold, text_threshold) for p in passes], None)


def test_raw_answers_equal_stock(detector, stock, shapes):
    """Same pixels, same tokens: the same probabilities and boxes."""
    output, _ = stock_answer(stock, shapes, PHRASES, 0.3, 0.25)
    (seen,), _ = ours(detector, shapes, PHRASES, 0.3, 0.25)
    tokens = seen.token_probabilities.shape[1]
    expected = output.logits[0, :, :tokens].sigmoid().numpy()
    np.testing.assert_allclose(seen.token_probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(seen.boxes, output.pred_boxes[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("labels", "text_threshold"), [(SINGLE_WORDS, 0.45), (PHRASES, 0.25)])
def test_detections_equal_stock_where_stock_is_right(
    detector, stock, shapes, labels, text_threshold
):
    """Where stock's text is one whole label, so are ours: same boxes, same labels; scores are
    equal for one-token labels, and the mean instead of the strongest token for longer ones."""
    _, expected = stock_answer(stock, shapes, labels, 0.35, text_threshold)
    _, got = ours(detector, shapes, labels, 0.35, text_threshold)
    width, height = shapes.size
    right = [row for row, text in enumerate(expected["text_labels"]) if text in labels]
    assert len(right) >= 2
    boxes = got.boxes * np.array([width, height, width, height])
    for row in right:
        reference = expected["boxes"][row].clamp(min=0).numpy()
        match = int(np.abs(boxes - reference).max(axis=1).argmin())
        np.testing.assert_allclose(boxes[match], reference, atol=1e-3)
        assert labels[got.labels[match]] == expected["text_labels"][row]
        if labels is SINGLE_WORDS:
            assert got.scores[match] == pytest.approx(float(expected["scores"][row]), abs=1e-6)
        else:
            assert got.scores[match] <= float(expected["scores"][row]) + 1e-6


def test_stocks_known_wrong_labels_are_right_here(detector, stock, shapes):
    """With overlapping labels stock runs tokens of two together; ours are always whole."""
    labels = ["circle", "red circle", "shape", "red shape", "square", "blue square"]
    _, expected = stock_answer(stock, shapes, labels, 0.2, 0.1)
    wrong = {text for text in expected["text_labels"] if text not in labels}
    assert wrong, "the case must show the defect"
    _, got = ours(detector, shapes, labels, 0.2, 0.1)
    assert len(got.labels) > 0
    assert all(0 <= index < len(labels) for index in got.labels)


def test_chunked_labels_see_the_same_picture(detector, shapes):
    """The backbone's output, remembered between chunks, equals a fresh one."""
    pixels = to_tensor(shapes, detector.image_processor)
    prompts = [
        chunk.input_ids
        for label in PHRASES
        for chunk in build_chunks(tokenize([label], detector.tokenizer), 64, detector.tokenizer)
    ]
    together = detector.detect(pixels, prompts)
    for prompt, seen in zip(prompts, together, strict=True):
        (alone,) = detector.detect(pixels, [prompt])
        np.testing.assert_allclose(
            seen.token_probabilities, alone.token_probabilities, atol=SCORE_TOLERANCE
        )
        np.testing.assert_allclose(seen.boxes, alone.boxes, atol=1e-5)


def test_one_picture_does_not_haunt_the_next(detector, shapes):
    """What is remembered of a picture is gone with it."""
    prompts = [(101, 4418, 1012, 102), (101, 2675, 1012, 102)]
    flipped = shapes.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    detector.detect(to_tensor(shapes, detector.image_processor), prompts)
    second = detector.detect(to_tensor(flipped, detector.image_processor), prompts)
    fresh = detector.detect(to_tensor(flipped, detector.image_processor), prompts[:1])
    np.testing.assert_allclose(second[0].boxes, fresh[0].boxes, atol=1e-5)


def flips(shapes):
    """Four pictures of one size, all different."""
    turns = (None, *(Image.Transpose(n) for n in (0, 1, 3)))
    return [shapes if turn is None else shapes.transpose(turn) for turn in turns]


def assert_same(got, expected, size):
    """Within 1e-4 in score and 0.5 px."""
    np.testing.assert_allclose(
        got.token_probabilities, expected.token_probabilities, atol=SCORE_TOLERANCE
    )
    pixels = np.abs(got.boxes - expected.boxes) * np.array([*size, *size])
    assert pixels.max() <= 0.5


def test_batched_equals_unbatched(detector, shapes):
    """Different pictures with labels of different number and length share passes, more than
    MAX_ROWS of them, and each gets the answer that it would get alone."""
    inputs = []
    for number, picture in enumerate(flips(shapes)):
        labels = [*PHRASES, "striped umbrella", "star"][: number + 1] * (1 + 19 * (number == 3))
        words = tokenize([f"{label} {n}" for n, label in enumerate(labels)], detector.tokenizer)
        chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
        inputs.append(DetectInput(detector.prepare(picture), tuple(c.input_ids for c in chunks)))
    assert sum(len(one.prompts) for one in inputs) > MAX_ROWS
    together = detector.detect_many(inputs)
    for one, predictions in zip(inputs, together, strict=True):
        assert len(predictions) == len(one.prompts)
        for prompt, seen in zip(one.prompts, predictions, strict=True):
            (alone,) = detector.detect(one.pixels, [prompt])
            assert seen.token_probabilities.shape == alone.token_probabilities.shape
            assert_same(seen, alone, shapes.size)


def test_compiled_equals_eager(detector, shapes):
    """Captured as graphs, with prompts and batches filled up to the sizes kept: the same answers.
    aot_eager captures as inductor does, without its minutes of code generation."""
    torch._dynamo.utils.counters.clear()
    compiled = Detector(resolve("drawn"), "cpu", "float32", "aot_eager")
    words = tokenize(PHRASES, detector.tokenizer)
    (chunk,) = build_chunks(words, detector.max_tokens, detector.tokenizer)
    inputs = [DetectInput(compiled.prepare(p), (chunk.input_ids,)) for p in flips(shapes)[:3]]
    for got, expected in zip(
        compiled.detect_many(inputs), detector.detect_many(inputs), strict=True
    ):
        assert_same(got[0], expected[0], shapes.size)
    count = torch._dynamo.utils.counters
    assert count["stats"]["unique_graphs"] == 3, "vision backbone, encoder, decoder"
    assert not count["graph_break"]
    compiled.detect_many(inputs[:1] * 4)  # four rows were compiled for three
    assert count["stats"]["unique_graphs"] == 3


@pytest.mark.parametrize("size", [(640, 480), (100, 75), (161, 3), (1, 1), (1000, 1000)])
def test_the_devices_resize_equals_pillows(detector, size):
    """Within one level of 255: Pillow rounds once more between its two passes."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    processor = detector.image_processor
    expected = to_tensor(picture, processor)
    target = (processor.size.width, processor.size.height)
    got = resize_on(torch.device("cpu"), picture, target, processor)
    assert got.shape == expected.shape
    level = 1 / 255 / min(processor.image_std)
    assert float((got - expected).abs().max()) <= 1.01 * level


def test_the_devices_resize_changes_no_detection(detector, shapes):
    """What differs by a level moves scores by less than a hundredth and boxes by less than a px."""
    words = tokenize(PHRASES, detector.tokenizer)
    (chunk,) = build_chunks(words, detector.max_tokens, detector.tokenizer)
    processor = detector.image_processor
    target = (processor.size.width, processor.size.height)
    on_device = resize_on(torch.device("cpu"), shapes, target, processor)
    (expected,) = detector.detect(to_tensor(shapes, processor), [chunk.input_ids])
    (got,) = detector.detect(on_device, [chunk.input_ids])
    rows = expected.token_probabilities.max(axis=1) > 0.35
    assert rows.sum() >= 4
    np.testing.assert_allclose(
        got.token_probabilities[rows], expected.token_probabilities[rows], atol=0.01
    )
    assert (np.abs(got.boxes - expected.boxes)[rows] * shapes.width).max() < 1


def test_buckets_are_few_and_near():
    """Every aspect from 1:2 to 2:1 shares some 27 sizes, stretched by at most 4 %."""
    limits = {"shortest_edge": 800, "longest_edge": 1333}
    found = set()
    for long in range(1000, 2001, 7):
        for size in ((long, 1000), (1000, long)):
            exact = target_size(*size, limits)
            near = bucket(*exact)
            found.add(near)
            assert all(side % 32 == 0 for side in near)
            stretch = near[0] / near[1] / (exact[0] / exact[1])
            assert max(stretch, 1 / stretch) <= 1.045
    assert len(found) <= 28


def test_half_precision_is_finite_and_close(detector):
    """Autocast gives no NaN (the model cast as a whole does) and the same boxes.

    Scores too, but where two of the proposals that the decoder starts from are nearly equal:
    the other may be taken, and the score of what it finds differs.
    """
    half = Detector(resolve("drawn"), "cpu", "float16")
    off, moved = [], []
    for scene, wanted in cases("shapes", 16, seed=5) + cases("all", 16, seed=6):
        labels = [phrase.text for phrase in wanted]
        picture = Image.fromarray(scene.pixels)
        _, exact = ours(detector, picture, labels, 0.35, 0.25)
        _, close = ours(half, picture, labels, 0.0, 0.0)
        assert np.isfinite(close.scores).all()
        for label in set(exact.labels):  # the best box of each
            row, reference = (int((found.labels == label).argmax()) for found in (close, exact))
            off.append(abs(close.scores[row] - exact.scores[reference]))
            moved.append(np.abs(close.boxes[row] - exact.boxes[reference]).max())
    assert len(off) >= 50
    assert np.quantile(off, 0.9) <= 0.02
    assert max(off) <= 0.3
    assert max(moved) <= 0.02


def test_overflow_in_float16_falls_back_to_float32(shapes):
    """Weights too large for float16 give float32's answer, from then on."""
    half, exact = (Detector(resolve("drawn"), "cpu", dtype) for dtype in ("float16", "float32"))
    for loaded in (half, exact):
        with torch.no_grad():
            fusion = loaded.model.model.encoder.layers[0].fusion_layer.attn
            fusion.vision_proj.weight.mul_(3000)
            fusion.text_proj.weight.mul_(3000)
    (got,), _ = ours(half, shapes, PHRASES, 0.3, 0.25)
    (expected,), _ = ours(exact, shapes, PHRASES, 0.3, 0.25)
    np.testing.assert_array_equal(got.token_probabilities, expected.token_probabilities)
    assert half.dtype is torch.float32


def test_nan_is_an_error_not_an_answer(shapes):
    """Broken weights raise; they never become numbers in an answer."""
    broken = Detector(resolve("drawn"), "cpu", "float32")
    with torch.no_grad():
        next(broken.model.bbox_embed.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        ours(broken, shapes, PHRASES, 0.3, 0.25)


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (1333, 800), (800, 800), (4000, 300), (8000, 6000), (33, 97)]
)
def test_sizes_equal_transformers(size):
    """Shortest edge 800, longest 1333: to the pixel as transformers rounds."""
    width, height = size
    expected = get_size_with_aspect_ratio((height, width), 800, 1333)
    got = target_size(width, height, {"shortest_edge": 800, "longest_edge": 1333})
    assert got == (expected[1], expected[0])


@pytest.mark.parametrize("size", [(8000, 1), (1, 8000), (1, 1)])
def test_no_side_vanishes(size):
    """The most extreme shapes still have a side that the backbone can take."""
    got = target_size(*size, {"shortest_edge": 800, "longest_edge": 1333})
    assert min(got) >= MIN_SIDE_PX
    assert max(got) <= 1333


def test_presets_name_no_path_and_folders_only_their_name(tmp_path):
    """What an answer says about its weights gives nothing away."""
    assert resolve(None) == resolve("full") == PRESETS["llmdet-base"]
    assert resolve("someone/their-model").location == "someone/their-model"
    folder = tmp_path / "fine-tuned"
    folder.mkdir()
    assert resolve(str(folder)).name == "fine-tuned"


def test_wrong_precision_fails_at_once():
    """A typing mistake in DTYPE names the choices."""
    with pytest.raises(ValueError, match="float32, float16, got half"):
        Detector(resolve("drawn"), "cpu", "half")


@pytest.fixture(scope="module")
def random_mm_grounding_dino(tmp_path_factory, tokenizer):
    """A tiny MM-Grounding-DINO (LLMDet's architecture) with random weights, saved as the hub has
    them."""
    from transformers import (
        BertConfig,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], out_indices=[2, 3]
    )
    bert = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config = MMGroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=12,
        num_feature_levels=3,
        disable_custom_kernels=True,
    )
    folder = tmp_path_factory.mktemp("mm")
    MMGroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 160})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_the_defaults_architecture_loads_and_equals_stock(random_mm_grounding_dino, shapes):
    """The default preset is an MM-Grounding-DINO: the same path loads one from a folder, keeps
    the aspect ratio, and answers as stock does, also when the labels need several passes."""
    detector = Detector(resolve(str(random_mm_grounding_dino)), "cpu", "float32")
    model = AutoModelForZeroShotObjectDetection.from_pretrained(random_mm_grounding_dino).eval()
    pixels = to_tensor(shapes, detector.image_processor)
    assert pixels.shape == (1, 3, 96, 128)
    labels = [f"red thing {n}" for n in range(100)]
    words = tokenize(labels, detector.tokenizer)
    chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
    assert len(chunks) == 2
    seen = detector.detect(pixels, [chunk.input_ids for chunk in chunks])
    for chunk, prediction in zip(chunks, seen, strict=True):
        ids = torch.tensor([chunk.input_ids])
        with torch.inference_mode():
            output = model(pixel_values=pixels, input_ids=ids)
        expected = output.logits[0, :, : ids.shape[1]].sigmoid().numpy()
        np.testing.assert_allclose(prediction.token_probabilities, expected, atol=1e-6)
        np.testing.assert_allclose(prediction.boxes, output.pred_boxes[0].numpy(), atol=1e-6)


def test_attention_is_fused_where_it_can_be():
    """In the picture and text encoders; transformers has nothing faster for the rest."""
    model = Detector(resolve("drawn"), "cpu").model
    parts = (model.model.backbone, model.model.text_backbone)
    used = {
        module.config._attn_implementation
        for part in parts
        for module in part.modules()
        if type(module).__name__ in ("SwinAttention", "BertSelfAttention")
    }
    assert used == {"sdpa"}
