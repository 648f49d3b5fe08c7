"""NanoDet-g: a small detector of COCO's 80 classes, as a network for inference.

Architecture: RangiLyu/nanodet, config/legacy_v0.x_configs/nanodet-g.yml (Apache-2.0). Its code was
not copied; layers were read from the converted graph and compared with it. Batch norm is folded
into the 34 convolutions.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 80
STRIDES = (8, 16, 32)
"""Of the three output levels, in px of the input."""

BINS = 11
"""A box's side is the mean of a distribution over 0 to 10 strides (generalised focal loss)."""

MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)
"""Of training, on levels 0 to 255, in the order blue, green, red."""

_WIDTH = 128


class Cells(NamedTuple):
    """The network's output, one row a cell, all three levels one after the other."""

    scores: torch.Tensor
    """(N, cells, 80), 0 to 1."""
    boxes: torch.Tensor
    """(N, cells, 4) x1, y1, x2, y2 in px of the input; not clipped."""


class _Conv(nn.Conv2d):
    """A 3 × 3 convolution that keeps the size at stride 1, and a leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(super().forward(x), 0.1)


class _Residual(nn.Module):
    """Two convolutions of half the width, side by side in the output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width // 2), _Conv(width // 2, width // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.cat((self.second(x), x), 1)


class _Stage(nn.Module):
    """A cross stage partial block: its output has twice the width of its input."""

    def __init__(self, width: int, blocks: int, stride: int) -> None:
        super().__init__()
        self.enter = _Conv(width, width, stride)
        self.blocks = nn.Sequential(*(_Residual(width) for _ in range(blocks)))
        self.leave = _Conv(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        return torch.cat((self.leave(self.blocks(x)), x), 1)


class NanoDet(nn.Module):
    """Backbone, path aggregation, and one head for each stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 2)
        self.stages = nn.ModuleList(
            [_Stage(32, 1, 1), _Stage(64, 2, 2), _Stage(128, 2, 2), _Stage(256, 3, 2)]
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in (128, 256, 512))
        self.towers = nn.ModuleList(_Conv(_WIDTH, _WIDTH) for _ in STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(_WIDTH, CLASSES + 4 * BINS, 1) for _ in STRIDES)

    def forward(self, pixels: torch.Tensor) -> Cells:
        """Score every cell.

        pixels: (N, 3, H, W) float32, blue, green, red, normalised by MEAN_BGR and STD_BGR; sides
        are multiples of 32 px.
        """
        scores, boxes = [], []
        for stride, tower, head, level in zip(
            STRIDES, self.towers, self.heads, self._levels(pixels), strict=True
        ):
            rows, columns = level.shape[2:]
            cells = head(tower(level)).flatten(2).transpose(1, 2)
            scores.append(cells[..., :CLASSES].sigmoid())
            boxes.append(_boxes(cells[..., CLASSES:], rows, columns, stride))
        return Cells(torch.cat(scores, 1), torch.cat(boxes, 1))

    def _levels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features at the three strides, mixed from coarse to fine and back."""
        x = F.max_pool2d(self.stem(pixels), 3, 2, 1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        fine, middle, coarse = (
            lateral(x) for lateral, x in zip(self.laterals, features[1:], strict=True)
        )
        middle = middle + _resized(coarse, middle)
        fine = fine + _resized(middle, fine)
        middle = middle + _resized(fine, middle)
        coarse = coarse + _resized(middle, coarse)
        return fine, middle, coarse


def _resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


def _boxes(distances: torch.Tensor, rows: int, columns: int, stride: int) -> torch.Tensor:
    """(N, rows · columns, 4) corners in px: the cell's centre, less left and top, plus right and
    bottom.

    distances: (N, rows · columns, 44) logits of four distributions.
    """
    device = distances.device
    bins = torch.arange(BINS, dtype=torch.float32, device=device)
    four = distances.float().reshape(*distances.shape[:2], 4, BINS)
    sides = four.softmax(-1) @ bins * stride
    y, x = torch.meshgrid(
        (torch.arange(rows, device=device) + 0.5) * stride,
        (torch.arange(columns, device=device) + 0.5) * stride,
        indexing="ij",
    )
    centres = torch.stack((x, y), -1).reshape(-1, 2)
    return torch.cat((centres - sides[..., :2], centres + sides[..., 2:]), -1)
