"""Whisper's network: encoder, decoder, and the cache between the decoder's steps.

The layers have the names and the order of operations of transformers'
`WhisperForConditionalGeneration`, so its weights load as they are and give the same numbers (the
tests compare). Importing that class takes 125 MB, because it brings a compiler and training with
it: here weights are read without it. Configurations, tokens and features are transformers'.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.generation.configuration_utils import GenerationConfig
from transformers.utils.hub import cached_file

Pair = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (batch, heads, n, width / heads)."""


class Attention(nn.Module):
    """Several heads of attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def pair(self, states: Tensor) -> Pair:
        """The keys and values of (batch, n, width)."""
        return self._heads(self.k_proj(states)), self._heads(self.v_proj(states))

    def forward(self, states: Tensor, pair: Pair, *, is_causal: bool = False) -> Tensor:
        """(batch, n, width) to the same. is_causal: a state attends to those before it alone."""
        # Scaled before the product, as in openai/whisper: the order matters in half precision.
        query = self._heads(self.q_proj(states) * self.head_dim**-0.5)
        made = F.scaled_dot_product_attention(query, *pair, is_causal=is_causal, scale=1.0)
        result: Tensor = self.out_proj(made.transpose(1, 2).reshape(states.shape))
        return result

    def _heads(self, states: Tensor) -> Tensor:
        batch, count, _ = states.shape
        return states.view(batch, count, -1, self.head_dim).transpose(1, 2).contiguous()


class Layer(nn.Module):
    """Attention to itself, in the decoder to the encoder's states too, and two linear layers."""

    def __init__(self, width: int, heads: int, inner: int, *, has_cross: bool) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        if has_cross:
            self.encoder_attn = Attention(width, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def encoded(self, states: Tensor) -> Tensor:
        """A step of the encoder."""
        normed = self.self_attn_layer_norm(states)
        states = states + self.self_attn(normed, self.self_attn.pair(normed))
        states = self._widened(states)
        if states.dtype == torch.float16:
            most = torch.finfo(states.dtype).max - 1000
            states = states.clamp(-most, most)
        return states

    def decoded(self, states: Tensor, cross: Pair, past: Pair | None) -> tuple[Tensor, Pair]:
        """A step of the decoder, and its keys and values up to here. past: those before."""
        normed = self.self_attn_layer_norm(states)
        pair = self.self_attn.pair(normed)
        if past is not None:
            pair = (torch.cat((past[0], pair[0]), 2), torch.cat((past[1], pair[1]), 2))
        states = states + self.self_attn(normed, pair, is_causal=states.shape[1] > 1)
        normed = self.encoder_attn_layer_norm(states)
        # Texts of one window, which follow each other here, attend to the same sound.
        grouped = normed.view(len(cross[0]), -1, normed.shape[-1])
        states = states + self.encoder_attn(grouped, cross).view_as(states)
        return self._widened(states), pair

    def _widened(self, states: Tensor) -> Tensor:
        made: Tensor = self.fc2(F.gelu(self.fc1(self.final_layer_norm(states))))
        return states + made


class Encoder(nn.Module):
    """Mel spectra to states, two spectra each."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        width, heads, inner = (
            config.d_model,
            config.encoder_attention_heads,
            config.encoder_ffn_dim,
        )
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = _table(config.max_source_positions, width)
        self.layers: Any = nn.ModuleList(
            Layer(width, heads, inner, has_cross=False) for _ in range(config.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, bands, 3000) to (batch, 1500, width)."""
        states = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        states = states + self.embed_positions.weight
        for layer in self.layers:
            states = layer.encoded(states)
        result: Tensor = self.layer_norm(states)
        return result


class Decoder(nn.Module):
    """Tokens so far to states, from which the next token is chosen."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        width, heads, inner = (
            config.d_model,
            config.decoder_attention_heads,
            config.decoder_ffn_dim,
        )
        self.embed_tokens: Any = _table(config.vocab_size, width)
        self.embed_positions = _table(config.max_target_positions, width)
        self.layers: Any = nn.ModuleList(
            Layer(width, heads, inner, has_cross=True) for _ in range(config.decoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)

    def cross(self, encoded: Tensor) -> Iterable[Pair]:
        """Each layer's keys and values of the encoder's states, made when they are asked for."""
        return (layer.encoder_attn.pair(encoded) for layer in self.layers)

    def forward(
        self, tokens: Tensor, cross: Iterable[Pair], past: list[Pair] | None = None
    ) -> tuple[Tensor, list[Pair]]:
        """(batch, n) tokens to (batch, n, width), and the keys and values for the next call.

        cross: of `cross`, for as many windows as there are rows of tokens, or a part of them: then
        each window has as many rows, one after the other; past: what the call before returned.
        """
        count = past[0][0].shape[2] if past else 0
        positions = self.embed_positions.weight[count : count + tokens.shape[1]]
        states = self.embed_tokens(tokens) + positions
        pairs = []
        for layer, other, before in zip(self.layers, cross, past or repeat(None), strict=False):
            states, pair = layer.decoded(states, other, before)
            pairs.append(pair)
        return self.layer_norm(states), pairs


class Whisper(nn.Module):
    """Encoder, decoder, and `proj_out`: states of the decoder to the logits of the next token."""

    def __init__(self, config: WhisperConfig, generation_config: Any = None) -> None:
        super().__init__()
        self.config = config
        self.generation_config = generation_config or GenerationConfig.from_model_config(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.proj_out: Any = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """One table of tokens for both ends of the decoder."""
        self.proj_out.weight = self.decoder.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        return self.encoder.conv1.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.encoder.conv1.weight.dtype


def _table(count: int, width: int) -> nn.Embedding:
    """Vectors without values yet: torch would import its compiler to draw random ones."""
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(count, width))  # type: ignore[no-untyped-call]
    return made


def part_of(cross: Sequence[Pair], windows: Sequence[int]) -> Sequence[Pair]:
    """The keys and values of some windows of a batch, in order."""
    if len(windows) == len(cross[0][0]):
        return cross
    return [(keys[windows], values[windows]) for keys, values in cross]


def load(source: str, dtype: torch.dtype) -> Whisper:
    """The weights of a hub id or a folder, as `save_pretrained` of transformers writes it."""
    config: Any = WhisperConfig.from_pretrained(source)
    try:
        generation: Any = GenerationConfig.from_pretrained(source)
    except OSError:  # a folder without that file
        generation = None
    with torch.device("meta"):  # no memory yet
        model = Whisper(config, generation)
    state = {name.removeprefix("model."): value for name, value in _weights(source).items()}
    state["proj_out.weight"] = state["decoder.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.tie()
    return model.to(dtype).eval().requires_grad_(False)


def _weights(source: str) -> dict[str, Tensor]:
    path = cached_file(
        source,
        "model.safetensors",
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is not None and Path(path).is_file():
        return load_file(path)
    # In several files, or of an older format.
    from transformers import WhisperForConditionalGeneration  # noqa: PLC0415 - takes 125 MB

    model: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype="auto")
    return dict(model.state_dict())
