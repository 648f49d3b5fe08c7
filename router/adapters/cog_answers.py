"""What coglet's answers and log lines mean. Pure functions over its bytes.

The convention that joins package and router: a runner that objects to its input raises an
exception whose class is called `InvalidInput`; coglet gives only "Class: message", and that
one class name makes it the caller's fault. Every other exception is the model's.
"""

from __future__ import annotations

import orjson

from router.domain.errors import without_paths
from router.domain.prediction import Failure, Json, Outcome, Status
from router.ports import LogLine, NotStartedError

# Before what a run() raised: a plain one, an `async` one, a generator.
PREFIXES = ("Prediction failed: ", "Async prediction failed: ", "Generator iteration error: ")
INVALID_INPUT = "InvalidInput: "
WORKER_LOST = ("Worker crashed", "Slot socket error")
# coglet found its worker gone when it was about to hand the prediction over.
NOT_HANDED_OVER = "Failed to send request"
NO_FOLDER = ("Failed to create output dir", "Failed to create input dir")


def _bare(error: str) -> str:
    """Without coglet's own prefixes. What a runner has raised then starts with its class."""
    while prefix := next((p for p in PREFIXES if error.startswith(p)), None):
        error = error.removeprefix(prefix)
    return error


def read_failure(error: str) -> Failure:
    """The failure behind coglet's error text."""
    text = _bare(error)
    if text.startswith(WORKER_LOST):
        return Failure("worker_died", "The model's process ended while it worked on this")
    if text.startswith(NO_FOLDER):
        return Failure("insufficient_storage", "The disk does not take the prediction's files")
    if text.startswith(INVALID_INPUT):
        return Failure("invalid_input", without_paths(text.removeprefix(INVALID_INPUT)))
    return Failure("prediction_failed", f"The model failed: {without_paths(text)}")


def read_outcome(status: int, body: bytes) -> Outcome:
    """The outcome in coglet's answer to POST /predictions. An answer that makes no sense is a
    failed prediction. Raises NotStartedError when the worker never got it."""
    try:
        answer: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if status == 422 and isinstance(answer, dict):
        return Outcome(Status.FAILED, failure=_validation_failure(answer))
    if status != 200 or not isinstance(answer, dict):
        text = f"The model's server answered {status} with something unreadable"
        return Outcome(Status.FAILED, failure=Failure("prediction_failed", text))
    logs = str(answer.get("logs") or "")
    metrics = answer.get("metrics") or {}
    predict_time_s = metrics.pop("predict_time", None)
    match answer.get("status"):
        case "succeeded":
            return Outcome(
                Status.SUCCEEDED,
                output=answer.get("output"),
                logs=logs,
                predict_time_s=predict_time_s,
                metrics=metrics,
            )
        case "canceled":
            failure = Failure("canceled", "The prediction was canceled")
            return Outcome(
                Status.CANCELED,
                failure=failure,
                logs=logs,
                predict_time_s=predict_time_s,
                metrics=metrics,
            )
        case "failed" if _bare(str(answer.get("error"))).startswith(NOT_HANDED_OVER):
            raise NotStartedError("the worker died")
        case _:
            failure = read_failure(str(answer.get("error") or "no reason given"))
            return Outcome(
                Status.FAILED,
                failure=failure,
                logs=logs,
                predict_time_s=predict_time_s,
                metrics=metrics,
            )


def _validation_failure(answer: dict[str, Json]) -> Failure:
    """coglet's own check said no: the schema on disk is not the runner's, or ours is laxer."""
    problems = [
        {"input": str((d.get("loc") or ["?"])[-1]), "message": str(d.get("msg"))}
        for d in answer.get("detail") or []
        if isinstance(d, dict)
    ]
    first = problems[0] if problems else {"input": "?", "message": "the input is refused"}
    return Failure(
        "invalid_input",
        f"Cannot use '{first['input']}': {first['message']}",
        {"problems": problems},
    )


def read_log_line(line: bytes) -> LogLine:
    """One line of coglet's JSON log; any other line as it is."""
    try:
        fields = orjson.loads(line)["fields"]
        source = "stderr" if fields.get("source") == "Stderr" else "stdout"
        return LogLine(str(fields["message"]), str(fields.get("prediction_id", "")), source)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return LogLine(line.decode(errors="replace").rstrip("\n"))


def is_print_of_prediction(line: bytes) -> bool:
    """Whether the line may be something that the model printed while it ran a prediction. A
    cheap look, for every line of every prediction: `source` is Stdout or Stderr."""
    return b'"source":"Std' in line and b'"prediction_id"' in line


def is_print_of_nobody(line: bytes) -> bool:
    """Whether the model printed it outside of its set-up and of every prediction."""
    return b'"target":"coglet::user"' in line
