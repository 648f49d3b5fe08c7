"""The training loss. transformers 5.23's own does not train from scratch: its proposal head gets no
gradient, the class targets of all pictures but a batch's first have a wrong offset, and it has one
label per box, where "red circle" and "circle" can both be right.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

PROPOSALS_PER_BOX = 6
"""Encoder positions that learn each box (one-to-many, the cheapest inside it)."""

_CLASS, _L1, _GIOU, _PHRASE = 2.0, 5.0, 2.0, 1.0
"""Weights: the first three as in DETR with focal loss (Deformable DETR, appendix A.4)."""


class Targets(NamedTuple):
    """The targets of a batch of B pictures with at most G boxes, T tokens and P phrases."""

    boxes: Tensor
    """(B, G, 4) x1, y1, x2, y2 as fractions."""
    counts: list[int]
    """How many of the G are boxes."""
    tokens: Tensor
    """(B, G, T) 1 where the token belongs to a phrase that is true of the box."""
    phrases: Tensor
    """(B, G, P) 1 where the phrase is true of the box."""
    spans: Tensor
    """(B, P, T) 1 / tokens of the phrase, on its tokens; 0 for phrases that pad the list."""
    valid: Tensor
    """(B, T) bool: no padding."""


class Matches(NamedTuple):
    """Which prediction is matched to which box; the tensors have the same rows."""

    picture: Tensor
    query: Tensor
    box: Tensor


def corners(cxcywh: Tensor) -> Tensor:
    """(…, 4) centre, size → x1, y1, x2, y2."""
    centre, half = cxcywh[..., :2], cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (…, 4) in corners, -1 to 1 (Rezatofighi et al. 2019)."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    shared = inner.prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared + 1e-7
    hull = outer.clamp(0).prod(-1) + 1e-7
    return shared / union - (hull - union) / hull


def focal(logits: Tensor, truth: Tensor, alpha: float = 0.25) -> Tensor:
    """Sigmoid focal loss, gamma 2 (Lin et al. 2017), elementwise."""
    p = logits.sigmoid()
    missed = p * (1 - truth) + (1 - p) * truth
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return weight * entropy * missed**2


def total_loss(model: nn.Module, output: Any, truth: Targets, anchors: Tensor) -> Tensor:
    """The sum over every decoder layer and the encoder's proposals.

    output: of the model's forward without labels. anchors: (N, 2) centres of the encoder's
    positions as fractions of the picture, x and y.
    """
    loss = torch.zeros(())
    for logits, boxes in decoder_layers(model, output, truth.valid):
        loss = loss + _decoder_loss(logits[..., : truth.valid.shape[1]], boxes, truth)
    finite = torch.isfinite(output.enc_outputs_coord_logits).all(-1)
    raw = output.enc_outputs_coord_logits.masked_fill(~finite[..., None], 0.0)
    logits = output.enc_outputs_class[..., : truth.valid.shape[1]]
    return loss + _proposal_loss(logits, raw.sigmoid(), finite, anchors, truth)


def decoder_layers(model: Any, output: Any, valid: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Logits (B, Q, T) and boxes (B, Q, 4) of each layer: forward returns the last one's only."""
    found = []
    states, references = output.intermediate_hidden_states, output.intermediate_reference_points
    for layer in range(states.shape[1]):
        before = output.init_reference_points if layer == 0 else references[:, layer - 1]
        text = output.encoder_last_hidden_state_text
        logits = model.class_embed[layer](states[:, layer], text, valid)
        step = model.bbox_embed[layer](states[:, layer])
        found.append((logits, (step + torch.special.logit(before, eps=1e-5)).sigmoid()))
    return found


def _decoder_loss(logits: Tensor, boxes: Tensor, truth: Targets) -> Tensor:
    matches = _one_to_one(_costs(logits, boxes, truth), truth.counts)
    norm = max(1, sum(truth.counts))
    loss = _class_and_box(logits, boxes, truth, matches, None) / norm
    # The score that is served: the mean over a phrase's tokens. Plain cross-entropy on the boxes
    # found makes it a probability; near misses (right colour, wrong kind) weigh in undiminished.
    rows = logits[matches.picture, matches.query].masked_fill(~truth.valid[matches.picture], -20.0)
    spans = truth.spans[matches.picture]
    scores = torch.einsum("mt,mpt->mp", rows.sigmoid(), spans).clamp(1e-4, 1 - 1e-4)
    wanted = truth.phrases[matches.picture, matches.box]
    entropy = F.binary_cross_entropy(scores, wanted, reduction="none")
    return loss + _PHRASE * (entropy * (spans.sum(-1) > 0)).sum() / norm


