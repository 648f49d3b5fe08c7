"""The ways in which a schema may say what an input takes."""

from __future__ import annotations

from typing import Any

import pytest

from router.errors import InvalidInput
from router.inputs.input_schema import InputSchema


def of(components: dict[str, Any] | None = None, **properties: dict[str, Any]) -> InputSchema:
    """A model with these inputs."""
    schemas = {**(components or {}), "Input": {"properties": properties}}
    return InputSchema({"components": {"schemas": schemas}})


def kinds(schema: InputSchema, name: str) -> list[tuple[str, str | None]]:
    """The types that an input takes, and those of its items."""
    return [(k.name, k.items) for k in schema.field(name).kinds]


def message_of(schema: InputSchema, **values: object) -> str:
    """What is wrong with these values."""
    with pytest.raises(InvalidInput) as refused:
        schema.check(values, ())
    return refused.value.message


@pytest.mark.parametrize(
    ("prop", "expected"),
    [
        ({"type": "string"}, [("string", None)]),
        ({"type": "string", "format": "uri"}, [("file", None)]),
        ({"type": "array", "items": {"type": "integer"}}, [("array", "integer")]),
        ({"type": "array", "items": {"type": "string", "format": "uri"}}, [("array", "file")]),
        ({"type": "array"}, [("array", None)]),
        ({"type": ["integer", "null", "string"]}, [("integer", None), ("string", None)]),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, [("number", None)]),
        (
            {"oneOf": [{"type": "boolean"}, {"type": "integer"}]},
            [("boolean", None), ("integer", None)],
        ),
    ],
)
def test_types(prop: dict[str, Any], expected: list[tuple[str, str | None]]) -> None:
    """One, several, or one of several."""
    assert kinds(of(x=prop), "x") == expected


@pytest.mark.parametrize("prop", [{}, {"anyOf": [{"type": "null"}]}])
def test_whatever_it_is(prop: dict[str, Any]) -> None:
    """An input that says nothing takes any value, an object as well as a text."""
    schema = of(x=prop)
    assert len(schema.field("x").kinds) > 1
    if not prop:
        assert dict(schema.check({"x": {"a": [1]}}, ())) == {"x": {"a": [1]}}


def test_references() -> None:
    """To an enum, as cog writes one; of a list's items too. What stands beside it counts."""
    size = {"type": "string", "enum": ["small", "large"], "description": "A size"}
    schema = of(
        {"size": size},
        one={"allOf": [{"$ref": "#/components/schemas/size"}], "description": "Mine"},
        many={"type": "array", "items": {"$ref": "#/components/schemas/size"}},
    )
    assert schema.field("one").schema["description"] == "Mine"
    assert "$ref" not in schema.field("one").schema
    assert kinds(schema, "many") == [("array", "string")]
    assert dict(schema.check({"one": "small", "many": ["large"]}, ())) == {
        "one": "small",
        "many": ["large"],
    }
    wanted = "must be one of ['small', 'large'], got 'huge'"
    assert message_of(schema, one="huge") == f"Cannot use 'one': {wanted}"
    assert message_of(schema, many=["small", "huge"]) == f"Cannot use 'many': {wanted}"


def test_order() -> None:
    """As the runner's; inputs without a place come first."""
    schema = of(c={"x-order": 2}, a={"x-order": 1}, first={})
    assert list(schema.fields) == ["first", "a", "c"]
    with pytest.raises(InvalidInput) as refused:
        schema.field("b")
    assert refused.value.message == "Cannot use 'b': there is no such input; there are: first, a, c"


def test_no_inputs() -> None:
    """A model may take nothing."""
    schema = InputSchema({"components": {"schemas": {"Input": {}}}})
    assert (schema.fields, dict(schema.check({}, ()))) == ({}, {})


@pytest.mark.parametrize(
    ("prop", "value", "message"),
    [
        ({"type": "integer", "minimum": 1}, 0, "must be at least 1, got 0"),
        ({"type": "integer", "maximum": 3}, 4, "must be at most 3, got 4"),
        ({"type": "string", "minLength": 2}, "a", "must have at least 2 characters, got 1"),
        ({"type": "string", "maxLength": 2}, "abc", "must have at most 2 characters, got 3"),
        ({"type": "string", "pattern": "^a"}, "b", "must match ^a, got 'b'"),
        ({"type": "boolean"}, 1, "must be of type boolean, got 1"),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            [],
            "must be of type integer or string, got []",
        ),
        ({"anyOf": [{"enum": [1]}, {"enum": [2]}]}, 3, "must be of type another kind, got 3"),
        (
            {"type": "array", "items": {"type": "integer"}},
            [1, "x"],
            "must be of type integer, got 'x'",
        ),
    ],
)
def test_messages(prop: dict[str, Any], value: object, message: str) -> None:
    """What was wanted and what was given."""
    assert message_of(of(x=prop), x=value) == f"Cannot use 'x': {message}"


def test_messages_about_what_is_not_there() -> None:
    """One that must be given; one that is none."""
    schema = InputSchema(
        {"components": {"schemas": {"Input": {"required": ["x"], "properties": {"x": {}}}}}}
    )
    assert message_of(schema) == "Cannot use 'x': is required"
    assert message_of(schema, x=1, y=2) == "Cannot use 'y': there is no such input; there are: x"


def test_a_rule_of_another_kind() -> None:
    """In the library's words, without the value, which may be long."""
    schema = of(x={"type": "integer", "multipleOf": 5})
    assert message_of(schema, x=7) == "Cannot use 'x': the value is not a multiple of 5"


def test_a_pattern_that_only_the_model_can_read(caplog: pytest.LogCaptureFixture) -> None:
    """Python's own: it is left to the model, with a line in the log, and all else is checked."""
    schema = of(odd={"type": "string", "pattern": "(?P<a>x)(?(a)y|z)", "maxLength": 3})
    (line,) = caplog.records
    assert line.message == "cannot read an input's pattern; only the model checks it"
    assert vars(line)["input"] == "odd"
    assert dict(schema.check({"odd": "no"}, ())) == {"odd": "no"}
    assert (
        message_of(schema, odd="long") == "Cannot use 'odd': must have at most 3 characters, got 4"
    )
