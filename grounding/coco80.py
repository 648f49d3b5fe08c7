"""The detector for machines without a GPU: 80 classes, 7.6 MB, about 70 ms a picture on one core.

Labels are looked up in a table (classes.py); there is no text encoder. weights/demo/README.md says
where the weights come from.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from classes import NAMES, classes_of
from errors import InvalidInput
from nanodet import MEAN_BGR, STD_BGR, NanoDet
from numpy.typing import NDArray
from PIL import Image
from postprocess import overlaps
from prediction import DetectInput, Prediction
from prompt import Chunk, Query
from safetensors.torch import load_file

WEIGHTS = Path(__file__).parent / "weights" / "demo" / "model.safetensors"

SIDE_PX = 416
"""The network was trained on 416 × 416: pictures are brought to about that many pixels."""

STEP_PX = 32
LONGEST_PX = 832

LEAST_SCORE = 0.05
"""Cells below it are left out, as in the original's post-processing."""

NMS_IOU = 0.5
"""Of two boxes of one label that overlap by more, the weaker goes. The original's 0.6 leaves more
doubles."""

SAME_THING_IOU = 0.8
"""Overlap from which boxes of two labels are one thing, so that a cat is not also a dog."""

MOST_CELLS = 300
"""Cells of one label that suppression looks at, best first."""

GROUP_FACTOR = 0.999
"""A group's scores are this little lower: of "animal, dog" a dog is a dog."""

Floats = NDArray[np.float32]
Cells = NDArray[np.int64]


class ClosedSetDetector:
    """NanoDet-g; see prediction.Engine."""

    name = "coco80"
    has_masks = False

    def __init__(self, device: str | None = None) -> None:
        """Load the weights; device: "cuda", "cpu", …; None: the CPU, which is fast enough."""
        self.device = torch.device(device or "cpu")
        network = NanoDet()
        # float16 on disk; on a CPU float32 is faster.
        network.load_state_dict({k: v.float() for k, v in load_file(WEIGHTS).items()})
        self._network = network.eval().to(self.device)
        for weight in self._network.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def read_labels(self, labels: Sequence[str]) -> Query:
        """Look the labels up. Each known one is one number in the prompt: a bit for each class.

        Raises InvalidInput when none is known.
        """
        meant = [classes_of(label) for label in labels]
        known = tuple(index for index, classes in enumerate(meant) if classes)
        if not known:
            some = ", ".join(NAMES[index] for index in (0, 2, 16, 15, 56, 41, 63, 39))
            raise InvalidInput(
                "Cannot search: 'text_queries' must name things that the model knows "
                f"({some} and {len(NAMES) - 8} more), got '{labels[0][:40]}'"
            )
        prompt = tuple(sum(1 << one for one in meant[index]) for index in known)
        spans = tuple(((place, place + 1),) for place in range(len(known)))
        read_as = {
            index: names
            for index in known
            if (names := tuple(NAMES[one] for one in meant[index])) != (labels[index],)
        }
        ignored = frozenset(range(len(labels))) - set(known)
        return Query((Chunk(prompt, known, spans),), ignored, read_as)

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Resize and normalise: (1, 3, H, W) float32, blue, green, red."""
        size = input_size(*picture.size)
        small = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        bgr = torch.from_numpy(np.array(small)).flip(-1).float()
        normalised = (bgr - torch.tensor(MEAN_BGR)) / torch.tensor(STD_BGR)
        return normalised.permute(2, 0, 1)[None].contiguous()

    @torch.inference_mode()
    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """For each input a prediction per prompt; all pictures have one size.

        Raises FloatingPointError when the model answers with NaN or infinity.
        """
        pixels = torch.cat([one.pixels for one in inputs]).to(self.device)
        height, width = pixels.shape[2:]
        found = self._network(pixels.contiguous(memory_format=torch.channels_last))
        fractions = found.boxes / found.boxes.new_tensor([width, height, width, height])
        scores, boxes = found.scores.cpu().numpy(), fractions.clamp(0, 1).cpu().numpy()
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            raise FloatingPointError("the model answered with NaN or infinity")
        return [
            [_prediction(scores[place], boxes[place], prompt) for prompt in one.prompts]
            for place, one in enumerate(inputs)
        ]


def input_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the network's input in px: the picture's shape, about SIDE_PX squared
    pixels, multiples of STEP_PX.

    >>> input_size(640, 480)
    (480, 352)
    """
    scale = min(SIDE_PX / (width * height) ** 0.5, LONGEST_PX / max(width, height))
    return _step(width * scale), _step(height * scale)


def _step(side: float) -> int:
    return max(STEP_PX, round(side / STEP_PX) * STEP_PX)


def _prediction(scores: Floats, boxes: Floats, prompt: Sequence[int]) -> Prediction:
    """Rows are the cells that remain for some label; other labels have 0 there.

    scores: (cells, 80). boxes: (cells, 4) corners as fractions. prompt: for each label its classes.
    """
    kept: dict[int, tuple[Cells, Floats]] = {}
    for classes in set(prompt):
        columns = [one for one in range(scores.shape[1]) if classes >> one & 1]
        score = scores[:, columns].max(axis=1)
        cells = np.flatnonzero(score >= LEAST_SCORE)
        cells = cells[suppress(boxes[cells], score[cells])]
        kept[classes] = cells, score[cells] * (1.0 if len(columns) == 1 else GROUP_FACTOR)
    kept = _compete(kept, boxes)
    wide = np.zeros((len(boxes), len(prompt)), np.float32)
    for place, classes in enumerate(prompt):
        cells, score = kept[classes]
        wide[cells, place] = score
    rows = np.flatnonzero(wide.any(axis=1))
    low, high = boxes[rows, :2], boxes[rows, 2:]
    return Prediction(wide[rows], np.concatenate([(low + high) / 2, high - low], axis=1))


def suppress(boxes: Floats, scores: Floats) -> Cells:
    """Greedy suppression within one label: the rows that stay, best first."""
    order = np.argsort(-scores, kind="stable")[:MOST_CELLS]
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlaps(boxes[best], boxes[order]) <= NMS_IOU]
    return np.array(kept, np.int64)


def _compete(
    kept: dict[int, tuple[Cells, Floats]], boxes: Floats
) -> dict[int, tuple[Cells, Floats]]:
    """Drop a box for a stronger one of another label that covers the same thing.

    Within one cell the labels compete in postprocess.candidates. Labels that nobody asked for do
    not compete: of a phone that is 0.55 remote and 0.48 cell phone, the phone would be lost.
    """
    owner = np.concatenate([np.full(len(kept[one][0]), n) for n, one in enumerate(kept)])
    cells = np.concatenate([cells for cells, _ in kept.values()])
    order = np.argsort(-np.concatenate([score for _, score in kept.values()]), kind="stable")
    stays = np.ones(len(order), bool)
    for place, row in enumerate(order):
        if stays[row]:
            later = order[place + 1 :]
            rivals = (owner[later] != owner[row]) & (cells[later] != cells[row])
            rivals &= overlaps(boxes[cells[row]], boxes[cells[later]]) > SAME_THING_IOU
            stays[later[rivals]] = False
    survivors = {}
    for number, (classes, (of_label, score)) in enumerate(kept.items()):
        mine = stays[owner == number]
        survivors[classes] = of_label[mine], score[mine]
    return survivors
