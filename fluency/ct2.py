"""Converts a CTranslate2 Whisper folder to a transformers one, at set-up for the demo weights.

The Python packages with Whisper weights have faster-whisper's format: `model.bin` (CTranslate2's
binary), `config.json` and `tokenizer.json`. The numbers are OpenAI's own in half precision; only
names and layout differ, so the conversion is exact.

Binary layout (CTranslate2, `ctranslate2/specs/model_spec.py`, binary version
6): little-endian; version u32, spec name, revision u32, then the variables
(name, rank u8, sizes u32 each, dtype u8, byte count u32, bytes) and the
aliases (name, name). A string is a u16 length, including its final zero byte.
"""

import json
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

BINARY_VERSION = 6
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 4: np.float16}
# Special token ids of the multilingual vocabulary start here (openai/whisper, tokenizer.py).
_MULTILINGUAL_VOCAB = 51865
_HEAD_SIZE = 64  # every published Whisper has 64 values a head


def _number(file: BinaryIO, fmt: str) -> int:
    value: int = struct.unpack("<" + fmt, file.read(struct.calcsize("<" + fmt)))[0]
    return value


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def read_variables(path: Path) -> dict[str, torch.Tensor]:
    """Every variable of a CTranslate2 `model.bin`, aliases resolved, in its stored dtype.

    Raises ValueError when the binary version or the model is another, or the weights are quantised.
    """
    with path.open("rb") as file:
        version, spec = _number(file, "I"), _string(file)
        if version != BINARY_VERSION or spec != "WhisperSpec":
            raise ValueError(f"Cannot convert {spec} in CTranslate2 binary version {version}")
        _number(file, "I")  # the spec's revision
        variables = {}
        for _ in range(_number(file, "I")):
            name = _string(file)
            shape = [_number(file, "I") for _ in range(_number(file, "B"))]
            dtype, size = _number(file, "B"), _number(file, "I")
            raw = file.read(size)
            if dtype in _DTYPES:
                array = np.frombuffer(raw, _DTYPES[dtype]).reshape(shape)
                variables[name] = torch.from_numpy(array.copy())
            elif shape:
                raise ValueError(f"Cannot convert quantised variable {name}")
        for _ in range(_number(file, "I")):
            alias, name = _string(file), _string(file)
            variables[alias] = variables[name]
    return variables


