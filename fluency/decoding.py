"""Whisper's decoder loop: a batch of windows to tokens, with probabilities and a loop guard.

`generate` of transformers gives the same tokens (the tests compare). This loop stores one
probability per token instead of whole rows of the vocabulary, stops a window as soon as it repeats
itself, and uses one encoding for language, text and times. `beam_search` does the same for several
texts of each window.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from whisper import Pair, Whisper

# OpenAI's whisper/transcribe.py: a text that compresses better than this repeats itself, ...
MAX_COMPRESSION: Final = 2.4
# ... and one that is less likely than this is a guess. Both are tried again at temperatures.
MIN_LOG_PROBABILITY: Final = -1.0
TEMPERATURES: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
# A drill repeats a phrase as often as the transcript has it. So a loop is one only beyond what
# the sound has room for: this many tokens for each of its syllables (English has 0.8).
_TOKENS_PER_SYLLABLE: Final = 2.0
_TOKENS_AT_LEAST: Final = 8
# A text with fewer tokens for each syllable of the sound may lack words. Beam search leaves out
# repetitions that are spoken, because a short text has fewer tokens that could be unlikely.
_FEW_TOKENS_PER_SYLLABLE: Final = 0.6
# A phrase of p tokens, repeated this often in a row, is a loop.
_LOOP_REPEATS: Final = {1: 12, 2: 8, 3: 6, **dict.fromkeys(range(4, 21), 4)}


@dataclass
class Decoded:
    """Tokens of one window without prompt and end token, and the probability of each."""

    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    looped: bool = False
    finished: bool = False  # by an end token, or as a loop
    full: bool = False  # by the limit of tokens
    room: int = 0  # tokens that the sound's syllables have room for

    @property
    def is_drill(self) -> bool:
        """Whether it ended by itself, in as many tokens as the sound has room for, and no fewer."""
        return not self.looped and self.finished and self.room / 8 <= len(self.tokens) <= self.room

    @property
    def may_lack_words(self) -> bool:
        """Whether it has few tokens for the sound's syllables, where these are known."""
        syllables = (self.room - _TOKENS_AT_LEAST) / _TOKENS_PER_SYLLABLE
        return len(self.tokens) < _FEW_TOKENS_PER_SYLLABLE * syllables

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


def vocabulary(model: Whisper) -> Vocabulary:
    """From the generation config."""
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
    model: Whisper,
    cross: Sequence[Pair],
    prompts: list[list[int]],
    max_tokens: list[int],
    *,
    syllables: list[int] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> list[Decoded]:
    """Decode each window of a batch, one token at a time; the result is the same as alone.

    cross: of the decoder; prompts: each window's task tokens, all of one length; max_tokens,
    syllables: each window's; as many repetitions as the syllables have room for are no loop.
    Temperature 0 is greedy, above it tokens are drawn, for each window from a generator with the
    given seed. `check` is called before each step; an exception from it ends the work.
    """
    words = vocabulary(model)
    results = [Decoded(room=room_for(count)) for count in syllables or [0] * len(prompts)]
    cache = None
    tokens = torch.tensor(prompts, device=model.device)
    random = [torch.Generator(device=model.device).manual_seed(seed) for _ in prompts]
    for step in range(max(max_tokens)):
        check()
        states, cache = model.decoder(tokens, cross, cache)
        logits = model.proj_out(states[:, -1]).float()
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
            result.full |= len(result.tokens) >= limit
        if all(result.finished or result.full for result in results):
            break
    return results


def _draw(chances: Tensor, random: list[torch.Generator]) -> Tensor:
    """A token for each window, by its own generator. chances: (batch, vocabulary)."""
    rows = [
        torch.multinomial(row, 1, generator=own) for row, own in zip(chances, random, strict=True)
    ]
    return torch.stack(rows)


def _take(result: Decoded, token: int, probability: float, end: int) -> None:
    if result.finished or result.full:
        return
    if token == end:
        result.finished = True
        return
    result.tokens.append(token)
    result.probabilities.append(probability)
    cut_loop(result)


def cut_loop(result: Decoded) -> bool:
    """Whether the text ends in a loop; it is then cut after the first of the repetitions."""
    if len(result.tokens) <= result.room or not (period := loop_period(result.tokens)):
        return False
    keep = _before_loop(result.tokens, period) + period
    del result.tokens[keep:], result.probabilities[keep:]
    result.looped = result.finished = True
    return True


def _before_loop(tokens: list[int], period: int) -> int:
    """How many tokens come before the phrase of this length that is repeated up to the end."""
    start = len(tokens) - period
    while start and tokens[start - 1] == tokens[start - 1 + period]:
        start -= 1
    return start


def room_for(syllables: int) -> int:
    """How many tokens a window of so many syllables has room for; 0 for none."""
    return _TOKENS_AT_LEAST + round(_TOKENS_PER_SYLLABLE * syllables) if syllables else 0


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
