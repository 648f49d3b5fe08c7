"""From form text and JSON to checked values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.errors import InvalidInput
from router.runtime.inputs import InputSpec

SCHEMA = {
    "components": {
        "schemas": {
            "Input": {
                "required": ["image"],
                "properties": {
                    "image": {"x-order": 0, "type": "string", "format": "uri"},
                    "prompt": {"x-order": 1, "type": "string", "maxLength": 5, "nullable": True},
                    "steps": {"x-order": 2, "type": "integer", "minimum": 1, "maximum": 50},
                    "scale": {"x-order": 3, "type": "number", "default": 1.0},
                    "nms": {"x-order": 4, "type": "boolean", "default": False},
                    "format": {"x-order": 5, "allOf": [{"$ref": "#/components/schemas/format"}]},
                    "tags": {"x-order": 6, "type": "array", "items": {"type": "string"}},
                    "sizes": {"x-order": 7, "type": "array", "items": {"type": "integer"}},
                    "more": {
                        "x-order": 8,
                        "type": "array",
                        "items": {"type": "string", "format": "uri"},
                    },
                },
            },
            "format": {"enum": ["png", "webp"], "type": "string", "title": "format"},
        }
    }
}
SPEC = InputSpec(SCHEMA)


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("prompt", [" a cat "], " a cat "),
        ("prompt", [""], ""),
        ("steps", ["7"], 7),
        ("steps", [" -3 "], -3),
        ("steps", [""], None),
        ("scale", ["1e-3"], 0.001),
        ("scale", ["7"], 7.0),
        ("nms", ["TRUE"], True),
        ("nms", ["off"], False),
        ("tags", ["a", "b"], ["a", "b"]),
        ("tags", ['["a, b"]'], ["a, b"]),
        ("sizes", ["1", "2"], [1, 2]),
        ("sizes", ["[1, 2]"], [1, 2]),
    ],
)
def test_form_text_becomes_the_schemas_type(name: str, texts: list[str], value: Any) -> None:
    """Each type in the spellings that a form may use."""
    assert SPEC.from_text(name, texts) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("steps", ["7.5"]),
        ("steps", ["seven"]),
        ("steps", ["1", "2"]),
        ("steps", ["9" * 30]),
        ("scale", ["abc"]),
        ("scale", ["nan"]),
        ("scale", ["inf"]),
        ("nms", ["perhaps"]),
        ("tags", ["[broken"]),
        ("nosuch", ["1"]),
    ],
)
def test_text_that_does_not_fit(name: str, texts: list[str]) -> None:
    """InvalidInput that names the input."""
    with pytest.raises(InvalidInput) as caught:
        SPEC.from_text(name, texts)
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"steps": 0}, "must be at least 1, got 0"),
        ({"steps": 51}, "must be at most 50, got 51"),
        ({"steps": "7"}, "must be of type integer, got '7'"),
        ({"steps": True}, "must be of type integer, got True"),
        ({"prompt": "too long"}, "must have at most 5 characters, got 8"),
        ({"format": "bmp"}, "must be one of ['png', 'webp'], got 'bmp'"),
        ({"steps": None}, "must be of type integer, got None"),
        ({"tags": [1]}, "must be of type string, got 1"),
        ({"nosuch": 1}, "there is no such input"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], problem: str) -> None:
    """The message says what must hold and what came."""
    with pytest.raises(InvalidInput) as caught:
        SPEC.check(values, ["image"])
    assert caught.value.message.endswith(problem)


def test_every_problem_is_listed() -> None:
    """Three mistakes are three problems in the details, the missing file among them."""
    with pytest.raises(InvalidInput) as caught:
        SPEC.check({"steps": 0, "format": "bmp"}, [])
    assert caught.value.details is not None
    assert [p["input"] for p in caught.value.details["problems"]] == ["image", "steps", "format"]


def test_null_means_not_given_where_it_may() -> None:
    """A nullable input's null is left out, since coglet refuses an explicit one."""
    assert SPEC.check({"prompt": None, "steps": 2}, ["image"]) == {"steps": 2}


def test_files_are_known_by_their_format() -> None:
    """One file and a list of files, nothing else."""
    assert [f.name for f in SPEC.fields.values() if f.is_file] == ["image", "more"]


@given(st.sampled_from(sorted(SPEC.fields)), st.lists(st.text(), min_size=1, max_size=3))
def test_no_text_breaks_it(name: str, texts: list[str]) -> None:
    """Any text is converted or refused; nothing else is ever raised."""
    try:
        value = SPEC.from_text(name, texts)
        SPEC.check({} if SPEC.fields[name].is_file else {name: value}, ["image"])
    except InvalidInput:
        pass


def test_a_long_list_is_refused_before_it_is_looked_at() -> None:
    """Millions of items would hold up every other request."""
    with pytest.raises(InvalidInput, match="at most 10000 items"):
        SPEC.check({"tags": [1] * 4_000_000}, ["image"])


@pytest.mark.parametrize("text", ["1_0", "\u0660", "0x10", "1e", "--1", "1 0"])
def test_numbers_are_plain_ascii(text: str) -> None:
    """Python's other spellings of a number are not the API's."""
    for name in ("scale", "steps"):
        with pytest.raises(InvalidInput):
            SPEC.from_text(name, [text])


def test_json_that_is_nested_too_deeply() -> None:
    """Refused, and shown without recursing."""
    with pytest.raises(InvalidInput):
        SPEC.from_text("tags", ["[" * 900 + "]" * 900])
