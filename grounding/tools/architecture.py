"""Infers the architecture of a checkpoint from the shapes of its tensors.

The original keeps it in separate Python files (GroundingDINO_SwinT_OGC.py and others); the tensors
show all of it but the number of attention heads of the BERT.
"""

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from transformers import BertConfig, GroundingDinoConfig, SwinConfig

_POINTS = 4  # enc_n_points and dec_n_points of both published configurations
_SWIN = "model.backbone.conv_encoder.model."


def infer_config(
    tensors: Mapping[str, torch.Tensor], text_heads: int | None
) -> GroundingDinoConfig:
    """transformers' configuration for tensors under its stored names.

    text_heads: attention heads of the BERT; None: hidden size / 64.
    """
    levels, d_model = tensors["model.level_embed"].shape
    offsets = tensors["model.encoder.layers.0.deformable_layer.self_attn.sampling_offsets.weight"]
    heads = offsets.shape[0] // (levels * _POINTS * 2)
    return GroundingDinoConfig(
        backbone_config=_swin(tensors),
        text_config=_bert(tensors, text_heads),
        d_model=d_model,
        num_feature_levels=levels,
        num_queries=tensors["model.query_position_embeddings.weight"].shape[0],
        encoder_layers=_count(tensors, r"model\.encoder\.layers\.(\d+)\."),
        decoder_layers=_count(tensors, r"model\.decoder\.layers\.(\d+)\."),
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=tensors["model.encoder.layers.0.deformable_layer.fc1.weight"].shape[0],
        decoder_ffn_dim=tensors["model.decoder.layers.0.fc1.weight"].shape[0],
        encoder_n_points=_POINTS,
        decoder_n_points=_POINTS,
        disable_custom_kernels=True,
    )


def _swin(tensors: Mapping[str, torch.Tensor]) -> Any:
    stages = _count(tensors, re.escape(_SWIN) + r"encoder\.layers\.(\d+)\.")
    blocks = [f"{_SWIN}encoder.layers.{stage}.blocks" for stage in range(stages)]
    tables = [tensors[f"{block}.0.attention.self.relative_position_bias_table"] for block in blocks]
    embed_dim = tensors[_SWIN + "embeddings.patch_embeddings.projection.weight"].shape[0]
    hidden = tensors[f"{blocks[0]}.0.intermediate.dense.weight"].shape[0]
    outputs = {
        int(found[1])
        for name in tensors
        if (found := re.match(re.escape(_SWIN) + r"hidden_states_norms\.stage(\d+)\.", name))
    }
    return SwinConfig(
        embed_dim=embed_dim,
        depths=[_count(tensors, re.escape(block) + r"\.(\d+)\.") for block in blocks],
        num_heads=[table.shape[1] for table in tables],
        window_size=(isqrt(tables[0].shape[0]) + 1) // 2,  # a table has (2w - 1)² rows
        mlp_ratio=hidden / embed_dim,
        drop_path_rate=0.0,
        out_indices=sorted(outputs),
    )


def _bert(tensors: Mapping[str, torch.Tensor], heads: int | None) -> Any:
    text = "model.text_backbone."
    words, hidden = tensors[text + "embeddings.word_embeddings.weight"].shape
    return BertConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=_count(tensors, re.escape(text) + r"encoder\.layer\.(\d+)\."),
        num_attention_heads=heads or hidden // 64,
        intermediate_size=tensors[text + "encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_position_embeddings=tensors[text + "embeddings.position_embeddings.weight"].shape[0],
    )


def _count(tensors: Mapping[str, torch.Tensor], pattern: str) -> int:
    """How many different numbers the pattern finds in the names."""
    return len({found[1] for name in tensors if (found := re.match(pattern, name))})
