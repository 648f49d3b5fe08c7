"""Which inputs are secret, and what is shown in their place."""

from __future__ import annotations

from typing import Any

import pytest

from router.prediction import Job, Outcome, Prediction, Status, advance, conclude
from router.secret_inputs import (
    NO_SECRETS,
    REDACTED,
    SecretValues,
    is_lost,
    is_secret,
    opened,
    split,
    with_context,
    without_secrets,
)

COG = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}


@pytest.mark.parametrize(
    ("schema", "secret"),
    [
        (COG, True),
        ({"type": "string", "x-cog-secret": True}, True),
        ({"type": "string", "writeOnly": True}, True),
        ({"type": "string", "format": "password"}, True),
        ({"type": "array", "items": COG}, True),
        ({"anyOf": [{"type": "null"}, COG]}, True),
        ({"type": "object", "properties": {"key": COG}}, True),
        ({"type": "string", "format": "uri"}, False),
        ({"type": "string", "x-cog-secret": False, "writeOnly": False}, False),
        ({}, False),
    ],
)
def test_what_is_secret(schema: dict[str, Any], secret: bool) -> None:
    """As Cog marks it, or OpenAPI; in a list, a union or an object too."""
    assert is_secret(schema) is secret


def test_values_are_split() -> None:
    """Redacted in their place, a list item by item; what was not given is not there."""
    given = {"token": "abc", "more": ["a", ["b"]], "odd": {"k": "v"}, "none": None, "n": 1}
    checked = split(given, ["token", "more", "odd", "none", "absent"])
    assert checked == {
        "token": REDACTED,
        "more": [REDACTED, [REDACTED]],
        "odd": REDACTED,
        "none": None,
        "n": 1,
    }
    assert checked.secrets == {k: given[k] for k in ("token", "more", "odd")}
    assert split(given, []).secrets == {}


def test_no_text_of_a_prediction_has_them() -> None:
    """Neither its repr, which stands in logs and tracebacks, nor a job's; after its end they are
    nowhere in it."""
    checked = split({"token": "hunter2hunter2"}, ["token"])
    p = Prediction("a", "m", checked, 1.0, secrets=checked.secrets)
    job = Job("a", {"token": "hunter2hunter2"}, context={"key": "hunter2hunter2"})
    assert "hunter2" not in repr(p) + repr(job) + str(p.secrets)
    assert "token" in repr(p.secrets)
    running = advance(p, Status.PROCESSING, 2.0)
    assert running.secrets == {"token": "hunter2hunter2"}
    assert conclude(running, Outcome(Status.SUCCEEDED), 3.0).secrets == {}
    assert advance(p, Status.CANCELED, 2.0).secrets == {}


def test_what_quotes_them_is_scrubbed() -> None:
    """In texts at any depth, the longer of two first; a very short one would garble the rest."""
    secrets = SecretValues({"token": "abcd", "more": ["abcdef", "x"], "odd": {"k": "efgh"}})
    said = {"message": "got abcdef and abcd", "tail": ["x efgh", 5], "none": None}
    assert without_secrets(said, secrets) == {
        "message": f"got {REDACTED} and {REDACTED}",
        "tail": [f"x {REDACTED}", 5],
        "none": None,
    }


def test_lost_values() -> None:
    """One that is missing is enough."""
    assert is_lost(SecretValues({"a": "x", "b": None}))
    assert not is_lost(SecretValues({"a": ""}))
    assert not is_lost(SecretValues())


def test_the_context_is_kept_with_them() -> None:
    """Handed to the model apart from its inputs; its values are not cut out of other words."""
    inputs = split({"token": "hunter22", "x": 1}, ["token"])
    secrets = with_context(inputs.secrets, {"region": "prod"})
    assert "prod" not in repr(secrets)
    shown, context = opened(inputs, secrets)
    assert (shown, context) == ({"token": "hunter22", "x": 1}, {"region": "prod"})
    assert (
        without_secrets("production refused hunter22", secrets) == f"production refused {REDACTED}"
    )
    assert with_context(NO_SECRETS, {}) is NO_SECRETS
    assert opened({"x": 1}, NO_SECRETS) == ({"x": 1}, {})
    assert is_lost(SecretValues(dict.fromkeys(secrets)))
