"""The tokenizer of the demo's captions: each of their words is one token, others are pieces."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from tools.demo import captions

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
LONGEST = 32
"""Tokens of a text; the longest caption has 26. CLIP's 77 would take longer to train."""

Word = tuple[str, ...]


def make(folder: Path) -> CLIPTokenizer:
    """Write CLIP's files for the captions' vocabulary to `folder`; the same every time."""
    words = sorted({word for text in captions.vocabulary() for word in text.split()})
    pairs = merges([(*word[:-1], word[-1] + "</w>") for word in words])
    alphabet = list(_bytes())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(p) for p in pairs)]
    vocabulary = {piece: index for index, piece in enumerate([*dict.fromkeys(pieces), BEGIN, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LONGEST,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return load(folder)


def merges(words: list[Word]) -> list[tuple[str, str]]:
    """Byte pairs (Sennrich et al. 2016) until each word is one piece; of equals the first by name.

    The tokenizers library picks among equals at random.
    """
    found: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            return found
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        found.append(best)
        words = [_merged(word, best) for word in words]


def _merged(word: Word, pair: tuple[str, str]) -> Word:
    made: list[str] = []
    for piece in word:
        if made and (made[-1], piece) == pair:
            made[-1] += piece
        else:
            made.append(piece)
    return tuple(made)


def _bytes() -> str:
    """A printable letter for each byte, as in GPT-2's vocabulary and CLIP's."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return "".join(map(chr, [*plain, *range(256, 256 + 256 - len(plain))]))


def load(folder: Path) -> CLIPTokenizer:
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def encoded(tokenizer: CLIPTokenizer, texts: list[str]) -> list[list[int]]:
    """Token numbers, `LONGEST` of each text."""
    return list(
        tokenizer(texts, padding="max_length", max_length=LONGEST, truncation=True).input_ids
    )
