"""A failure says nothing of a prediction's secrets."""

from __future__ import annotations

import orjson

from router.prediction import Failure
from router.predictions.failure_details import scrubbed
from router.secret_inputs import OBJECTION, REDACTED, SecretValues

SECRETS = SecretValues({"pin": "1", "token": "hunter2"})


def test_an_objection_to_a_secret() -> None:
    """Of a model's own server: not quoted, however short the value is; others stay as they are."""
    problems = [
        {"input": "pin", "message": '"1" does not match "^[0-9]{4}$"'},
        {"input": "steps", "message": "1 is less than 5"},
    ]
    failure = Failure("invalid_input", "Cannot use 'pin': '1'", {"problems": problems})
    assert scrubbed(failure, SECRETS) == Failure(
        "invalid_input",
        f"Cannot use 'pin': {OBJECTION}",
        {"problems": [{"input": "pin", "message": OBJECTION}, problems[1]]},
    )


def test_an_exception_that_quotes_one() -> None:
    """In its message and in what the process printed last."""
    failure = Failure("worker_died", "401 for hunter2", {"log_tail": ["calling with hunter2", "1"]})
    clean = scrubbed(failure, SECRETS)
    assert b"hunter2" not in orjson.dumps(clean)
    assert clean.message == f"401 for {REDACTED}"
    assert (clean.details or {})["log_tail"][1] == "1"


def test_others_are_left_alone() -> None:
    """Word for word."""
    for details in (None, {"problems": [{"input": "steps", "message": "too many"}]}, {"n": 1}):
        failure = Failure("invalid_input", "Cannot use 'steps': too many", details)
        assert scrubbed(failure, SECRETS) == failure
