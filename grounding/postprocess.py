"""Turns token probabilities and boxes into labelled detections.

transformers' own post_process_grounded_object_detection joins all tokens that pass the text
threshold: "a a dog", "##van", "" and two labels in one are known results (issues 63, 85 and 421 of
IDEA-Research/GroundingDINO). Here every label is scored over its own tokens, as in the original's
COCO evaluation (demo/test_ap_on_coco.py, PostProcessCocoGrounding: the
positive map's rows sum to one, so a label's score is the mean over its tokens), and a box gets
the label with the highest score.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prediction import Prediction
from prompt import Chunk

Array = NDArray[np.float32]
Span = tuple[int, int]

CROSS_CHUNK_IOU = 0.7
"""Overlap from which two boxes of different chunks are the same thing. Within a chunk each query
gives one box, for which the labels compete; labels of different chunks compete by this."""


class Candidates(NamedTuple):
    """Boxes of one picture, each with its best label; the arrays have the same rows."""

    boxes: Array
    """(N, 4) x1, y1, x2, y2 as fractions of the picture, 0 to 1."""
    scores: Array
    """(N,) mean probability of the label's tokens."""
    weakest: Array
    """(N,) probability of the label's weakest word."""
    labels: NDArray[np.int64]
    """(N,) index into the list of labels."""
    chunks: NDArray[np.int64]
    """(N,) index of the pass that found it."""
    queries: NDArray[np.int64]
    """(N,) which of that pass's queries it is."""

    def take(self, rows: NDArray[np.int64] | slice) -> "Candidates":
        """These rows, in this order."""
        return Candidates(
            self.boxes[rows],
            self.scores[rows],
            self.weakest[rows],
            self.labels[rows],
            self.chunks[rows],
            self.queries[rows],
        )

    def above(self, box_threshold: float, text_threshold: float) -> "Candidates":
        """Those whose score is at least box_threshold and each of whose label's words reaches
        text_threshold: of "red car", "car" alone is not enough. With text_threshold 0 this is
        the original's COCO evaluation."""
        keep = (self.scores >= box_threshold) & (self.weakest >= text_threshold)
        return self.take(np.flatnonzero(keep))


def label_scores(probabilities: Array, word_spans: Sequence[Sequence[Span]]) -> tuple[Array, Array]:
    """Score of every label, and of its weakest word.

    probabilities: (Q, T), 0 to 1. word_spans: for each label the tokens of each word.
    Returns: (Q, L) mean over the tokens of the label's words; (Q, L) weakest word, where a word has
    the probability of its strongest piece ("##" pieces are often weak: "##van").
    """
    means = [
        probabilities[:, [at for span in words for at in range(*span)]].mean(axis=1)
        for words in word_spans
    ]
    weakest = [
        np.min([probabilities[:, a:b].max(axis=1) for a, b in words], axis=0)
        for words in word_spans
    ]
    return np.stack(means, axis=1), np.stack(weakest, axis=1)


def candidates(
    probabilities: Array,
    boxes_cxcywh: Array,
    word_spans: Sequence[Sequence[Span]],
    label_indices: Sequence[int],
    chunk: int = 0,
) -> Candidates:
    """The result of one pass: every box with its best label, unfiltered, except that boxes
    outside the picture are dropped.

    probabilities: (Q, T) of each token. boxes_cxcywh: (Q, 4) fractions of the picture.
    word_spans, label_indices: of the labels in this pass (prompt.Chunk).
    """
    scores, weakest = label_scores(probabilities, word_spans)
    best = scores.argmax(axis=1)  # the first of equals
    rows = np.arange(len(best))
    found = Candidates(
        to_corners(boxes_cxcywh),
        scores[rows, best],
        weakest[rows, best],
        np.asarray(label_indices, dtype=np.int64)[best],
        np.full(len(best), chunk, dtype=np.int64),
        rows,
    )
    inside = (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1)
    return found.take(np.flatnonzero(inside))


def to_corners(cxcywh: Array) -> Array:
    """(N, 4) centre, size → x1, y1, x2, y2, clamped to the picture; fractions.

    >>> to_corners(np.array([[0.1, 0.5, 0.4, 0.5]], dtype=np.float32)).round(2).tolist()
    [[0.0, 0.25, 0.30000001192092896, 0.75]]
    """
    centre, half = cxcywh[:, :2], cxcywh[:, 2:] / 2
    corners: Array = np.concatenate([centre - half, centre + half], axis=1)
    return corners.clip(0.0, 1.0)


def combine(
    passes: Sequence[Candidates], nms_iou: float | None, *, most: int | None = None
) -> Candidates:
    """All passes together, best first; no more than `most`.

    A box is dropped for a stronger one of another pass that covers the same thing, whatever the
    labels. Within a pass the boxes stay, unless nms_iou is set: then it suppresses boxes of one
    label.
    """
    joined = Candidates(
        np.concatenate([found.boxes for found in passes]),
        np.concatenate([found.scores for found in passes]),
        np.concatenate([found.weakest for found in passes]),
        np.concatenate([found.labels for found in passes]),
        np.concatenate([found.chunks for found in passes]),
        np.concatenate([found.queries for found in passes]),
    )
    ordered = joined.take(np.argsort(-joined.scores, kind="stable"))
    if len(passes) == 1 and nms_iou is None:
        return ordered.take(slice(most))
    return ordered.take(_survivors(ordered, nms_iou, most))


def merge(
    seen: Sequence[Prediction],
    chunks: Sequence[Chunk],
    box_threshold: float,
    text_threshold: float,
    nms_iou: float | None,
    *,
    most: int | None = None,
) -> Candidates:
    """The result of all passes over a list of labels: labelled, filtered, best first.

    seen: a prediction for each chunk. most: boxes returned at most; None: all.
    """
    passes = [
        candidates(
            prediction.token_probabilities,
            prediction.boxes,
            chunk.word_spans,
            chunk.label_indices,
            number,
        )
        for number, (prediction, chunk) in enumerate(zip(seen, chunks, strict=True))
    ]
    return combine(
        [found.above(box_threshold, text_threshold) for found in passes], nms_iou, most=most
    )


def _survivors(found: Candidates, nms_iou: float | None, most: int | None) -> NDArray[np.int64]:
    """Rows that remain after greedy suppression across chunks and, with nms_iou, within a label;
    boxes are sorted best first.

    One loop does both, since only a stronger box suppresses another. It ends after `most` rows,
    long before the 30,000 boxes of 2,000 labels at a threshold of 0 are compared.
    """
    alone = np.ones(len(found.scores), dtype=bool)  # no overlapping stronger box of another chunk
    first = alone.copy()  # no overlapping stronger box of the label
    kept: list[int] = []
    for row in range(len(alone)):
        if len(kept) == most:
            break
        if not alone[row]:
            continue
        later = slice(row + 1, None)
        shared = overlaps(found.boxes[row], found.boxes[later])
        alone[later] &= (found.chunks[later] == found.chunks[row]) | (shared <= CROSS_CHUNK_IOU)
        if not first[row]:
            continue
        kept.append(row)
        if nms_iou is not None:
            first[later] &= (found.labels[later] != found.labels[row]) | (shared <= nms_iou)
    return np.array(kept, dtype=np.int64)


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of one box (4,) with others (N, 4), corners in any one unit."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.asarray(shared / np.maximum(area - shared, np.finfo(np.float32).tiny), np.float32)
