"""Beam search: the likeliest text of a window, of several that are followed side by side.

A greedy decoder takes the likeliest token each time and cannot go back on a word that turns out
wrong. Beam search follows the `beams` likeliest texts so far, as openai/whisper does by default
(`whisper/decoding.py`, BeamSearchDecoder with patience 1): it ends when as many have come to their
end, and takes the one with the highest mean logarithm of its tokens' probabilities.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from decoding import Decoded, cut_loop, room_for, vocabulary
from torch import Tensor
from whisper import Pair, Whisper


@dataclass(frozen=True)
class _Text:
    """A text so far. score: the sum of its tokens' natural logarithms of probabilities."""

    tokens: tuple[int, ...] = ()
    logs: tuple[float, ...] = ()
    score: float = 0.0
    finished: bool = False  # by an end token, whose probability is in the score

    def with_token(self, token: int, score: float) -> "_Text":
        return _Text((*self.tokens, token), (*self.logs, score - self.score), score)

    def mean(self) -> float:
        return self.score / max(len(self.tokens) + self.finished, 1)


@dataclass
class _Window:
    """The texts of one window: those that go on, the likeliest first, and those that ended.

    rows: for each text in `live`, which of the texts before it continues.
    """

    most_tokens: int
    room: int
    live: list[_Text] = field(default_factory=lambda: [_Text()])
    rows: list[int] = field(default_factory=list)
    ended: list[_Text] = field(default_factory=list)
    result: Decoded | None = None

    def take(self, scores: list[float], parents: list[int], tokens: list[int], end: int) -> None:
        """Go on with the likeliest continuations. Each of three lists has two for each beam, the
        likeliest first: their scores, their texts in `live`, and their new tokens."""
        beams = len(scores) // 2
        before, self.live, self.rows = self.live, [], []
        for score, parent, token in zip(scores, parents, tokens, strict=True):
            text = before[parent]
            if token == end:
                if len(self.ended) < beams:
                    self.ended.append(_Text(text.tokens, text.logs, score, finished=True))
            else:
                self.live.append(text.with_token(token, score))
                self.rows.append(parent)
            if len(self.live) == beams:
                break
        first = self.live[0]
        looped = Decoded(list(first.tokens), [math.exp(log) for log in first.logs], room=self.room)
        if cut_loop(looped):
            self.result = looped
        elif len(self.ended) == beams or len(first.tokens) >= self.most_tokens:
            self.result = self._best()

    def _best(self) -> Decoded:
        """One that ended, if any did."""
        best = max(self.ended or self.live, key=_Text.mean)
        return Decoded(
            list(best.tokens),
            [math.exp(log) for log in best.logs],
            finished=best.finished,
            full=not best.finished,
            room=self.room,
        )


def search(
    model: Whisper,
    cross: Sequence[Pair],
    prompts: list[list[int]],
    max_tokens: list[int],
    *,
    beams: int,
    syllables: list[int] | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Decoded]:
    """Decode each window of a batch; the arguments are those of `decoding.decode`."""
    words = vocabulary(model)
    windows = [
        _Window(limit, room_for(count))
        for limit, count in zip(max_tokens, syllables or [0] * len(prompts), strict=True)
    ]
    cache: list[Pair] | None = None
    tokens = torch.tensor(prompts, device=model.device)
    while True:
        check()
        never = words.suppress if cache else words.suppress_at_first
        states, cache = model.decoder(tokens, cross, cache)
        logits = model.proj_out(states[:, -1]).float()
        logits[:, never] = -torch.inf
        scores, parents, chosen = _likeliest(logits, windows, 2 * beams)
        for window, its_scores, texts, new in zip(windows, scores, parents, chosen, strict=True):
            if window.result is None:
                window.take(its_scores, texts, new, words.end)
        if all(window.result is not None for window in windows):
            return [window.result for window in windows if window.result is not None]
        width = len(states) // len(windows)
        rows = [
            number * width + row for number, window in enumerate(windows) for row in window.rows
        ]
        _reorder(cache, rows)
        tokens = torch.tensor(
            [[text.tokens[-1]] for window in windows for text in window.live], device=model.device
        )


def _likeliest(
    logits: Tensor, windows: list[_Window], count: int
) -> tuple[list[list[float]], list[list[int]], list[list[int]]]:
    """The `count` likeliest continuations of each window, the likeliest first: the score of the
    text, its row within the window, and the token. logits: (windows × texts, vocabulary)."""
    so_far = torch.tensor(
        [[text.score] for window in windows for text in window.live], device=logits.device
    )
    vocabulary_size = logits.shape[-1]
    scores = (logits.log_softmax(-1) + so_far).view(len(windows), -1)
    best = scores.topk(count, -1)
    parents = best.indices // vocabulary_size
    return best.values.tolist(), parents.tolist(), (best.indices % vocabulary_size).tolist()


def _reorder(cache: list[Pair], rows: list[int]) -> None:
    """Bring the keys and values into the order of these rows, one layer after the other: both
    orders of all layers would take twice the memory."""
    if rows == list(range(len(cache[0][0]))):
        return
    index = torch.tensor(rows, device=cache[0][0].device)
    for layer, (keys, values) in enumerate(cache):
        cache[layer] = (keys[index], values[index])
