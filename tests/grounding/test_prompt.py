"""Prompts: exact token spans, chunks within the model's text length."""

import pytest
from errors import InvalidInput
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompt import build_chunks, delimiters, tokenize

WORDS = st.sampled_from(
    ("red", "circle", "car", "scar", "van", "vans", "traffic light", "café", "naïve", "t-shirt")
) | st.sampled_from(("o'clock", "山", "кошка", "skateboarding", "1", "42"))
LABELS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=60)


def decoded(tokenizer, chunk, words):
    """The text of one label's span."""
    start, stop = words[0][0], words[-1][1]
    return tokenizer.decode(list(chunk.input_ids[start:stop]))


def test_spans_cover_each_label_exactly(tokenizer):
    """A label inside another, plurals and word pieces each have their own tokens."""
    texts = ["car", "scar", "cars", "a red car", "skateboarding"]
    (chunk,) = build_chunks(tokenize(texts, tokenizer), 256, tokenizer)
    expected = [*texts[:3], "red car", *texts[4:]]
    assert [decoded(tokenizer, chunk, words) for words in chunk.word_spans] == expected
    assert [len(words) for words in chunk.word_spans] == [1, 1, 1, 2, 1]


@given(labels=LABELS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_equal_those_of_the_joined_text(tokenizer, labels):
    """Put together from ids, the prompt is what the tokenizer makes of "a. b. c."."""
    (chunk,) = build_chunks(tokenize(labels, tokenizer), 10_000, tokenizer)
    joined = tokenizer(". ".join(labels) + ".")["input_ids"]
    assert list(chunk.input_ids) == joined


@given(labels=LABELS, limit=st.integers(20, 80))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_hold_every_label_once(tokenizer, labels, limit):
    """No chunk is too long, no label is lost, cut or repeated, and the order stays."""
    tokens = tokenize(labels, tokenizer)
    chunks = build_chunks(tokens, limit, tokenizer)
    assert all(len(chunk.input_ids) <= limit for chunk in chunks)
    assert [i for chunk in chunks for i in chunk.label_indices] == list(range(len(labels)))
    for chunk in chunks:
        for index, spans in zip(chunk.label_indices, chunk.word_spans, strict=True):
            got = [chunk.input_ids[a:b] for a, b in spans]
            assert got == [tokens[index].ids[a:b] for a, b in tokens[index].words]
            assert got


def test_delimiters_are_those_upstream_hard_codes(tokenizer):
    """The model cuts its text at ids 101, 102, 1012 and 1029."""
    assert delimiters(tokenizer) == {101, 102, 1012, 1029}


@pytest.mark.parametrize("text", ["[sep] cat", "cat [mask]", "cat ?", "cat . dog", "[SEP]cat"])
def test_no_label_can_smuggle_in_an_end_mark(tokenizer, text):
    """Whatever a label says, the model sees no end of label inside it."""
    (tokens,) = tokenize([text], tokenizer)
    assert tokens.words
    assert not set(tokens.ids) & delimiters(tokenizer)


def test_unknown_signs_are_left_out(tokenizer):
    """Emoji have no token: next to a word they are left out, alone they leave an empty label."""
    mixed, alone = tokenize(["red 🚗 car", "🚗"], tokenizer)
    assert tokenizer.decode(list(mixed.ids)) == "red car"
    assert mixed.left_out
    assert alone.ids == alone.words == ()
    with pytest.raises(InvalidInput, match="words that the model knows"):
        build_chunks([alone], 256, tokenizer)


def test_a_label_too_long_is_refused(tokenizer):
    """One label that exceeds the text length alone is refused, not cut."""
    words = tokenize(["very " * 300], tokenizer)
    with pytest.raises(InvalidInput, match="at most 253 tokens, got 300"):
        build_chunks(words, 256, tokenizer)
