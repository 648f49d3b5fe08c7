"""Converts checkpoints of the original repository to folders of transformers, and back.

    python -m tools.convert to-transformers groundingdino_swint_ogc.pth folder --tokenizer FOLDER
    python -m tools.convert to-original folder model.pth

The original is IDEA-Research/GroundingDINO (package groundingdino-py 0.4.0). The transformers
side is the stored form, which is the hub's and the same for transformers 4 and 5 (in memory 5
uses other names). Both ways rename tensors, with three exceptions: the original keeps query, key
and value in one tensor; it repeats the one box head for every decoder layer; and it stores tables
that follow from the architecture.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GroundingDinoConfig, GroundingDinoProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)

from tools.architecture import infer_config

Tensors = dict[str, torch.Tensor]

_SWIN = "model.backbone.conv_encoder.model."
_BLOCK = "backbone.0.layers.*.blocks.*."
_HF_BLOCK = _SWIN + "encoder.layers.*.blocks.*."
_FUSION, _HF_FUSION = "transformer.encoder.fusion_layers.*.", "model.encoder.layers.*.fusion_layer."
_TEXT, _HF_TEXT = (
    "transformer.encoder.text_layers.*.",
    "model.encoder.layers.*.text_enhancer_layer.",
)
_ENC, _HF_ENC = "transformer.encoder.layers.*.", "model.encoder.layers.*.deformable_layer."
_DEC, _HF_DEC = "transformer.decoder.layers.*.", "model.decoder.layers.*."

# Prefixes of names, original and transformers; "*" is a number, the same on both sides.
_RENAMES = {
    "backbone.0.patch_embed.proj": _SWIN + "embeddings.patch_embeddings.projection",
    "backbone.0.patch_embed.norm": _SWIN + "embeddings.norm",
    "backbone.0.layers.*.downsample": _SWIN + "encoder.layers.*.downsample",
    _BLOCK + "norm1": _HF_BLOCK + "layernorm_before",
    _BLOCK + "norm2": _HF_BLOCK + "layernorm_after",
    _BLOCK + "attn.relative_position_bias_table": _HF_BLOCK
    + "attention.self.relative_position_bias_table",
    _BLOCK + "attn.proj": _HF_BLOCK + "attention.output.dense",
    _BLOCK + "mlp.fc1": _HF_BLOCK + "intermediate.dense",
    _BLOCK + "mlp.fc2": _HF_BLOCK + "output.dense",
    "bert": "model.text_backbone",
    "feat_map": "model.text_projection",
    "input_proj": "model.input_proj_vision",
    "bbox_embed": "bbox_embed",
    "transformer.level_embed": "model.level_embed",
    "transformer.tgt_embed": "model.query_position_embeddings",
    "transformer.enc_output_norm": "model.enc_output_norm",
    "transformer.enc_output": "model.enc_output",
    "transformer.enc_out_bbox_embed": "model.encoder_output_bbox_embed",
    "transformer.decoder.norm": "model.decoder.layer_norm",
    "transformer.decoder.ref_point_head": "model.decoder.reference_points_head",
    **{
        _FUSION + ours: _HF_FUSION + theirs
        for ours, theirs in {
            "layer_norm_v": "layer_norm_vision",
            "layer_norm_l": "layer_norm_text",
            "gamma_v": "vision_param",
            "gamma_l": "text_param",
            "attn.v_proj": "attn.vision_proj",
            "attn.l_proj": "attn.text_proj",
            "attn.values_v_proj": "attn.values_vision_proj",
            "attn.values_l_proj": "attn.values_text_proj",
            "attn.out_v_proj": "attn.out_vision_proj",
            "attn.out_l_proj": "attn.out_text_proj",
        }.items()
    },
    **{
        _TEXT + ours: _HF_TEXT + theirs
        for ours, theirs in {
            "self_attn.out_proj": "self_attn.out_proj",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm1": "layer_norm_before",
            "norm2": "layer_norm_after",
        }.items()
    },
    **{
        _ENC + ours: _HF_ENC + theirs
        for ours, theirs in {
            "self_attn": "self_attn",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm1": "self_attn_layer_norm",
            "norm2": "final_layer_norm",
        }.items()
    },
    **{
        _DEC + ours: _HF_DEC + theirs
        for ours, theirs in {
            "cross_attn": "encoder_attn",
            "norm1": "encoder_attn_layer_norm",
            "ca_text.out_proj": "encoder_attn_text.out_proj",
            "catext_norm": "encoder_attn_text_layer_norm",
            "self_attn.out_proj": "self_attn.out_proj",
            "norm2": "self_attn_layer_norm",
            "linear1": "fc1",
            "linear2": "fc2",
            "norm3": "final_layer_norm",
        }.items()
    },
}

# One tensor in the original, three in transformers.
_FUSED = {
    _BLOCK + "attn.qkv.": _HF_BLOCK + "attention.self.{}.",
    _TEXT + "self_attn.in_proj_": _HF_TEXT + "self_attn.{}.",
    _DEC + "self_attn.in_proj_": _HF_DEC + "self_attn.{}.",
    _DEC + "ca_text.in_proj_": _HF_DEC + "encoder_attn_text.{}.",
}
_PARTS = ("query", "key", "value")

# These follow from the architecture, or are unused (pooler, copies of the box head, swin's last
# norm).
_SKIPPED_ORIGINAL = re.compile(
    r"relative_position_index|attn_mask|position_ids|^bert\.pooler\.|^transformer\.decoder\."
    r"bbox_embed\.|^bbox_embed\.(?!0\.)|^label_enc\."
)
_SKIPPED_HF = re.compile(
    r"relative_position_index|position_ids|swin\.layernorm|^bbox_embed\.(?!0\.)"
)


def to_transformers_names(original: Mapping[str, torch.Tensor]) -> Tensors:
    """The original's tensors under transformers' stored names.

    Raises ValueError when a tensor is one that neither format's description knows.
    """
    renamed: Tensors = {}
    for raw, tensor in original.items():
        name = raw.removeprefix("module.")  # as the release was saved
        if _SKIPPED_ORIGINAL.search(name):
            continue
        fused = _match(name, _FUSED)
        if fused:
            for part, piece in zip(_PARTS, tensor.chunk(3), strict=True):
                renamed[fused.format(part)] = piece.contiguous()
            continue
        norm = re.fullmatch(r"backbone\.0\.norm(\d+)\.(.*)", name)
        if norm:
            new = f"{_SWIN}hidden_states_norms.stage{int(norm[1]) + 1}.{norm[2]}"
        else:
            new = _match(name, _RENAMES) or _unknown(name)
        renamed[new] = tensor
    return renamed


def to_original_names(stored: Mapping[str, torch.Tensor], decoder_layers: int) -> Tensors:
    """transformers' stored tensors under the original's names.

    Raises ValueError when a tensor is one that neither format's description knows.
    """
    inverse = {theirs: ours for ours, theirs in _RENAMES.items()}
    fused = {theirs.format(part): ours for ours, theirs in _FUSED.items() for part in _PARTS}
    renamed: Tensors = {}
    pieces: dict[str, list[torch.Tensor]] = {}
    for name in sorted(stored, key=_parts_in_order):
        if _SKIPPED_HF.search(name):
            continue
        whole = _match(name, fused)
        if whole:
            pieces.setdefault(whole, []).append(stored[name])
            continue
        norm = re.fullmatch(re.escape(_SWIN) + r"hidden_states_norms\.stage(\d+)\.(.*)", name)
        if norm:
            new = f"backbone.0.norm{int(norm[1]) - 1}.{norm[2]}"
        else:
            new = _match(name, inverse) or _unknown(name)
        renamed[new] = stored[name]
    renamed |= {name: torch.cat(parts) for name, parts in pieces.items()}
    for name in [name for name in renamed if name.startswith("bbox_embed.0.")]:
        for layer in range(decoder_layers):
            copy = name.replace("bbox_embed.0.", f"bbox_embed.{layer}.")
            renamed[copy] = renamed["transformer.decoder." + copy] = renamed[name]
    return renamed


def _match(name: str, table: Mapping[str, str]) -> str | None:
    """The name with its prefix replaced by the table's, or None."""
    for prefix, replacement in table.items():
        pattern = re.escape(prefix).replace(r"\*", r"(\d+)")
        # A whole segment must match, unless the prefix ends in the middle of one on purpose.
        end = "" if prefix.endswith((".", "_")) else r"(?=\.|$)"
        found = re.match(pattern + end, name)
        if found:
            numbers: Iterator[str] = iter(found.groups())
            start = re.sub(r"\*", lambda _, n=numbers: next(n), replacement)  # type: ignore[misc]
            return start + name[found.end() :]
    return None


