"""Form text to the type that a schema declares."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import InvalidInput
from router.inputs.form_text import MAX_NUMBER_CHARS, SHOWN_CHARS, Kind, from_texts, shown

DIGITS = "9" * MAX_NUMBER_CHARS
ANY_KIND = tuple(map(Kind, ("string", "object", "array", "boolean", "number", "integer")))


def of(kind: str, *texts: str, items: str | None = None) -> Any:
    """The value of an input of that type."""
    return from_texts("x", (Kind(kind, items),), list(texts))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", " a ", " a "),
        ("string", "", ""),
        ("integer", " +7 ", 7),
        ("integer", "-0012", -12),
        ("integer", DIGITS, int(DIGITS)),
        ("integer", "  ", None),
        ("number", "1e3", 1000.0),
        ("number", "-.5", -0.5),
        ("number", "5.", 5.0),
        ("number", "0" * (MAX_NUMBER_CHARS - 1) + "1", 1.0),
        ("number", "", None),
        ("boolean", " ON ", True),
        ("boolean", "yes", True),
        ("boolean", "1", True),
        ("boolean", "true", True),
        ("boolean", "off", False),
        ("boolean", "no", False),
        ("boolean", "0", False),
        ("boolean", "False", False),
        ("boolean", " ", None),
        ("object", '{"a": [1]}', {"a": [1]}),
        ("object", " ", None),
    ],
)
def test_one_type(kind: str, text: str, value: object) -> None:
    """Blank is "not given", but for text."""
    made = of(kind, text)
    assert (type(made), made) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("integer", "7.0", "must be a whole number, got '7.0'"),
        ("integer", "١", "must be a whole number, got '١'"),
        ("number", "1,5", "must be a number, got '1,5'"),
        ("number", "1e999", "must be a number, got '1e999'"),
        ("number", "nan", "must be a number, got 'nan'"),
        ("boolean", "maybe", "must be true or false, got 'maybe'"),
        ("object", "{", "must be JSON, got '{'"),
    ],
)
def test_what_does_not_fit(kind: str, text: str, message: str) -> None:
    """In words, with what was given."""
    with pytest.raises(InvalidInput) as refused:
        of(kind, text)
    assert refused.value.message == f"Cannot use 'x': {message}"
    assert refused.value.details == {"problems": [{"input": "x", "message": message}]}


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_a_number_that_is_too_long(kind: str) -> None:
    """Python itself would refuse it, in other words."""
    with pytest.raises(InvalidInput, match="number, got '9999"):
        of(kind, DIGITS + "9")


def test_a_message_is_short() -> None:
    """However long the value is."""
    assert shown("é") == "'é'"
    assert len(shown("x" * 1_000_000)) <= SHOWN_CHARS + 1
    assert len(shown({"a": ["x" * 1_000_000]})) <= SHOWN_CHARS + 1


def test_lists() -> None:
    """Repeated parts, or one JSON array; blank parts are no items."""
    assert of("array", "a", "", "b", items="string") == ["a", "b"]
    assert of("array", "1", "2", items="integer") == [1, 2]
    assert of("array", ' [1, "a"]', items="string") == [1, "a"]
    assert of("array", "[a", "b]", items=None) == ["[a", "b]"]
    with pytest.raises(InvalidInput, match="must be given once, got 2"):
        of("string", "a", "b")


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (["7"], 7),
        (["7.5"], 7.5),
        (["true"], True),
        (["yes"], "yes"),
        (["on"], "on"),
        ([" [1]"], [1]),
        (["1", "2"], ["1", "2"]),
        (['{"a": 1}'], {"a": 1}),
        (["{a}"], "{a}"),
        (['"a"'], '"a"'),
        ([" "], " "),
    ],
)
def test_any_type(texts: list[str], value: object) -> None:
    """The first that the text is, from the strictest; a text that is none of them is a text."""
    made = from_texts("x", ANY_KIND, texts)
    assert (type(made), made) == (type(value), value)


@pytest.mark.parametrize(
    ("kinds", "texts", "value"),
    [
        (("number", "string"), ["7"], 7),
        (("boolean", "integer"), ["1"], 1),
        (("boolean", "number"), [" "], None),
        (("array", "integer"), ["3"], 3),
    ],
)
def test_some_types(kinds: tuple[str, ...], texts: list[str], value: object) -> None:
    """A number without a point is a whole one, as `cog run` has it; 1 is no boolean."""
    made = from_texts("x", tuple(map(Kind, kinds)), texts)
    assert (type(made), made) == (type(value), value)


@pytest.mark.parametrize("text", ["maybe", "[1]", '"{}"'])
def test_none_of_them(text: str) -> None:
    """Which there were, and what was given."""
    kinds = (Kind("object"), Kind("boolean"), Kind("integer"))
    with pytest.raises(InvalidInput) as refused:
        from_texts("x", kinds, [text])
    wanted = "must be of type boolean or integer or object"
    assert refused.value.message == f"Cannot use 'x': {wanted}, got {text!r}"


def test_items_of_a_list_among_several_types() -> None:
    """They are converted as the list's are."""
    assert from_texts("x", (Kind("array", "integer"), Kind("string")), ["1", "2"]) == [1, 2]
