"""From token probabilities to labelled boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from postprocess import (
    CROSS_CHUNK_IOU,
    candidates,
    combine,
    label_scores,
    overlaps,
    to_corners,
)

F = np.float32
PROBABILITY = st.floats(0, 1, width=32)


def found(boxes, scores, labels, chunk=0):
    """One pass whose labels are one token each, with boxes given as corners."""
    boxes = np.asarray(boxes, F)
    count = max(labels) + 1
    probabilities = np.zeros((len(scores), count), F)
    probabilities[np.arange(len(scores)), labels] = scores
    centred = np.concatenate(
        [(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1
    )
    spans = [[(n, n + 1)] for n in range(count)]
    return candidates(probabilities, centred, spans, range(count), chunk).above(0.1, 0)


def test_score_is_the_mean_over_the_labels_own_tokens():
    """As the original's COCO evaluation: end marks and other labels count for nothing."""
    #             [CLS]  red  circle  .   van  ##s   .   [SEP]
    row = np.array([[0.9, 0.6, 0.4, 0.95, 0.3, 0.1, 0.99, 0.9]], F)
    scores, weakest = label_scores(row, [[(1, 2), (2, 3)], [(4, 6)]])
    np.testing.assert_allclose(scores, [[0.5, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(weakest, [[0.4, 0.3]], rtol=1e-6)  # a word is its best piece


def test_every_word_of_a_label_must_be_seen():
    """Of "red car" the car alone is not enough, unless text_threshold says so."""
    row = np.array([[0.1, 0.9]], F)
    box = np.array([[0.5, 0.5, 0.2, 0.2]], F)
    seen = candidates(row, box, [[(0, 1), (1, 2)]], [7])
    assert len(seen.above(0.35, 0.25).scores) == 0
    kept = seen.above(0.35, 0.0)
    assert kept.labels.tolist() == [7]
    assert kept.scores[0] == pytest.approx(0.5)


@given(
    hnp.arrays(F, (5, 4), elements=PROBABILITY),
    hnp.arrays(F, (5, 4), elements=st.floats(-0.5, 1.5, width=32)),
    PROBABILITY,
    PROBABILITY,
)
def test_whatever_the_model_says_boxes_are_inside_and_sorted(probabilities, boxes, low, text):
    """Boxes lie in the picture with an area; scores pass the threshold, best first."""
    passes = [
        candidates(probabilities, boxes, [[(0, 2)], [(2, 3), (3, 4)]], [4, 9], number).above(
            low, text
        )
        for number in range(2)
    ]
    result = combine(passes, None)
    assert ((result.boxes >= 0) & (result.boxes <= 1)).all()
    assert (result.boxes[:, 2:] > result.boxes[:, :2]).all()
    assert (result.scores >= low).all()
    assert (np.diff(result.scores) <= 0).all()
    assert set(result.labels.tolist()) <= {4, 9}


def test_corners():
    """Centre and size become corners, clamped to the picture."""
    got = to_corners(np.array([[0.5, 0.5, 0.5, 1.0], [0.0, 1.0, 0.2, 0.4]], F))
    np.testing.assert_allclose(got, [[0.25, 0, 0.75, 1], [0, 0.8, 0.1, 1]], atol=1e-7)


def test_overlap_is_intersection_over_union():
    """Same: 1; half: 1/3; apart: 0; without area: 0, not NaN."""
    box = np.array([0, 0, 1, 1], F)
    others = np.array([[0, 0, 1, 1], [0.5, 0, 1.5, 1], [2, 2, 3, 3], [0.5, 0.5, 0.5, 0.5]], F)
    np.testing.assert_allclose(overlaps(box, others), [1, 1 / 3, 0, 0], atol=1e-6)
    assert overlaps(others[3], others[3:]).tolist() == [0]


A, NEAR_A, B = [0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9]


def test_chunks_compete_within_they_do_not():
    """One thing found by two passes is reported once, under its better label; boxes of one
    pass stay as the model gave them."""
    first = found([A, NEAR_A, B], [0.5, 0.4, 0.6], [0, 0, 1])
    second = found([NEAR_A], [0.9], [2], chunk=1)
    assert combine([first], None).scores.tolist() == pytest.approx([0.6, 0.5, 0.4])
    both = combine([first, second], None)
    assert both.labels.tolist() == [2, 1]


def test_nms_merges_boxes_of_one_label_only():
    """Asked for, suppression spares boxes of other labels."""
    seen = found([A, NEAR_A, A], [0.5, 0.6, 0.7], [0, 0, 1])
    assert combine([seen], 0.8).labels.tolist() == [1, 0]
    assert combine([seen], 0.8).scores.tolist() == pytest.approx([0.7, 0.6])
    assert len(combine([seen], 1.0).scores) == 3


def one_by_one(passes, nms_iou):
    """Greedy suppression as its definition reads: first across passes, then within a label."""
    rows = [
        (score, number, label, box)
        for number, seen in enumerate(passes)
        for box, score, label in zip(seen.boxes, seen.scores, seen.labels, strict=True)
    ]
    rows.sort(key=lambda row: -row[0])

    def left(rows, are_rivals, iou):
        kept = []
        for row in rows:
            stronger = [k for k in kept if are_rivals(k, row)]
            if all(overlaps(k[3], row[3][None])[0] <= iou for k in stronger):
                kept.append(row)
        return kept

    rows = left(rows, lambda a, b: a[1] != b[1], CROSS_CHUNK_IOU)
    if nms_iou is not None:
        rows = left(rows, lambda a, b: a[2] == b[2], nms_iou)
    return [float(score) for score, *_ in rows]


@pytest.mark.parametrize("nms_iou", [None, 0.0, 0.3, 1.0])
def test_one_walk_equals_one_rule_after_the_other(nms_iou):
    """Many boxes on few places: the same survivors, and `most` of them are the best."""
    generator = np.random.default_rng(0)
    places = generator.uniform(0, 0.6, (12, 2))
    passes = []
    for number in range(4):
        low = places[generator.integers(0, 12, 40)] + generator.uniform(0, 0.05, (40, 2))
        boxes = np.concatenate([low, low + 0.3], axis=1).astype(F)
        scores = generator.permutation(np.linspace(0.1, 0.9, 40)) + number / 1000
        passes.append(found(boxes, scores, generator.integers(0, 5, 40), chunk=number))
    expected = one_by_one(passes, nms_iou)
    assert 0 < len(expected) < 160
    assert combine(passes, nms_iou).scores.tolist() == pytest.approx(expected)
    assert combine(passes, nms_iou, most=7).scores.tolist() == pytest.approx(expected[:7])


def test_a_flood_of_boxes_costs_what_is_wanted_of_it(monkeypatch):
    """2,000 labels at a threshold of 0 leave 30,000 boxes; for 100 detections they are not all
    compared with each other."""
    generator = np.random.default_rng(0)
    low = generator.uniform(0, 0.9, (32, 900, 2)).astype(F)
    boxes = np.concatenate([low, low + F(0.1)], axis=2)
    passes = [found(boxes[n], generator.random(900), [n] * 900, n) for n in range(32)]
    calls = []
    monkeypatch.setattr(
        "postprocess.overlaps", lambda box, others: calls.append(1) or overlaps(box, others)
    )
    assert len(combine(passes, None, most=101).scores) == 101
    assert len(calls) == 101


def test_nothing_found_is_an_empty_answer():
    """Above every score there is nothing, through all steps."""
    none = found([A], [0.5], [0]).above(0.9, 0)
    assert len(combine([none, none], 0.5).scores) == 0
