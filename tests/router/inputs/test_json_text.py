"""JSON is measured before it is parsed."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import PayloadTooLarge
from router.inputs.json_text import (
    MAX_DEPTH,
    MAX_TEXT_BYTES,
    MAX_VALUES,
    MAX_WIDE_CHARS,
    load_json,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text() | st.floats(-1e300, 1e300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(VALUES)
def test_what_json_says_arrives(value: Any) -> None:
    """Whole numbers beyond 64 bits stay whole; text is text."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
        assert load_json(text) == value


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(ValueError):
        load_json(data)


@pytest.mark.parametrize("text", ["NaN", "[1,]", "1 2", "", '"\ud800"', "1e999", "'a'", "\x00"])
def test_what_is_no_json(text: str) -> None:
    """A ValueError."""
    with pytest.raises(ValueError):
        load_json(text)


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"[]," * MAX_VALUES + b"1]",
        b"[" + b"{}," * MAX_VALUES + b"1]",
        b"[" + b'"",' * MAX_VALUES + b"1]",
        b"[" + b"1," * (MAX_TEXT_BYTES // 2 - 2) + b"1]",
        b"[" + b'"\\"",' * MAX_VALUES + b"1]",
        b'["' + b"x" * MAX_TEXT_BYTES + b'"]',
    ],
)
def test_too_much_is_refused_unparsed(text: bytes) -> None:
    """A million empty lists would take 80 MB."""
    with pytest.raises(PayloadTooLarge):
        load_json(text)


@pytest.mark.parametrize("make", [str.encode, str], ids=["bytes", "str"])
@pytest.mark.parametrize("item", ["1", '"a,b"', r'"\\"', r'"\","'])
def test_just_as_many_values_as_may_be(make: Callable[[str], str | bytes], item: str) -> None:
    """The list itself is one of them; what is in its texts is none."""
    fits = [item] * (MAX_VALUES - 1)
    assert len(load_json(make(f"[{','.join(fits)}]"))) == MAX_VALUES - 1
    with pytest.raises(PayloadTooLarge, match="over 15000 values"):
        load_json(make(f"[{','.join([*fits, item])}]"))


def test_just_as_long_as_may_be() -> None:
    """To the byte, in UTF-8."""
    for text in ("a" * (MAX_TEXT_BYTES - 2), "ä" * (MAX_TEXT_BYTES // 2 - 1)):
        assert load_json(f'"{text}"') == text
        with pytest.raises(PayloadTooLarge, match=f"exceeds {MAX_TEXT_BYTES} bytes"):
            load_json(f'"{text}a"')


def test_just_as_wide_as_may_be() -> None:
    """A wide character itself counts as one, as its escape or as itself."""
    for wide, length in (("😀", 1), (r"\ud83d\ude00", 12)):
        fits = "a" * (MAX_WIDE_CHARS - length - 2)
        assert len(load_json(f'"{wide}{fits}"')) == len(fits) + 1
        with pytest.raises(PayloadTooLarge, match="emoji"):
            load_json(f'"{wide}{fits}a"')


@pytest.mark.parametrize("inside", ["1,2,", '\\",[{', "\\\\\\\\,["])
def test_what_is_within_a_string_is_no_value(inside: str) -> None:
    """A table in one text has a hundred thousand commas."""
    value = json.loads(f'"{inside}"') * 100_000
    assert load_json(json.dumps(["\\", value, '"'])) == ["\\", value, '"']


@pytest.mark.parametrize("wide", ["😀", "\\ud83d\\ude00"])
def test_a_long_text_with_an_emoji(wide: str) -> None:
    """It would take four bytes for each character; emoji alone, or none, may be as long as any."""
    with pytest.raises(PayloadTooLarge, match="emoji"):
        load_json(f'["{wide}{"a" * MAX_WIDE_CHARS}"]')
    for text in ("😀" * 200_000, "ä" * 500_000, "a" * 1_000_000, "a" * 400_000 + "😀"):
        assert load_json(json.dumps([text], ensure_ascii=False)) == [text]


def test_depth() -> None:
    """As deep as may be, no deeper, and far beyond what Python recurses."""
    fits = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert load_json(fits) is not None
    assert load_json('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH) is not None
    with pytest.raises(ValueError, match="too deeply"):
        load_json('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1))
    assert load_json("[" + "[]," * 1000 + "[]]") == [[]] * 1001
    for depth in (MAX_DEPTH + 1, 900, 5_000, 14_000):
        with pytest.raises(ValueError, match="too deeply"):
            load_json("[" * depth + "]" * depth)


def test_whole_numbers_stay_whole() -> None:
    """orjson reads 2**64 as a float."""
    for number in (2**64, -(2**63) - 1, 10**100):
        assert load_json(str(number)) == number
    assert math.isclose(load_json("1e19"), 1e19)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_just_as_deep_as_may_be(opening: str, closing: str) -> None:
    """Lists and objects count alike; many beside each other are no depth."""

    def nested(depth: int) -> str:
        return f"{opening * depth}1{closing * depth}"

    others = ",".join([nested(1)] * MAX_DEPTH)
    fits, over = (f"[{nested(depth)},{others}]" for depth in (MAX_DEPTH - 1, MAX_DEPTH))
    assert load_json(fits) == json.loads(fits)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_json(over)
