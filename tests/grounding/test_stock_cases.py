"""Cases in which transformers' own post-processing is known to be wrong, side by side with ours.

Both get the same token probabilities and boxes, made by hand; docs/labels.md lists the cases.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from labels import parse_labels
from PIL import Image
from postprocess import merge
from prediction import Prediction
from prompt import build_chunks, tokenize
from transformers import GroundingDinoProcessor

BOX = [0.5, 0.5, 0.2, 0.2]
FAINT = 0.01


@pytest.fixture(scope="module")
def both(detector):
    """Ask stock and ours about one box: labels, probability of each token by its text (a list for
    a token that occurs more than once), thresholds; (stock's texts, our labels and scores)."""
    processor = GroundingDinoProcessor(detector.image_processor, detector.tokenizer)

    def ask(labels, probabilities, text_threshold=0.25, box=BOX):
        def spread(ids):
            left = {
                k: list(v) if isinstance(v, list) else [v] * 9 for k, v in probabilities.items()
            }
            texts = detector.tokenizer.convert_ids_to_tokens(list(ids))
            return [left[text].pop(0) if text in left else FAINT for text in texts]

        picture = Image.new("RGB", (100, 100))
        ids = processor(images=picture, text=[labels], return_tensors="pt")["input_ids"][0].tolist()
        logits = torch.full((1, 1, 256), -torch.inf)
        logits[0, 0, : len(ids)] = torch.tensor(spread(ids)).logit()
        output = SimpleNamespace(logits=logits, pred_boxes=torch.tensor([[box]]))
        (stock,) = processor.post_process_grounded_object_detection(
            output,
            input_ids=torch.tensor([ids]),
            threshold=0.35,
            text_threshold=text_threshold,
            target_sizes=[(100, 100)],
        )
        asked = parse_labels(str(labels).replace("'", '"'), "")
        words = tokenize([label.text for label in asked], detector.tokenizer)
        chunks = build_chunks(words, detector.max_tokens, detector.tokenizer)
        seen = [
            Prediction(np.array([spread(chunk.input_ids)], np.float32), np.array([box], np.float32))
            for chunk in chunks
        ]
        found = merge(seen, chunks, 0.35, text_threshold, None)
        named = [asked[index].name for index in found.labels]
        return stock, list(zip(named, found.scores, strict=True)), found

    return ask


def test_where_one_label_alone_passes_they_agree(both):
    """The plain case: one word, one label, one score."""
    stock, ours, found = both(["cat", "dog"], {"dog": 0.8})
    assert stock["text_labels"] == ["dog"]
    assert ours == [("dog", pytest.approx(0.8))]
    assert float(stock["scores"][0]) == pytest.approx(0.8)
    np.testing.assert_allclose(found.boxes[0] * 100, stock["boxes"][0], atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "probabilities", "stocks", "ours"),
    [
        # words of two labels run together
        (["circle", "square"], {"circle": 0.6, "square": 0.4}, "circle square", "circle"),
        # the article of another label
        (["a cat", "a dog"], {"a": [0.4, 0.7], "dog": 0.8}, "a a dog", "a dog"),
        # a piece of a word
        (["minivans"], {"mini": 0.24, "##van": 0.7, "##s": 0.24}, "##van", "minivans"),
        # one label inside another
        (["car", "red car"], {"car": [0.5, 0.9], "red": 0.9}, "car red car", "red car"),
    ],
)
def test_labels_are_whole_labels(both, labels, probabilities, stocks, ours):
    """Stock strings together whatever tokens pass; ours answers with one of the labels."""
    stock, answered, _ = both(labels, probabilities)
    assert stock["text_labels"] == [stocks]
    assert [label for label, _ in answered] == [ours]


def test_a_period_in_a_label_is_no_error(both):
    """Stock refuses the list, since "." marks the end of a label; here the mark is left out of
    what the model reads and stays in the answer."""
    labels = ["no. 5", "cat"]
    with pytest.raises(ValueError, match="must be a string or list"):
        both(labels, {"no": 0.6, "5": 0.7})
    (label, _) = parse_labels('["no. 5", "cat"]', "")
    assert label == ("no. 5", "no 5")


def test_a_label_is_never_empty(both):
    """Above the box threshold but below the text threshold stock answers with no text at all."""
    stock, ours, _ = both(["cat"], {"cat": 0.4}, text_threshold=0.5)
    assert stock["text_labels"] == [""]
    assert ours == []


def test_one_strong_word_is_not_the_label(both):
    """Something that is a car and not red: stock gives 0.9 and a text that is no label; here
    every word of "red car" must reach the text threshold."""
    stock, ours, _ = both(["red car"], {"red": 0.1, "car": 0.9})
    assert stock["text_labels"] == ["car"]
    assert float(stock["scores"][0]) == pytest.approx(0.9)
    assert ours == []
    _, without, _ = both(["red car"], {"red": 0.1, "car": 0.9}, text_threshold=0.0)
    assert without == [("red car", pytest.approx(0.5))], "0 is the original's COCO evaluation"


def test_boxes_stay_in_the_picture(both):
    """Stock lets a box hang over the edge."""
    stock, _, found = both(["cat"], {"cat": 0.8}, box=[0.05, 0.5, 0.3, 0.3])
    assert float(stock["boxes"][0][0]) == pytest.approx(-10.0)
    assert found.boxes[0].tolist() == pytest.approx([0.0, 0.35, 0.2, 0.65])
