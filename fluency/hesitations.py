"""Puts back the hesitations ("uh", "um") that Whisper heard and did not write.

Its training texts were edited, so it leaves most of them out; after a text that has some it writes
them. Here the finished text is read once more behind such a prompt, in one step of the decoder, and
before each word the chance of a hesitation is looked up: the other words stay as they are. Decoding
with the prompt finds as many, but it changes other words too, and is a second decoding.

The limit was set with whisper-base on two recordings of 27 and 25 s in which people had marked
eight: seven are found, the eighth has a chance of 0.22. One more is found, where nothing is marked
but a level voice sounds. In 65 s of reading there is none, in 30 s of a telephone call one ("At
least, uh, you know"), which nobody has marked.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from decoding import Decoded
from torch import Tensor
from whisper import Pair, Whisper, part_of

# By language, because it must be in the recording's own. Other languages have none that was tried.
PROMPTS: Final = {"en": " Um, uh, I, um, I was, uh, going to, uh, say, um, that."}
SOUNDS: Final = {"en": (" um", " uh", " Um", " Uh", " er", " hmm", " Hmm")}
LEAST: Final = 0.5


def restore(
    model: Whisper,
    tokenizer: Any,
    cross: Sequence[Pair],
    tasks: list[tuple[str, list[int]]],
    decoded: list[Decoded],
) -> list[Decoded]:
    """Each window with its hesitations, each followed by a comma.

    cross: of the decoder, for k windows; tasks: each window's language (ISO 639-1) and task tokens.
    """
    before = model.generation_config.prev_sot_token_id
    windows = [k for k, one in enumerate(decoded) if one.tokens and tasks[k][0] in PROMPTS]
    if before is None or not windows:
        return decoded
    rows = []
    for window in windows:
        language, task = tasks[window]
        example = _tokens(tokenizer, PROMPTS[language])
        rows.append([before, *example, *task, *decoded[window].tokens])
    longest = max(map(len, rows))
    padded = torch.tensor([row + [before] * (longest - len(row)) for row in rows])
    hidden, _ = model.decoder(padded.to(model.device), part_of(cross, windows))
    made = list(decoded)
    for row, window in enumerate(windows):
        own = decoded[window]
        first = len(rows[row]) - len(own.tokens) - 1
        # One window at a time: sixteen rows of the vocabulary for each token would be 0.7 GB.
        chances = model.proj_out(hidden[row, first : len(rows[row])]).float().softmax(-1)
        made[window] = _with_sounds(own, chances, tokenizer, tasks[window][0])
    return made


def _with_sounds(own: Decoded, chances: Tensor, tokenizer: Any, language: str) -> Decoded:
    """chances: (1 + tokens, vocabulary), of what comes before each token and at the end."""
    known = [_tokens(tokenizer, sound) for sound in SOUNDS[language]]
    sounds = [tokens[0] for tokens in known if len(tokens) == 1]
    comma = _tokens(tokenizer, ",")
    likely, best = chances[:, sounds].sum(-1), chances[:, sounds].argmax(-1)
    texts = [tokenizer.decode([token]) for token in own.tokens]
    tokens: list[int] = []
    probabilities: list[float] = []
    word = 0.0  # the chance before the punctuation that precedes this word, if there is any
    for index in range(len(texts) + 1):
        chance = max(word, float(likely[index]))
        word = 0.0
        is_last = index == len(texts)
        if not is_last and not any(character.isalnum() for character in texts[index]):
            word = chance  # "corpus. Uh": before the full stop, or behind it
        elif is_last or texts[index].startswith(" "):
            following = None if is_last else own.tokens[index]
            beside = {following, tokens[-1] if tokens else None, *tokens[-2:-1]}
            if chance >= LEAST and beside.isdisjoint(sounds):
                tokens += [sounds[int(best[index])], *comma]
                probabilities += [chance, *[1.0] * len(comma)]
        if not is_last:
            tokens.append(own.tokens[index])
            probabilities.append(own.probabilities[index])
    return replace(own, tokens=tokens, probabilities=probabilities)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
