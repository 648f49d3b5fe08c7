"""From form text and JSON to checked values."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidInput
from router.inputs.input_schema import InputSchema

SCHEMA: dict[str, Any] = {
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
                    "seed": {"x-order": 9, "type": "integer"},
                    "settings": {"x-order": 10, "type": "object"},
                    "either": {"x-order": 11, "anyOf": [{"type": "string"}, {"type": "number"}]},
                    "pick": {
                        "x-order": 12,
                        "anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "boolean"}],
                    },
                    "some": {
                        "x-order": 13,
                        "nullable": True,
                        "anyOf": [
                            {"type": "integer"},
                            {"type": "boolean"},
                            {"type": "string"},
                            {"type": "array", "items": {"type": "string"}},
                        ],
                    },
                    "word": {"x-order": 14, "type": "string", "pattern": "^(\\w+\\s?)*$"},
                    "twice": {"x-order": 15, "type": "string", "pattern": "^((a+)+)\\1$"},
                    "anything": {"x-order": 16},
                },
            },
            "format": {"enum": ["png", "webp"], "type": "string", "title": "format"},
        }
    }
}
PROPERTIES = SCHEMA["components"]["schemas"]["Input"]["properties"]


def spec() -> InputSchema:
    """What the model takes, read again for each test."""
    return InputSchema(SCHEMA)


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("prompt", [" a cat "], " a cat "),
        ("prompt", [""], ""),
        ("steps", ["7"], 7),
        ("steps", [" -3 "], -3),
        ("steps", [""], None),
        ("steps", ["9223372036854775807"], 2**63 - 1),
        ("steps", [f"{'0' * 500}7"], 7),
        ("steps", ["9" * 30], 10**30 - 1),
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
    assert spec().from_text(name, texts) == value


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("steps", ["7.5"]),
        ("steps", ["seven"]),
        ("steps", ["1", "2"]),
        ("steps", ["9" * 5000]),
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
        spec().from_text(name, texts)
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
        ({"nosuch": 1}, f"there is no such input; there are: {', '.join(PROPERTIES)}"),
        ({"steps": 10**30}, "must be at most 50, got 1000000000000000000000000000000"),
        ({"seed": 2**64}, f"must be from {-(2**63)} to {2**64 - 1}, got {2**64}"),
        ({"seed": -(2**63) - 1}, f"must be from {-(2**63)} to {2**64 - 1}, got {-(2**63) - 1}"),
        ({"seed": 1e19}, "must be written without a point or an exponent, got 1e+19"),
        ({"seed": 2.5}, "must be of type integer, got 2.5"),
        ({"sizes": [1, 2**64]}, f"must be from {-(2**63)} to {2**64 - 1}, got {2**64}"),
        ({"settings": {"a": [2**64]}}, f"must be from {-(2**63)} to {2**64 - 1}, got {2**64}"),
        ({"pick": "many"}, "must be of type integer or number or boolean, got 'many'"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], problem: str) -> None:
    """The message says what must hold and what came."""
    with pytest.raises(InvalidInput) as caught:
        spec().check(values, ["image"])
    assert caught.value.message.endswith(problem)


def test_names_of_inputs_are_listed_once_and_not_all() -> None:
    """Thousands of names that are no inputs do not make an answer of megabytes."""
    inputs = {f"input_{n}": {"type": "string", "title": f"{n}"} for n in range(200)}

    def takes(properties: dict[str, Any]) -> InputSchema:
        return InputSchema({"components": {"schemas": {"Input": {"properties": properties}}}})

    with pytest.raises(InvalidInput) as caught:
        takes(inputs).check({f"no_{n}": 1 for n in range(1000)}, [])
    problems = (caught.value.details or {})["problems"]
    assert problems[0]["message"].endswith("input_18, input_19 and 180 more")
    assert {p["message"] for p in problems[1:]} == {"there is no such input"}
    assert len(problems) == 1000
    with pytest.raises(InvalidInput, match="the model takes none"):
        takes({}).check({"a": 1}, [])


def test_every_problem_is_listed() -> None:
    """Three mistakes are three problems in the details, the missing file among them."""
    with pytest.raises(InvalidInput) as caught:
        spec().check({"steps": 0, "format": "bmp"}, [])
    assert caught.value.details is not None
    assert [p["input"] for p in caught.value.details["problems"]] == ["image", "steps", "format"]


def test_null_means_not_given_where_it_may() -> None:
    """A nullable input's null is left out, since coglet refuses an explicit one."""
    assert spec().check({"prompt": None, "steps": 2}, ["image"]) == {"steps": 2}


def test_files_are_known_by_their_format() -> None:
    """One file and a list of files, nothing else."""
    assert [f.name for f in spec().fields.values() if f.is_file] == ["image", "more"]


@pytest.mark.slow
@given(st.sampled_from(sorted(PROPERTIES)), st.lists(st.text(), min_size=1, max_size=3))
def test_no_text_breaks_it(name: str, texts: list[str]) -> None:
    """Any text is converted or refused; nothing else is ever raised."""
    try:
        value = spec().from_text(name, texts)
        spec().check({} if spec().fields[name].is_file else {name: value}, ["image"])
    except InvalidInput:
        pass


