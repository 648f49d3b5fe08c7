"""groundingdino-py 0.4.0, the original implementation, with the same input and output.

It needs transformers 4 and torchvision, so it has its own environment
(requirements-groundingdino.txt), and only engines.py imports this module.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import groundingdino
import groundingdino.datasets.transforms as T
import numpy as np
import torch
from groundingdino.models import build_model
from groundingdino.util.misc import clean_state_dict
from groundingdino.util.slconfig import SLConfig
from PIL import Image
from prediction import DetectInput, Prediction
from prompt import Query, read_labels
from rows import RowLimit, positions_of
from transformers import BatchEncoding

MAX_ROWS = 8
"""Pairs of a picture and a chunk of labels in one pass, where memory allows (rows.py)."""

SHORTEST_PX, LONGEST_PX = 800, 1333
"""As groundingdino.util.inference.load_image resizes."""

# By the width of the first layer: Swin-T, Swin-B.
_CONFIGS = {96: "GroundingDINO_SwinT_OGC.py", 128: "GroundingDINO_SwinB_cfg.py"}


class OriginalDetector:
    """A checkpoint of the original repository; see prediction.Engine."""

    max_tokens = 256
    has_masks = False

    def __init__(
        self, checkpoint: str | None, bert: str | None = None, device: str | None = None
    ) -> None:
        """Load a .pth file; the width of its first layer decides between Swin-T and Swin-B.

        bert: hub id or folder of the text encoder; None: bert-base-uncased. device: "cuda",
        "cpu"; None: CUDA if there is one. Precision is float32.

        Raises ValueError when checkpoint is no file or holds none of the known architectures.
        """
        path = Path(checkpoint or "").expanduser()
        if not path.is_file():
            raise ValueError(
                "Cannot load: with ENGINE=groundingdino-py, WEIGHTS must be a .pth file of the "
                f"original repository, got {path.name or 'nothing'}"
            )
        self.name = path.name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        state = clean_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
        self.model = build_model(_configuration(state, bert, str(self.device)))
        _load(self.model, state)
        self.model.to(self.device).eval()
        self.tokenizer = self.model.tokenizer
        self.model.tokenizer = _given  # captions are token ids already
        self._limit = RowLimit(self.device, MAX_ROWS)
        self._transform = T.Compose(
            [
                T.RandomResize([SHORTEST_PX], max_size=LONGEST_PX),
                T.ToTensor(),
                T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def read_labels(self, labels: Sequence[str]) -> Query:
        """The labels word by word; see prompt.read_labels."""
        return read_labels(labels, self.tokenizer, self.max_tokens)

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """The original's own transforms: (1, 3, H, W) float32."""
        pixels, _ = self._transform(picture, None)
        prepared: torch.Tensor = pixels[None]
        return prepared

    @torch.inference_mode()
    def detect_many(self, inputs: Sequence[DetectInput]) -> list[list[Prediction]]:
        """For each input a prediction per prompt, MAX_ROWS in a pass; all pictures of one size.

        Raises FloatingPointError when the model answers with NaN or infinity.
        """
        pairs = [(place, prompt) for place, one in enumerate(inputs) for prompt in one.prompts]
        answers: list[list[Prediction]] = [[] for _ in inputs]
        tokens = max(len(prompt) for _, prompt in pairs)
        height, width = inputs[0].pixels.shape[2:]
        need = positions_of(width, height), tokens
        found = self._limit.run(partial(self._rows, inputs), pairs, need)
        for (place, _), prediction in zip(pairs, found, strict=True):
            answers[place].append(prediction)
        return answers

    def _rows(
        self, inputs: Sequence[DetectInput], group: Sequence[tuple[int, tuple[int, ...]]]
    ) -> list[Prediction]:
        pixels = torch.cat([inputs[place].pixels for place, _ in group]).to(self.device)
        output = self.model(pixels, captions=[prompt for _, prompt in group])
        scores = output["pred_logits"].float().sigmoid().cpu().numpy()
        boxes = output["pred_boxes"].float().cpu().numpy()
        if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
            raise FloatingPointError("the model answered with NaN or infinity")
        return [
            Prediction(scores[row, :, : len(prompt)], boxes[row])
            for row, (_, prompt) in enumerate(group)
        ]


def _configuration(state: dict[str, torch.Tensor], bert: str | None, device: str) -> Any:
    width = state.get("backbone.0.patch_embed.proj.weight", torch.empty(0)).shape[0]
    if width not in _CONFIGS:
        raise ValueError("Cannot load: WEIGHTS must be a Swin-T or Swin-B checkpoint")
    folder = Path(groundingdino.__file__).parent / "config"
    config = SLConfig.fromfile(str(folder / _CONFIGS[width]))
    config.device = device
    config.text_encoder_type = bert or "bert-base-uncased"
    return config


def _load(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load `state` strictly: the original's strict=False would hide a wrong file."""
    result = model.load_state_dict(state, strict=False)
    # The published files lack tensors that are computed from the configuration, and have some that
    # newer BERTs no longer store.
    harmless = ("relative_position_index", "bert.pooler", "position_ids")
    wrong = [
        name
        for name in (*result.missing_keys, *result.unexpected_keys)
        if not any(part in name for part in harmless)
    ]
    if wrong:
        raise ValueError(f"Cannot load: {len(wrong)} tensors of WEIGHTS do not fit the model")


def _given(prompts: Sequence[Sequence[int]], **_: Any) -> BatchEncoding:
    """The tokenizer's output for prompts that are token ids already."""
    length = max(map(len, prompts))
    ids = torch.zeros((len(prompts), length), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(list(prompt)), 1
    return BatchEncoding(
        {"input_ids": ids, "token_type_ids": torch.zeros_like(ids), "attention_mask": mask}
    )
