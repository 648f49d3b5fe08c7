"""Runs groundingdino-py 0.4.0 itself; executed by the interpreter of its own environment.

reference.py init CONFIG_BERT model.pth SEED     random weights of full size
reference.py run BERT model.pth picture.png LABELS.json answer.npz
reference.py resize answer.npz picture.png ...    its own resizing alone
"""

import json
import sys
from pathlib import Path

import torchvision_ops

_operators = torchvision_ops.install()

import groundingdino  # noqa: E402 - the operators come first
import numpy as np  # noqa: E402
import torch  # noqa: E402
from groundingdino.models import build_model  # noqa: E402
from groundingdino.util.inference import load_image  # noqa: E402
from groundingdino.util.misc import clean_state_dict  # noqa: E402
from groundingdino.util.slconfig import SLConfig  # noqa: E402
from groundingdino.util.vl_utils import (  # noqa: E402
    build_captions_and_token_span,
    create_positive_map_from_span,
)

torch.set_num_threads(2)


def model_of(bert):
    """The published Swin-T configuration with the BERT of a folder."""
    folder = Path(groundingdino.__file__).parent / "config"
    config = SLConfig.fromfile(str(folder / "GroundingDINO_SwinT_OGC.py"))
    config.device, config.text_encoder_type = "cpu", bert
    return build_model(config).eval()


def init(bert, checkpoint, seed):
    """Random weights that are nowhere degenerate: the original starts box heads and gates at 0."""
    torch.manual_seed(int(seed))
    model = model_of(bert)
    generator = torch.Generator().manual_seed(int(seed) + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("bert."):
                continue
            if not parameter.any() or "bbox_embed" in name or "gamma" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        # Else nearly every probability is 0 or 1, which would hide differences.
        model.transformer.decoder.norm.weight.mul_(0.1)
    torch.save({"model": model.state_dict()}, checkpoint)


def run(bert, checkpoint, picture, labels, answer):
    """The original's own loading, resizing, forward pass and COCO scoring."""
    model = model_of(bert)
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    state = model.state_dict()
    result = model.load_state_dict(clean_state_dict(saved), strict=False)
    missing = [n for n in result.missing_keys if "relative_position_index" not in n]
    assert not result.unexpected_keys, result.unexpected_keys
    assert all(n.startswith("bert.pooler") for n in missing), missing
    assert state.keys() >= saved.keys()
    _, image = load_image(picture)
    names = json.loads(Path(labels).read_text())
    caption, spans = build_captions_and_token_span(names, True)
    tokenized = model.tokenizer(caption, padding="longest", return_tensors="pt")
    positive = create_positive_map_from_span(tokenized, [spans[name] for name in names])
    model.double()
    with torch.no_grad():
        output = model(image[None].double(), captions=[caption])
    tokens = output["pred_logits"][0].sigmoid().float()
    np.savez(
        answer,
        input_ids=tokenized["input_ids"][0].numpy(),
        pixels=image.numpy(),
        tokens=tokens.numpy(),
        scores=(tokens @ positive.T).numpy(),
        boxes=output["pred_boxes"][0].float().numpy(),
    )


def resize(answer, *pictures):
    """The tensors that the original would look at, by the pictures' names."""
    np.savez(answer, **{Path(picture).stem: load_image(picture)[1].numpy() for picture in pictures})


if __name__ == "__main__":
    {"init": init, "run": run, "resize": resize}[sys.argv[1]](*sys.argv[2:])