def test_a_long_list_is_refused_before_it_is_looked_at() -> None:
    """Millions of items would hold up every other request."""
    with pytest.raises(InvalidInput, match="at most 10000 items"):
        spec().check({"tags": [1] * 4_000_000}, ["image"])


@pytest.mark.parametrize("text", ["1_0", "\u0660", "0x10", "1e", "--1", "1 0"])
def test_numbers_are_plain_ascii(text: str) -> None:
    """Python's other spellings of a number are not the API's."""
    for name in ("scale", "steps"):
        with pytest.raises(InvalidInput):
            spec().from_text(name, [text])


def test_json_that_is_nested_too_deeply() -> None:
    """Refused, and shown without recursing."""
    with pytest.raises(InvalidInput):
        spec().from_text("tags", ["[" * 900 + "]" * 900])


@pytest.mark.parametrize(
    ("name", "texts", "value"),
    [
        ("either", ["0.5"], 0.5),
        ("either", ["half"], "half"),
        ("either", [""], ""),
        ("either", ["1e999"], "1e999"),
        ("pick", ["7"], 7),
        ("pick", ["7.5"], 7.5),
        ("pick", ["true"], True),
        ("pick", [" "], None),
        ("some", ["7"], 7),
        ("some", ["on"], "on"),
        ("some", ["false"], False),
        ("some", ["a", "b"], ["a", "b"]),
        ("some", ['["a"]'], ["a"]),
        ("some", ["[a"], "[a"),
        ("anything", ["7"], 7),
        ("anything", ['{"a": 1}'], {"a": 1}),
        ("anything", ["word"], "word"),
    ],
)
def test_form_text_of_an_input_that_takes_several_types(
    name: str, texts: list[str], value: Any
) -> None:
    """The first type that the text is; if it is none, the text itself."""
    found = spec().from_text(name, texts)
    assert (type(found), found) == (type(value), value)


def test_no_type_of_several_fits() -> None:
    """The message says which would have."""
    with pytest.raises(InvalidInput, match="must be of type boolean or integer or number, got 'x'"):
        spec().from_text("pick", ["x"])
    with pytest.raises(InvalidInput):
        spec().from_text("pick", ["1", "2"])


@pytest.mark.parametrize(
    ("name", "given", "passed_on"),
    [
        ("seed", 2.0, 2),
        ("seed", -0.0, 0),
        ("seed", float(2**53), 2**53),
        ("seed", 2**64 - 1, 2**64 - 1),
        ("seed", -(2**63), -(2**63)),
        ("sizes", [1.0, 2, 3.0], [1, 2, 3]),
        ("some", 2.0, 2),
        ("scale", 2.0, 2.0),
        ("scale", 2, 2),
        ("scale", 2**64, 2.0**64),
        ("pick", 2.0, 2.0),
        ("settings", {"a": 2.0}, {"a": 2.0}),
    ],
)
def test_whole_numbers_are_ints(name: str, given: Any, passed_on: Any) -> None:
    """An input that takes no fractions never gets a float; one that takes them may."""
    checked = spec().check({name: given}, ["image"])
    assert repr(checked) == repr({name: passed_on})


def test_a_long_text_that_fits_no_number() -> None:
    """A million digits and a letter are refused at once, not tried in every division."""
    for name in ("scale", "steps", "either"):
        text = "1" * 500_000 + "x"
        began = time.perf_counter()
        with contextlib.suppress(InvalidInput):
            assert spec().from_text(name, [text]) == text
        assert time.perf_counter() - began < 1


@pytest.mark.parametrize("name", ["word", "twice"])
def test_a_package_s_pattern_takes_its_time_once(name: str) -> None:
    """A pattern that backtracks is not tried for hours: the event loop would stand still."""
    began = time.perf_counter()
    with pytest.raises(InvalidInput):
        spec().check({name: f"{'a' * 200_001}!"}, ["image"])
    assert time.perf_counter() - began < 1


def test_ten_thousand_items_are_checked_quickly() -> None:
    """The last of them is wrong."""
    began = time.perf_counter()
    with pytest.raises(InvalidInput, match="must be of type string, got 1"):
        spec().check({"tags": ["word"] * 9_999 + [1]}, ["image"])
    assert time.perf_counter() - began < 0.1


def test_a_long_value_is_not_shown_whole() -> None:
    """Its repr alone takes four times its memory."""
    value = "\x00" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            spec().check({"steps": value, "format": value}, ["image"])
        assert tracemalloc.get_traced_memory()[1] < 2 * len(value)
    finally:
        tracemalloc.stop()
    assert len(str(caught.value.details)) < 500


def test_a_long_name_is_not_shown_whole() -> None:
    """Of an input that there is not."""
    with pytest.raises(InvalidInput) as caught:
        spec().check({"x" * 100_000: 1}, ["image"])
    assert len(str(caught.value.details)) < 500
    with pytest.raises(InvalidInput) as caught:
        spec().from_text("x" * 100_000, ["1"])
    assert len(str(caught.value.details)) < 500
