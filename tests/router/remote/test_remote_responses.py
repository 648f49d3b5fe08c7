"""What is read from the answers of Cog, Replicate and proxies on the way."""

from __future__ import annotations

from typing import Any

import pytest

from router.prediction import Failure, Status
from router.remote.http import RemoteResponse
from router.remote.responses import TROUBLE, of_answer, of_prediction, of_status


def failure_of(status: int, answer: dict[str, Any]) -> Failure:
    """The failure behind an HTTP status."""
    failure = of_status(status, answer).failure
    assert failure is not None
    return failure


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503, 504])
def test_retry_after_is_kept(status: int) -> None:
    """Whatever the back-end's trouble is: its caller is the one who must wait."""
    failure = of_answer(RemoteResponse(status, {"Retry-After": "7"}, b"{}")).failure
    assert failure is not None
    assert failure.retry_after_s == 7
    silent = of_answer(RemoteResponse(status, {}, b"{}")).failure
    assert silent is not None
    assert silent.retry_after_s is None


def test_an_objection_is_not_to_be_repeated() -> None:
    """A wrong input is not right later."""
    failure = of_answer(RemoteResponse(422, {"Retry-After": "7"}, b"{}")).failure
    assert failure is not None
    assert failure.retry_after_s is None


def test_cogs_objections() -> None:
    """Every input that it names, as the router's own check names them."""
    detail = [
        {"loc": ["body", "input", "a"], "msg": "is too small", "type": "value_error"},
        {"loc": ["body", "input", "b"], "msg": "is missing", "type": "value_error"},
    ]
    failure = failure_of(422, {"detail": detail})
    assert failure.code == "invalid_input"
    assert failure.message == "Cannot use 'a': is too small"
    assert failure.details == {
        "problems": [
            {"input": "a", "message": "is too small"},
            {"input": "b", "message": "is missing"},
        ]
    }


def test_replicates_objections() -> None:
    """Its fields are named with a prefix; without fields its sentence is all there is."""
    fields = [{"type": "invalid", "field": "input.steps", "description": "Must be at most 50"}]
    body = {"title": "Input validation failed", "detail": "- input.steps: …", "status": 422}
    failure = failure_of(422, {**body, "invalid_fields": fields})
    assert failure.message == "Cannot use 'steps': Must be at most 50"
    bare = failure_of(422, {"detail": "Invalid version or not permitted"})
    assert (bare.code, bare.message) == ("invalid_input", "Invalid version or not permitted")


@pytest.mark.parametrize("answer", [{}, {"detail": []}, {"detail": [3]}, {"invalid_fields": "x"}])
def test_objections_to_nothing(answer: dict[str, Any]) -> None:
    """Still a 422 with a sentence."""
    failure = failure_of(422, answer)
    assert failure.code == "invalid_input"
    assert failure.message


@pytest.mark.parametrize("status", [401, 402, 403, 404, 409, 429, 500, 501, 502, 503, 504, 530])
def test_everything_else_is_the_back_ends_trouble(status: int) -> None:
    """And counts for the breaker; no path of that machine is passed on."""
    failure = failure_of(status, {"error": {"message": "no such file: /srv/secret/x.py"}})
    assert failure.code in TROUBLE
    assert "/srv" not in failure.message


@pytest.mark.parametrize("logs", ["", "line\n", None])
def test_a_prediction_that_runs_has_no_outcome_yet(logs: str | None) -> None:
    """Cog's and Replicate's two words for it."""
    for status in ("starting", "processing"):
        assert of_prediction({"status": status, "logs": logs}) is None


def test_a_prediction_that_ended() -> None:
    """Each of the words for it, with what the model's server measured."""
    done = of_prediction(
        {"status": "succeeded", "output": 0, "logs": "x", "metrics": {"predict_time": 1}}
    )
    assert done is not None
    assert (done.status, done.output, done.logs, done.predict_time_s) == (
        Status.SUCCEEDED,
        0,
        "x",
        1.0,
    )
    for word in ("canceled", "aborted"):
        ended = of_prediction({"status": word})
        assert ended is not None
        assert ended.status is Status.CANCELED
    refused = of_prediction({"status": "failed", "error": "InvalidInput: no face in it"})
    assert refused is not None
    assert refused.failure == Failure("invalid_input", "no face in it")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_input", "invalid_input"),
        ("prediction_failed", "prediction_failed"),
        ("deadline_exceeded", "deadline_exceeded"),
        ("worker_died", "backend_failed"),
        ("shutting_down", "backend_failed"),
        ("no code of ours", "backend_failed"),
    ],
)
def test_the_codes_of_another_box(code: str, expected: str) -> None:
    """Its message is told once, not wrapped again; a worker that died there is none of ours."""
    ended = of_prediction({"status": "failed", "error": "The model failed: x", "error_code": code})
    assert ended is not None
    assert ended.failure == Failure(expected, "The model failed: x")


@pytest.mark.parametrize("p", [{}, {"status": None}, {"status": "succeded"}, {"status": []}])
def test_what_is_no_prediction(p: dict[str, Any]) -> None:
    """Is the back-end's trouble, never taken for a success."""
    outcome = of_prediction(p)
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.code == "backend_failed"


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled", "aborted"])
def test_the_models_own_metrics(status: str) -> None:
    """However it ended; what are no metrics is nothing."""
    metrics = {"predict_time": 2, "total_time": 3, "tokens": 3}
    outcome = of_prediction({"status": status, "error": "x", "metrics": metrics})
    assert outcome is not None
    assert outcome.metrics == {"total_time": 3, "tokens": 3}
    outcome = of_prediction({"status": status, "error": "x", "metrics": [1]})
    assert outcome is not None
    assert outcome.metrics == {}
