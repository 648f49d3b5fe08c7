"""What coglet says, understood."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import without_paths
from router.models.coglet_responses import read_log_line, read_outcome
from router.models.process_interface import NotStartedError
from router.prediction import Status


def test_success() -> None:
    """Output, logs and predict time are taken over."""
    answer = {
        "status": "succeeded",
        "output": {"a": 1},
        "logs": "x",
        "metrics": {"predict_time": 2},
    }
    o = read_outcome(200, orjson.dumps(answer))
    assert (o.status, o.output, o.logs, o.predict_time_s) == (Status.SUCCEEDED, {"a": 1}, "x", 2)
    assert o.failure is None


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            "Prediction failed: Prediction failed: InvalidInput: Cannot read 'image'",
            "invalid_input",
            "Cannot read 'image'",
        ),
        (
            "Prediction failed: Async prediction failed: InvalidInput: Cannot read 'image'",
            "invalid_input",
            "Cannot read 'image'",
        ),
        (
            "Prediction failed: Generator iteration error: InvalidInput: Cannot say 'text'",
            "invalid_input",
            "Cannot say 'text'",
        ),
        (
            "Failed to create output dir: No space left on device (os error 28)",
            "insufficient_storage",
            "The prediction's files cannot be written: the disk may be full",
        ),
        (
            "Prediction failed: ValueError: boom",
            "prediction_failed",
            "The model failed: ValueError: boom",
        ),
        (
            "Prediction failed: OSError: cannot open /srv/models/secret/file.bin",
            "prediction_failed",
            "The model failed: OSError: cannot open file.bin",
        ),
        ("Worker crashed", "worker_died", "The model's process ended while it worked on this"),
        ("NotInvalidInput: x", "prediction_failed", "The model failed: NotInvalidInput: x"),
    ],
)
def test_failures(error: str, code: str, message: str) -> None:
    """Only an exception called InvalidInput is the caller's fault."""
    o = read_outcome(200, orjson.dumps({"status": "failed", "error": error, "logs": ""}))
    assert o.status is Status.FAILED
    assert o.failure is not None
    assert (o.failure.code, o.failure.message) == (code, message)


def test_never_handed_over() -> None:
    """coglet found its worker dead before it sent the prediction: it is safe to run again."""
    error = "Prediction failed: Failed to send request: Failed to send on slot socket: Broken pipe"
    with pytest.raises(NotStartedError):
        read_outcome(200, orjson.dumps({"status": "failed", "error": error}))
    own = "Prediction failed: RuntimeError: Failed to send request: no route"
    assert read_outcome(200, orjson.dumps({"status": "failed", "error": own})).failure is not None


def test_coglets_own_validation() -> None:
    """Its 422 becomes ours."""
    detail = [{"loc": ["body", "input", "n"], "msg": "3 is too much", "type": "value_error"}]
    o = read_outcome(422, orjson.dumps({"detail": detail}))
    assert o.failure is not None
    assert (o.failure.code, o.failure.message) == (
        "invalid_input",
        "Cannot use 'n': 3 is too much",
    )


@pytest.mark.slow
@given(st.integers(100, 599), st.binary(max_size=100))
def test_no_answer_breaks_it(status: int, body: bytes) -> None:
    """Whatever comes is an outcome that has ended."""
    assert read_outcome(status, body).status.is_terminal


@given(st.text())
def test_paths_are_cut_to_their_last_part(text: str) -> None:
    """No absolute path of two parts or more survives."""
    assert "/srv/x/" not in without_paths(f"{text} /srv/x/y.bin")


def test_log_lines() -> None:
    """JSON lines give their message, others themselves."""
    assert read_log_line(b'{"fields":{"message":"hello"}}\n').text == "hello"
    assert read_log_line(b"plain\n").text == "plain"
    assert read_log_line(b"\xff[1]\n").text


@pytest.mark.parametrize("status", ["succeeded", "failed", "canceled"])
def test_the_models_own_metrics(status: str) -> None:
    """However it ended; the time of the run is apart from them."""
    metrics = {"predict_time": 2, "tokens": 3, "timing": {"load": 0.1}}
    o = read_outcome(200, orjson.dumps({"status": status, "error": "x", "metrics": metrics}))
    assert (o.metrics, o.predict_time_s) == ({"tokens": 3, "timing": {"load": 0.1}}, 2)
    none = read_outcome(200, orjson.dumps({"status": status, "error": "x"}))
    assert (none.metrics, none.predict_time_s) == ({}, None)