def _proposal_loss(
    logits: Tensor, boxes: Tensor, finite: Tensor, anchors: Tensor, truth: Targets
) -> Tensor:
    matches = _one_to_many(_costs(logits, boxes, truth), anchors, finite, truth)
    loss = _class_and_box(logits, boxes, truth, matches, finite)
    return loss / max(1, len(matches.picture))


def _class_and_box(
    logits: Tensor, boxes: Tensor, truth: Targets, matches: Matches, usable: Tensor | None
) -> Tensor:
    """Sums of the focal, L1 and GIoU losses."""
    wanted = torch.zeros_like(logits)
    wanted[matches.picture, matches.query] = truth.tokens[matches.picture, matches.box]
    counted = truth.valid[:, None].expand_as(logits)
    if usable is not None:
        counted = counted & usable[..., None]
    classes = focal(logits.masked_fill(~counted, 0.0), wanted)[counted].sum()
    ours, true = boxes[matches.picture, matches.query], truth.boxes[matches.picture, matches.box]
    centred = torch.cat([(true[:, :2] + true[:, 2:]) / 2, true[:, 2:] - true[:, :2]], -1)
    overlap = (1 - giou(corners(ours), true)).sum()
    return _CLASS * classes + _L1 * (ours - centred).abs().sum() + _GIOU * overlap


@torch.no_grad()
def _costs(logits: Tensor, boxes: Tensor, truth: Targets) -> Tensor:
    """(B, G, N): what it would cost prediction n to answer for box g (Deformable DETR)."""
    p = logits.masked_fill(~truth.valid[:, None], -20.0).sigmoid()
    gain = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p**2 * -(1 - p + 1e-8).log()
    share = truth.tokens / truth.tokens.sum(-1, keepdim=True).clamp(min=1)
    classes = torch.einsum("bgt,bnt->bgn", share, gain)
    true = truth.boxes
    centred = torch.cat([(true[..., :2] + true[..., 2:]) / 2, true[..., 2:] - true[..., :2]], -1)
    distance = (centred[:, :, None] - boxes[:, None]).abs().sum(-1)
    overlap = giou(corners(boxes)[:, None], true[:, :, None])
    return _CLASS * classes + _L1 * distance - _GIOU * overlap


def _one_to_one(costs: Tensor, counts: list[int]) -> Matches:
    picture, query, box = [], [], []
    for number, count in enumerate(counts):
        boxes, queries = linear_sum_assignment(costs[number, :count].cpu().numpy())
        picture += [number] * len(boxes)
        query += queries.tolist()
        box += boxes.tolist()
    return Matches(*(torch.tensor(rows, dtype=torch.long) for rows in (picture, query, box)))


@torch.no_grad()
def _one_to_many(costs: Tensor, anchors: Tensor, finite: Tensor, truth: Targets) -> Matches:
    real = torch.zeros(costs.shape[:2], dtype=torch.bool)
    for number, count in enumerate(truth.counts):
        real[number, :count] = True
    low, high = truth.boxes[:, :, None, :2], truth.boxes[:, :, None, 2:]
    inside = ((anchors > low) & (anchors < high)).all(-1) & finite[:, None]
    costs = costs + 20.0 * ~inside + 1e3 * ~finite[:, None]
    nearest = costs.topk(min(PROPOSALS_PER_BOX, costs.shape[-1]), -1, largest=False)[1]
    chosen = torch.zeros_like(inside).scatter_(-1, nearest, True) & inside
    chosen = chosen.scatter(-1, costs.argmin(-1, keepdim=True), True) & real[..., None]
    best = costs.masked_fill(~chosen, 1e4).argmin(1)
    picture, query = chosen.any(1).nonzero(as_tuple=True)
    return Matches(picture, query, best[picture, query])