class _Renamer:
    """Builds a transformers state dict from CTranslate2's names."""

    def __init__(self, variables: dict[str, torch.Tensor]) -> None:
        self.source = variables
        self.state: dict[str, torch.Tensor] = {}

    def norm(self, source: str, target: str) -> None:
        self.state[f"{target}.weight"] = self.source[f"{source}/gamma"]
        self.state[f"{target}.bias"] = self.source[f"{source}/beta"]

    def linear(self, source: str, target: str) -> None:
        self.state[f"{target}.weight"] = self.source[f"{source}/weight"]
        self.state[f"{target}.bias"] = self.source[f"{source}/bias"]

    def fused(self, source: str, attention: str, parts: str) -> None:
        """Split a fused projection. parts: 'qkv' or 'kv'; Whisper's key projection has no bias."""
        weights = self.source[f"{source}/weight"].chunk(len(parts))
        biases = self.source[f"{source}/bias"].chunk(len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            self.state[f"{attention}.{part}_proj.weight"] = weight.clone()
            if part != "k":
                self.state[f"{attention}.{part}_proj.bias"] = bias.clone()

    def layer(self, source: str, target: str, *, cross: bool) -> None:
        self.norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
        self.fused(f"{source}/self_attention/linear_0", f"{target}.self_attn", "qkv")
        self.linear(f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
        if cross:
            self.norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
            self.linear(f"{source}/attention/linear_0", f"{target}.encoder_attn.q_proj")
            self.fused(f"{source}/attention/linear_1", f"{target}.encoder_attn", "kv")
            self.linear(f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
        self.norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
        self.linear(f"{source}/ffn/linear_0", f"{target}.fc1")
        self.linear(f"{source}/ffn/linear_1", f"{target}.fc2")


def rename(variables: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], int, int]:
    """Transformers' state dict, and the number of encoder and of decoder layers."""
    names = _Renamer(variables)
    for conv in ("conv1", "conv2"):
        names.linear(f"encoder/{conv}", f"model.encoder.{conv}")
    counts = []
    for side in ("encoder", "decoder"):
        count = 0
        while f"{side}/layer_{count}/ffn/linear_0/weight" in variables:
            names.layer(
                f"{side}/layer_{count}", f"model.{side}.layers.{count}", cross=side == "decoder"
            )
            count += 1
        counts.append(count)
        names.norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        names.state[f"model.{side}.embed_positions.weight"] = variables[
            f"{side}/position_encodings/encodings"
        ]
    names.state["model.decoder.embed_tokens.weight"] = variables["decoder/embeddings/weight"]
    names.state["proj_out.weight"] = names.state["model.decoder.embed_tokens.weight"]
    return names.state, counts[0], counts[1]


def _generation_settings(config: dict[str, Any], tokenizer: Any, eot: int) -> dict[str, Any]:
    """The values of OpenAI's generation_config.json, from CTranslate2's config and tokenizer."""
    token = tokenizer.token_to_id
    languages = [tokenizer.id_to_token(i) for i in config["lang_ids"]]
    return {
        "bos_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": eot,
        "decoder_start_token_id": eot + 1,
        "max_length": 448,
        "max_initial_timestamp_index": 50,
        "suppress_tokens": config["suppress_ids"],
        "begin_suppress_tokens": config["suppress_ids_begin"],
        "alignment_heads": config["alignment_heads"],
        "no_timestamps_token_id": token("<|notimestamps|>"),
        "prev_sot_token_id": token("<|startofprev|>"),
        "return_timestamps": False,
        "is_multilingual": True,
        "lang_to_id": {language: token(language) for language in languages},
        "task_to_id": {
            "transcribe": token("<|transcribe|>"),
            "translate": token("<|translate|>"),
        },
    }


def convert(source: Path, target: Path) -> None:
    """Write the transformers folder `target` from the CTranslate2 folder `source`.

    Raises ValueError when it is not a multilingual Whisper in half or single precision.
    """
    state, encoder_layers, decoder_layers = rename(read_variables(source / "model.bin"))
    vocab, width = state["model.decoder.embed_tokens.weight"].shape
    if vocab < _MULTILINGUAL_VOCAB:
        raise ValueError(f"Cannot convert an English-only Whisper (vocabulary of {vocab})")
    tokenizer: Any = Tokenizer.from_file(str(source / "tokenizer.json"))
    eot = tokenizer.token_to_id("<|endoftext|>")
    ffn = state["model.encoder.layers.0.fc1.weight"].shape[0]
    mels = state["model.encoder.conv1.weight"].shape[1]
    heads = width // _HEAD_SIZE
    config = WhisperConfig(
        vocab_size=vocab,
        num_mel_bins=mels,
        d_model=width,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        pad_token_id=eot,
        bos_token_id=eot,
        eos_token_id=eot,
        decoder_start_token_id=eot + 1,
    )
    model = WhisperForConditionalGeneration(config).half()
    model.load_state_dict(state, strict=True)
    settings = json.loads((source / "config.json").read_text())
    model.generation_config = GenerationConfig(**_generation_settings(settings, tokenizer, eot))
    model.save_pretrained(target)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(target)
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    end = "<|endoftext|>"
    (target / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "WhisperTokenizer",
                "processor_class": "WhisperProcessor",
                "add_prefix_space": False,
                "model_max_length": 448,
                "bos_token": end,
                "eos_token": end,
                "pad_token": end,
                "unk_token": end,
            },
            indent=1,
        )
    )
