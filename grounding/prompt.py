"""Turns labels into token sequences that fit the model, with the span of each label.

The prompt has the form of the original's evaluation code: "cat. remote control.". It is built from
token ids, not from text, so that each label's span is known by construction: no search for
substrings ("car" in "scar"), no offsets to map back. WordPiece splits at white space and
punctuation first, so the ids equal those of the joined text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from errors import InvalidInput

Word = list[int]
"""Token ids of one word: the word's first piece and its "##" continuations."""

Span = tuple[int, int]
"""Positions in a prompt: the first, and one past the last."""


class Chunk(NamedTuple):
    """The prompt of one pass: as many labels as fit into the model's text length."""

    input_ids: tuple[int, ...]
    """[CLS] label . label . [SEP]; another engine's prompts are its own matter."""
    label_indices: tuple[int, ...]
    """Which labels, as indices into the list that `build_chunks` was given."""
    word_spans: tuple[tuple[Span, ...], ...]
    """For each of them the token spans of its words, without gaps."""


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
    words = tokenize(labels, tokenizer)
    ignored = frozenset(index for index, of_label in enumerate(words) if not of_label)
    return Query(build_chunks(words, max_tokens, tokenizer), ignored, {})


def tokenize(texts: Sequence[str], tokenizer: Any) -> list[list[Word]]:
    """The words of each label, without special tokens.

    Unknown tokens are left out, since their scores mean nothing; a label of only such tokens is
    empty. Tokens that the model reads as the end of a label are left out too.
    """
    excluded = delimiters(tokenizer) | {tokenizer.unk_token_id, tokenizer.pad_token_id}
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    return [_words([token for token in ids if token not in excluded], tokenizer) for ids in encoded]


def _words(ids: Sequence[int], tokenizer: Any) -> list[Word]:
    words: list[Word] = []
    for token, piece in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True):
        if words and piece.startswith("##"):
            words[-1].append(token)
        else:
            words.append([token])
    return words


def delimiters(tokenizer: Any) -> set[int]:
    """The ids at which the model cuts its text: [CLS], [SEP], "." and "?".

    Upstream hard-codes 101, 102, 1012 and 1029, which are these in every BERT vocabulary
    (transformers 5.23, modeling_grounding_dino.SPECIAL_TOKENS).
    """
    period, question = tokenizer.convert_tokens_to_ids([".", "?"])
    return {tokenizer.cls_token_id, tokenizer.sep_token_id, period, question}


def build_chunks(labels: Sequence[Sequence[Word]], max_tokens: int, tokenizer: Any) -> list[Chunk]:
    """Fill chunks with whole labels, in order; labels without words are skipped.

    max_tokens: the model's text length, special tokens included (256 in the published ones).
    Upstream truncates a longer text silently, and labels are lost.

    Raises InvalidInput when a single label does not fit, or none has a word left.
    """
    period = tokenizer.convert_tokens_to_ids(".")
    groups: list[list[int]] = []
    room = 0
    for index, words in enumerate(labels):
        if not words:
            continue
        needed = sum(map(len, words)) + 1  # and its period
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


def _chunk(
    group: Sequence[int], labels: Sequence[Sequence[Word]], period: int, tokenizer: Any
) -> Chunk:
    ids: list[int] = [tokenizer.cls_token_id]
    spans: list[tuple[Span, ...]] = []
    for index in group:
        of_label: list[Span] = []
        for word in labels[index]:
            of_label.append((len(ids), len(ids) + len(word)))
            ids += word
        spans.append(tuple(of_label))
        ids.append(period)
    return Chunk((*ids, tokenizer.sep_token_id), tuple(group), tuple(spans))
