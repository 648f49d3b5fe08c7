"""A SAM 3 of a few thousand random weights, and a byte-level tokenizer, as the hub has them."""

from pathlib import Path

import torch
from transformers import CLIPTokenizer, Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

SIDE_PX = 112
QUERIES = 12


def config(width=32, heads=2, side=SIDE_PX, queries=QUERIES):
    """Two layers of everything; width and heads: of the detector."""
    part = {
        "hidden_size": width, "num_attention_heads": heads, "intermediate_size": 8 * width,
        "num_layers": 2,
    }  # fmt: skip
    patches = side // 14
    return Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": side,
                "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 56,
            },
            "fpn_hidden_size": width,
            "backbone_feature_sizes": [[patches * k, patches * k] for k in (4, 2, 1)],
        },
        text_config={
            "model_type": "clip_text_model", "vocab_size": 514, "hidden_size": 32,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 32, "projection_dim": 16, "hidden_act": "gelu",
            "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513,
        },
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config={**part, "num_queries": queries},
        mask_decoder_config={"hidden_size": width, "num_attention_heads": heads},
    )  # fmt: skip


def tokenizer():
    """Each byte is a token, as in CLIP's vocabulary without its merges."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = [chr(byte) for byte in shown]
    signs += [chr(256 + place) for place in range(256 - len(shown))]
    tokens = [*signs, *(f"{sign}</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[])


def write(folder: Path, **changes) -> Path:
    """A folder of weights, large enough that scores, boxes and masks differ."""
    torch.manual_seed(0)
    model = Sam3Model(config(**changes))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() > 1 and not name.startswith("vision_encoder.backbone"):
                weights.mul_(8)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
