"""Turns scenes and captions into the tensors of a training step."""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from prompt import build_chunks, tokenize
from torch import Tensor

from tools.drawn.losses import Targets
from tools.drawn.scenes import Scene, draw_scene
from tools.drawn.vocabulary import SEEN, Phrase, caption

MOST_PHRASES = 14
"""In a training caption; 14 fill nearly all of the model's 64 tokens."""

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Batch(NamedTuple):
    """One step's input and truth."""

    pixels: Tensor
    """(B, 3, H, W) normalised as by the published processors."""
    input_ids: Tensor
    attention_mask: Tensor
    truth: Targets


def make_batch(rng: random.Random, tokenizer: Any, count: int, side: int, max_tokens: int) -> Batch:
    """`count` new scenes of side × side px, each with its own caption."""
    scenes = [draw_scene(rng, side, side, SEEN) for _ in range(count)]
    captions = [caption(rng, s.things, SEEN, rng.randint(2, MOST_PHRASES)) for s in scenes]
    return collate(scenes, captions, tokenizer, max_tokens)


def collate(
    scenes: Sequence[Scene], captions: Sequence[Sequence[Phrase]], tokenizer: Any, max_tokens: int
) -> Batch:
    """Phrases beyond max_tokens are left out; things that no phrase names are background."""
    stacked = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    pixels = (stacked.permute(0, 3, 1, 2).float() / 255 - _MEAN) / _STD
    chunks = []
    for phrases in captions:
        words = tokenize([phrase.text for phrase in phrases], tokenizer)
        chunks.append(build_chunks(words, max_tokens, tokenizer)[0])
    width = max(len(chunk.input_ids) for chunk in chunks)
    most = max(len(chunk.label_indices) for chunk in chunks)
    rows = len(scenes)
    ids, mask = torch.zeros(rows, width, dtype=torch.long), torch.zeros(rows, width).long()
    spans = torch.zeros(rows, most, width)
    named = []
    for row, (scene, phrases, chunk) in enumerate(zip(scenes, captions, chunks, strict=True)):
        length = len(chunk.input_ids)
        ids[row, :length], mask[row, :length] = torch.tensor(chunk.input_ids), 1
        asked = [phrases[index] for index in chunk.label_indices]
        for place, words_of in enumerate(chunk.word_spans):
            first, last = words_of[0][0], words_of[-1][1]
            spans[row, place, first:last] = 1 / (last - first)
        true = [[float(bool(p.names(thing))) for p in asked] for thing in scene.things]
        keep = [index for index, row_ in enumerate(true) if any(row_)]
        named.append(([scene.boxes[k] for k in keep], [true[k] for k in keep]))
    side_px = torch.tensor([pixels.shape[3], pixels.shape[2]] * 2)
    counts = [len(boxes) for boxes, _ in named]
    boxes = torch.tensor([2.0, 2.0, 2.1, 2.1]).repeat(rows, max(1, *counts), 1)
    phrases_of = torch.zeros(rows, boxes.shape[1], most)
    for row, (of_row, true) in enumerate(named):
        if of_row:
            boxes[row, : len(of_row)] = torch.tensor(of_row) / side_px
            phrases_of[row, : len(true), : len(true[0])] = torch.tensor(true)
    tokens = (torch.einsum("bgp,bpt->bgt", phrases_of, spans) > 0).float()
    truth = Targets(boxes, counts, tokens, phrases_of, spans, mask.bool())
    return Batch(pixels, ids, mask, truth)


def anchor_centres(side: int, levels: int = 3, finest_stride: int = 8) -> Tensor:
    """(N, 2) x, y of the encoder's positions, finest level first, as fractions."""
    centres = []
    cells = -(-side // finest_stride)
    for _ in range(levels):
        line = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], -1).view(-1, 2))
        cells = -(-cells // 2)
    return torch.cat(centres)
