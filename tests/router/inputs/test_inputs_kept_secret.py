"""A secret input is checked like any other, and quoted nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import InvalidInput
from router.inputs.input_schema import InputSchema
from router.secret_inputs import REDACTED

COG = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}
SCHEMA = {
    "components": {
        "schemas": {
            "Input": {
                "properties": {
                    "token": {"x-order": 0, **COG, "nullable": True},
                    "pin": {"x-order": 1, **COG, "pattern": "^[0-9]{4}$", "maxLength": 4},
                    "more": {"x-order": 2, "type": "array", "items": COG},
                    "steps": {"x-order": 3, "type": "integer"},
                }
            }
        }
    }
}
MARK = "hunter2-hunter2"
JSON = st.recursive(
    st.just(MARK) | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just(MARK), inner),
    max_leaves=6,
)


def spec() -> InputSchema:
    """What the model takes, read again for each test."""
    return InputSchema(SCHEMA)


def said(error: InvalidInput) -> str:
    """All that a caller sees."""
    return error.message + json.dumps(error.details)


@given(st.dictionaries(st.sampled_from(["token", "pin", "more"]), JSON, min_size=1))
def test_nothing_of_it_is_told(values: dict[str, Any]) -> None:
    """Whatever is given in its place: accepted and redacted, or refused without a quotation."""
    try:
        checked = spec().check(values, [])
    except InvalidInput as error:
        assert MARK not in said(error)
        assert MARK not in repr(error)
    else:
        assert MARK not in json.dumps(checked)
        assert checked.secrets == {k: v for k, v in values.items() if v is not None}


@given(st.sampled_from(["token", "pin", "more"]), st.lists(st.text(max_size=20), min_size=1))
def test_nothing_of_a_forms_text_is_told(name: str, texts: list[str]) -> None:
    """Several where one is wanted, JSON that cannot be read."""
    texts = [f"[{MARK}{text}" for text in texts]
    try:
        value = spec().from_text(name, texts)
    except InvalidInput as error:
        assert MARK not in said(error)
        # Nor in what a log would print of it.
        assert error.__suppress_context__ or error.__cause__ is None
    else:
        assert MARK in json.dumps(value)


def test_what_is_right_is_passed_on() -> None:
    """The values for the model, and REDACTED for everybody else."""
    checked = spec().check({"token": "", "pin": "1234", "more": ["a", "b"], "steps": 3}, [])
    assert checked == {"token": REDACTED, "pin": REDACTED, "more": [REDACTED] * 2, "steps": 3}
    assert checked.secrets == {"token": "", "pin": "1234", "more": ["a", "b"]}
    assert spec().check({"token": None}, []) == {}


def test_other_inputs_are_told_as_before() -> None:
    """With the value that was wrong."""
    with pytest.raises(InvalidInput, match="got 'many'"):
        spec().check({"steps": "many"}, [])
