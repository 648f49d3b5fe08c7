"""How `text_queries` becomes labels."""

import json
import unicodedata

import pytest
from errors import InvalidInput
from hypothesis import given
from hypothesis import strategies as st
from labels import MAX_LABELS, parse_labels


def labels(text, default="person"):
    return [label.name for label in parse_labels(text, default)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red circle, blue square", ["red circle", "blue square"]),
        ("cat\ndog\r\nbird", ["cat", "dog", "bird"]),
        ("a . b .", ["a", "b"]),
        ("cat. dog.", ["cat", "dog"]),
        ("cat.dog", ["cat", "dog"]),
        ("cat", ["cat"]),
        ("1.5 litre bottle, v2. cup", ["1.5 litre bottle", "v2", "cup"]),
        ('["St. Bernard", "a, b"]', ["St. Bernard", "a, b"]),
        ("Cat, cat , CAT.  cat", ["Cat"]),
        ("car, scar", ["car", "scar"]),
        ("猫、犬，кошка；кот。bird", ["猫", "犬", "кошка", "кот", "bird"]),
        ("cat; dog | bird", ["cat", "dog", "bird"]),
        ("قطة، كلب؛ طائر", ["قطة", "كلب", "طائر"]),
        ("कुत्ता। बिल्ली", ["कुत्ता", "बिल्ली"]),
        ("- cat\n* dog\n• bird\n– fox\n+ cow", ["cat", "dog", "bird", "fox", "cow"]),
        ("- [ ] cat\n- [x] dog", ["cat", "dog"]),
        ("• cat • dog", ["cat", "dog"]),
        ("cat · dog / bird", ["cat", "dog", "bird"]),
        ("1. cat\n2. dog\n10. bird", ["cat", "dog", "bird"]),
        ("1. cat 2. dog 3. bird", ["cat", "dog", "bird"]),
        ("1) cat, 2) dog", ["cat", "dog"]),
        ("(1) cat (2) dog", ["cat", "dog"]),
        ("① 猫\n② 犬\n3、鸟", ["猫", "犬", "鸟"]),
        ("a) cat\nb) dog", ["cat", "dog"]),
        ("cat, /, -, dog, !", ["cat", "dog"]),
        ("7 up can, 3 cats", ["7 up can", "3 cats"]),
        ("tv/monitor, red-circle", ["tv/monitor", "red-circle"]),
        (" , cat ,, ", ["cat"]),
        ("traffic  \t light", ["traffic light"]),
    ],
)
def test_one_rule_reads_every_form(text, expected):
    """Commas, lines, GroundingDINO's periods and JSON lists give the labels as written."""
    assert labels(text) == expected


def test_blank_means_the_default():
    """A form field left empty searches for the default list."""
    assert labels(" \n", "dog, cat") == ["dog", "cat"]


@pytest.mark.parametrize(
    "text", [", ,", "...", "?", "[]", '["", "?"]', "[1, 2]", "[cat]", '["a"', "[" * 5000]
)
def test_no_labels_is_the_callers_mistake(text):
    """Nothing to search for, or JSON that is no list of strings, is refused."""
    with pytest.raises(InvalidInput, match="text_queries"):
        parse_labels(text, "person")


def test_too_many_labels_are_refused():
    """The limit is on labels after repetitions are dropped."""
    many = [f"thing {n}" for n in range(MAX_LABELS)]
    assert len(parse_labels(",".join(many + many), "")) == MAX_LABELS
    with pytest.raises(InvalidInput, match="at most"):
        parse_labels(",".join([*many, "one more"]), "")


@given(st.text(max_size=200))
def test_any_text_is_labels_or_a_clear_refusal(text):
    """No text crashes the parser; labels are trimmed, distinct, and free of end marks."""
    try:
        found = parse_labels(text, "person")
    except InvalidInput:
        return
    texts = [label.text for label in found]
    assert found
    assert len(set(texts)) == len(texts)
    for label in found:
        assert label.text == label.text.strip()
        assert not set(label.text) & set(".?[]")


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12), min_size=1))
def test_json_lists_keep_their_labels(items):
    """A JSON list of words comes back in order, repetitions aside."""
    expected = {unicodedata.normalize("NFKC", item).lower() for item in items}
    got = [label.text for label in parse_labels(json.dumps(items), "")]
    assert sorted(got) == sorted({" ".join(text.split()) for text in expected})
