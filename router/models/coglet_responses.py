"""What coglet's answers and log lines mean. Pure functions over its bytes.

The convention that joins package and router: a runner that objects to its input raises an
exception whose class is called `InvalidInput`; coglet gives only "Class: message", and that
one class name makes it the caller's fault. Every other exception is the model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from router.errors import (
    Canceled,
    InsufficientStorage,
    InvalidInput,
    PredictionFailed,
    WorkerDied,
    without_paths,
)
from router.models.process import LogLine, NotStartedError
from router.prediction import Failure, Json, Outcome, Status

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
        return Failure(WorkerDied.code, "The model's process ended while it worked on this")
    if text.startswith(NO_FOLDER):
        return Failure(InsufficientStorage.code, "The disk does not take the prediction's files")
    if text.startswith(INVALID_INPUT):
        return Failure(InvalidInput.code, without_paths(text.removeprefix(INVALID_INPUT)))
    return Failure(PredictionFailed.code, f"The model failed: {without_paths(text)}")


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
        return Outcome(Status.FAILED, failure=Failure(PredictionFailed.code, text))
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
            failure = Failure(Canceled.code, "The prediction was canceled")
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
        InvalidInput.code,
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


# No log that the router keeps is half as long, even with every character escaped.
MAX_LOG_BYTES = 8 << 20
# Of the answer without its log: what a model's output may take, base64 included.
MAX_BODY_BYTES = 256 << 20

LOGS = b'"logs":"'
# What a JSON string goes on with: up to its end, or to an escape that is cut in two.
IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class BodyTooLargeError(OSError):
    """The answer is larger than MAX_BODY_BYTES."""


class AnswerBody:
    """Fed with the pieces of a body. The log is looked for only when there is too much."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._cut_at: int | None = MAX_LOG_BYTES  # None when the log has been passed
        self._in_log: _LongLog | None = None

    def feed(self, piece: bytes) -> None:
        """Add a piece. Raises BodyTooLargeError."""
        if self._in_log is not None:
            rest = self._in_log.feed(piece)
            if rest is None:
                return
            piece, self._in_log = self._in_log.gap_line() + rest, None
        self._pieces.append(piece)
        self._size += len(piece)
        if self._cut_at is not None and self._size > self._cut_at:
            self._look_for_log()
        if self._size > MAX_BODY_BYTES:
            raise BodyTooLargeError("the model's output is too large")

    def whole(self) -> bytes:
        """The body as it is now."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _look_for_log(self) -> None:
        body = b"".join(self._pieces)
        at = body.find(LOGS)
        if at < 0:
            # It stands before what may be long too: there is none to come.
            self._cut_at = None
            self._pieces = [body]
            return
        self._cut_at = None
        start = at + len(LOGS)
        log = _LongLog()
        rest = log.feed(body[start:])
        if rest is None:
            self._pieces, self._in_log = [body[:start]], log
        elif len(body) - start - len(rest) > MAX_LOG_BYTES:
            self._pieces = [body[:start], log.gap_line(), rest]
        else:
            self._pieces = [body]
        self._size = sum(map(len, self._pieces))


class _LongLog:
    """A JSON string that is counted and left out."""

    def __init__(self) -> None:
        self._lines = 0
        self._size = 0
        self._escape = b""  # a backslash that a piece ended with

    def feed(self, piece: bytes) -> bytes | None:
        """None while the string goes on; at its end what comes behind it, its quote first."""
        piece = self._escape + piece
        found = IN_STRING.match(piece)
        end = found.end() if found else 0
        self._lines += piece.count(b"\\n", 0, end)
        self._size += end
        if end < len(piece) and piece[end : end + 1] == b'"':
            return piece[end:]
        self._escape = piece[end:]
        return None

    def gap_line(self) -> bytes:
        """What stands in its place, as `router.predictions.prediction_log` has it."""
        return b"[callme left out %d lines, %d bytes]\\n" % (self._lines, self._size)


def without_long_log(body: bytes) -> bytes:
    """A body that came in one piece. Raises BodyTooLargeError."""
    if len(body) <= MAX_LOG_BYTES:
        return body
    answer = AnswerBody()
    answer.feed(body)
    return answer.whole()


# What coglet puts before what the runner's own healthcheck() says, and when that takes over 5 s.
OWN_CHECK = "Healthcheck failed: "
OWN_CHECK_TIMED_OUT = f"{OWN_CHECK}user-defined healthcheck timed out"
PROBLEM_CHARS = 500


def set_up_log(health: Mapping[str, Json]) -> str:
    """What the set-up printed, as the health check has it; "" for nothing."""
    return str((health.get("setup") or {}).get("logs") or "")


def own_problem(health: Mapping[str, Json]) -> str:
    """What the runner's own health check says, "" when it is well or there is none."""
    said = str(health.get("user_healthcheck_error") or "")
    return without_paths(said[:PROBLEM_CHARS]) if said.startswith(OWN_CHECK) else ""
