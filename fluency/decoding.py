"""Whisper's decoder loop: a batch of windows to tokens, with probabilities and a loop guard.

`generate` of transformers gives the same tokens (the tests compare). This loop stores one
probability per token instead of whole rows of the vocabulary, stops a window as soon as it repeats
itself, and uses one encoding for language, text and times.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

# OpenAI's whisper/transcribe.py: a text that compresses better than this repeats itself, ...
MAX_COMPRESSION: Final = 2.4
# ... and one that is less likely than this is a guess. Both are tried again at a temperature.
MIN_LOG_PROBABILITY: Final = -1.0
TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# A phrase of p tokens, repeated this often in a row, is a loop.
_LOOP_REPEATS: Final = {1: 12, 2: 8, 3: 6, **dict.fromkeys(range(4, 21), 4)}


@dataclass
class Decoded:
    """Tokens of one window without prompt and end token, and the probability of each."""

    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    looped: bool = False
    finished: bool = False

    @property
    def log_probability(self) -> float:
        """Mean natural logarithm of the tokens' probabilities; 0 for no token."""
        if not self.probabilities:
            return 0.0
        return float(torch.tensor(self.probabilities).clamp(min=1e-9).log().mean())


@dataclass(frozen=True)
class Vocabulary:
    """The special ids that the loop needs."""

    end: int
    suppress: Tensor  # (k,) never generated
    suppress_at_first: Tensor  # (k,) never generated as the first token


def vocabulary(model: Any) -> Vocabulary:
    """From a WhisperForConditionalGeneration's generation config."""
    config = model.generation_config
    device = model.device
    return Vocabulary(
        int(
            config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0]
        ),
        torch.tensor(config.suppress_tokens or [], dtype=torch.long, device=device),
        torch.tensor(
            [*(config.suppress_tokens or []), *(config.begin_suppress_tokens or [])],
            dtype=torch.long,
            device=device,
        ),
    )


def decode(
    model: Any,
    encoded: Tensor,
    prompts: list[list[int]],
    max_tokens: list[int],
    *,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Decoded]:
    """Decode each window of a batch; the result is the same as alone.

    encoded: (batch, frames, width) encoder states; prompts: each window's task
    tokens, all of one length; max_tokens: each window's. Temperature 0 is greedy,
    above it tokens are drawn, for each window from a generator with the given seed.
    """
    words = vocabulary(model)
    results = [Decoded() for _ in prompts]
    cache = None
    tokens = torch.tensor(prompts, device=encoded.device)
    random = [torch.Generator(device=encoded.device).manual_seed(seed) for _ in prompts]
    for step in range(max(max_tokens)):
        output = model.model.decoder(
            input_ids=tokens, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits = model.proj_out(output.last_hidden_state[:, -1]).float()
        logits[:, words.suppress if step else words.suppress_at_first] = -torch.inf
        log_probabilities = logits.log_softmax(-1)
        if temperature > 0:
            tokens = _draw((logits / temperature).softmax(-1), random)
        else:
            tokens = log_probabilities.argmax(-1, keepdim=True)
        chosen = log_probabilities.gather(-1, tokens).exp().flatten().tolist()
        for result, token, probability, limit in zip(
            results, tokens.flatten().tolist(), chosen, max_tokens, strict=True
        ):
            _take(result, token, probability, words.end)
            result.finished |= len(result.tokens) >= limit
        if all(result.finished for result in results):
            break
    return results


def _draw(chances: Tensor, random: list[torch.Generator]) -> Tensor:
    """A token for each window, by its own generator. chances: (batch, vocabulary)."""
    rows = [
        torch.multinomial(row, 1, generator=own) for row, own in zip(chances, random, strict=True)
    ]
    return torch.stack(rows)


def _take(result: Decoded, token: int, probability: float, end: int) -> None:
    if result.finished:
        return
    if token == end:
        result.finished = True
        return
    result.tokens.append(token)
    result.probabilities.append(probability)
    if period := loop_period(result.tokens):
        keep = len(result.tokens) - period * (_LOOP_REPEATS[period] - 1)
        del result.tokens[keep:], result.probabilities[keep:]
        result.looped = result.finished = True


def loop_period(tokens: list[int]) -> int:
    """The length of the phrase that the tokens repeat at their end, or 0.

    >>> loop_period([5, 6] + [1, 2, 3] * 6)
    3
    """
    for period, repeats in _LOOP_REPEATS.items():
        span = period * repeats
        if len(tokens) >= span and tokens[-span:] == tokens[-period:] * repeats:
            return period
    return 0


def compression_ratio(text: str) -> float:
    """Length of the text over its length when compressed (zlib): high for repetitive text."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw)) if raw else 0.0