def _parts_in_order(name: str) -> tuple[int, str]:
    """Sorts query before key before value."""
    order = [number for number, part in enumerate(_PARTS) if f".{part}." in name]
    return (order[0] if order else 0, name)


def _unknown(name: str) -> str:
    raise ValueError(f"Cannot convert: tensor '{name}' belongs to no known Grounding DINO")


def read_original(path: Path) -> Tensors:
    """The tensors of a .pth file, with or without the release's outer {"model": …}."""
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors: Tensors = loaded.get("model", loaded)
    return tensors


def write_folder(original: Path, folder: Path, tokenizer: str, text_heads: int | None) -> None:
    """Make a folder for `from_pretrained` and WEIGHTS.

    tokenizer: hub id or folder of the BERT that the checkpoint was trained with.
    text_heads: attention heads of that BERT; None: hidden size / 64, as in every BERT release.
    """
    tensors = to_transformers_names(read_original(original))
    config: GroundingDinoConfig = infer_config(tensors, text_heads)
    config.architectures = ["GroundingDinoForObjectDetection"]
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 800, "longest_edge": 1333})
    GroundingDinoProcessor(images, AutoTokenizer.from_pretrained(tokenizer)).save_pretrained(folder)


def write_original(folder: Path, original: Path) -> None:
    """Make a .pth file for the original's `load_model`."""
    config: Any = GroundingDinoConfig.from_pretrained(folder)
    if config.model_type != "grounding-dino" or not config.decoder_bbox_embed_share:
        raise ValueError("Cannot convert: the folder must hold a grounding-dino with one box head")
    tensors = to_original_names(load_file(folder / "model.safetensors"), config.decoder_layers)
    torch.save({"model": tensors}, original)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    there = commands.add_parser("to-transformers", help="a .pth file becomes a folder")
    there.add_argument("checkpoint", type=Path)
    there.add_argument("folder", type=Path)
    there.add_argument("--tokenizer", default="bert-base-uncased", help="hub id or folder")
    there.add_argument("--text-heads", type=int, help="of its BERT; default: hidden size / 64")
    back = commands.add_parser("to-original", help="a folder becomes a .pth file")
    back.add_argument("folder", type=Path)
    back.add_argument("checkpoint", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "to-transformers":
        write_folder(chosen.checkpoint, chosen.folder, chosen.tokenizer, chosen.text_heads)
    else:
        write_original(chosen.folder, chosen.checkpoint)


if __name__ == "__main__":
    main()
