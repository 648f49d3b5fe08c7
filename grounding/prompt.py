"""Turns labels into token sequences that fit the model, with the spans of each label's words.

The prompt has the form of the original's evaluation code: "cat. remote control.". It is built from
token ids, not from text, so that each word's span is known by construction: no search for
substrings ("car" in "scar"), no offsets to map back. WordPiece splits at white space and
punctuation first, so the ids equal those of the joined text.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from errors import InvalidInput

ARTICLES = frozenset(("a", "an", "the"))
"""Words that name nothing: beside others no box must answer to them."""

Span = tuple[int, int]
"""Positions in a prompt: the first, and one past the last."""


class Tokens(NamedTuple):
    """One label as the text encoder reads it."""

    ids: tuple[int, ...]
    """Of its words and of the signs between them; none for a label that is not known."""
    words: tuple[Span, ...]
    """Of each word that a box must answer to its place in `ids`: the word's first piece and its
    "##" continuations. Signs ("-", "(", "'s") and articles are not among them."""
    left_out: bool = False
    """A sign that has no token was left out: an emoji beside words."""


class Chunk(NamedTuple):
    """The prompt of one pass: as many labels as fit into the model's text length."""

    input_ids: tuple[int, ...]
    """[CLS] label . label . [SEP]; another engine's prompts are its own matter."""
    label_indices: tuple[int, ...]
    """Which labels, as indices into the list that `build_chunks` was given."""
    word_spans: tuple[tuple[Span, ...], ...]
    """For each of them the token spans of its words; between them other tokens may stand."""


class Query(NamedTuple):
    """A request's labels as an engine reads them."""

    chunks: Sequence[Chunk]
    ignored: frozenset[int]
    """Indices of the labels that mean nothing to the model."""
    read_as: Mapping[int, Sequence[str]]
    """By a label's index what the model looks for instead of the label's own words."""


def read_labels(labels: Sequence[str], tokenizer: Any, max_tokens: int) -> Query:
    """The labels as a model with a text encoder reads them: word by word.

    Raises InvalidInput when build_chunks does.
    """
    tokens = tokenize(labels, tokenizer)
    read_as = {
        index: (" ".join(text for text, is_word in _parts(labels[index]) if is_word),)
        for index, of_label in enumerate(tokens)
        if of_label.left_out and of_label.words
    }
    ignored = frozenset(index for index, of_label in enumerate(tokens) if not of_label.words)
    return Query(build_chunks(tokens, max_tokens, tokenizer), ignored, read_as)


def tokenize(texts: Sequence[str], tokenizer: Any) -> list[Tokens]:
    """The tokens of each label, without special tokens.

    A label with a word that has no token is not known as a whole: read by half, "蓝 circle" would
    find a red one. Signs that have no token, and those that the model reads as the end of a label,
    are left out.
    """
    parts = [_without_articles(list(_parts(text))) for text in texts]
    flat = [text for of_label in parts for text, _ in of_label]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else [])
    excluded = delimiters(tokenizer) | {tokenizer.unk_token_id, tokenizer.pad_token_id}
    return [
        _tokens([(next(encoded), is_word) for _, is_word in of_label], excluded)
        for of_label in parts
    ]


def _without_articles(parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    named = any(is_word and text not in ARTICLES for text, is_word in parts)
    return [(text, is_word and not (named and text in ARTICLES)) for text, is_word in parts]


def _tokens(parts: Sequence[tuple[Sequence[int], bool]], excluded: set[int]) -> Tokens:
    ids: list[int] = []
    words: list[Span] = []
    left_out = False
    for part, is_word in parts:
        unknown = excluded & set(part)
        if is_word and unknown:
            return Tokens((), ())
        left_out |= bool(unknown)
        if is_word and part:
            words.append((len(ids), len(ids) + len(part)))
        ids += [token for token in part if token not in excluded]
    return Tokens(tuple(ids), tuple(words), left_out) if words else Tokens((), ())


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Words and single signs of a label, and whether each is a word that must be found.

    A word is letters, digits and their marks, as the tokenizer splits it; what follows an
    apostrophe in a word is no word of its own ("dog's", "o'clock").

    >>> [text for text, is_word in _parts("the dog's t-shirt") if is_word]
    ['the', 'dog', 't', 'shirt']
    """
    word = ""
    after_apostrophe = False
    for sign in f"{text} ":  # the space ends the last word
        if unicodedata.category(sign)[0] in "LNM":
            word += sign
            continue
        if word:
            yield word, not after_apostrophe
        after_apostrophe = sign in "'’" and bool(word)
        word = ""
        if not sign.isspace():
            yield sign, False


def delimiters(tokenizer: Any) -> set[int]:
    """The ids at which the model cuts its text: [CLS], [SEP], "." and "?".

    Upstream hard-codes 101, 102, 1012 and 1029, which are these in every BERT vocabulary
    (transformers 5.23, modeling_grounding_dino.SPECIAL_TOKENS).
    """
    period, question = tokenizer.convert_tokens_to_ids([".", "?"])
    return {tokenizer.cls_token_id, tokenizer.sep_token_id, period, question}


def build_chunks(labels: Sequence[Tokens], max_tokens: int, tokenizer: Any) -> list[Chunk]:
    """Fill chunks with whole labels, in order; labels without words are skipped.

    max_tokens: the model's text length, special tokens included (256 in the published ones).
    Upstream truncates a longer text silently, and labels are lost.

    Raises InvalidInput when a single label does not fit, or none has a word left.
    """
    period = tokenizer.convert_tokens_to_ids(".")
    groups: list[list[int]] = []
    room = 0
    for index, label in enumerate(labels):
        if not label.words:
            continue
        needed = len(label.ids) + 1  # and its period
        if needed > max_tokens - 2:  # [CLS] and [SEP]
            raise InvalidInput(
                f"Cannot search: label {index + 1} of 'text_queries' must have at most "
                f"{max_tokens - 3} tokens, got {needed - 1}"
            )
        if needed > room:
            groups.append([])
            room = max_tokens - 2
        groups[-1].append(index)
        room -= needed
    if not groups:
        raise InvalidInput(
            "Cannot search: 'text_queries' must hold words that the model knows, got none"
        )
    return [_chunk(group, labels, period, tokenizer) for group in groups]


def _chunk(group: Sequence[int], labels: Sequence[Tokens], period: int, tokenizer: Any) -> Chunk:
    ids: list[int] = [tokenizer.cls_token_id]
    spans: list[tuple[Span, ...]] = []
    for index in group:
        start = len(ids)
        spans.append(tuple((start + a, start + b) for a, b in labels[index].words))
        ids += [*labels[index].ids, period]
    return Chunk((*ids, tokenizer.sep_token_id), tuple(group), tuple(spans))
