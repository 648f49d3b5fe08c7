"""The meaning of coglet's answers and log lines. These are pure functions over its bytes.

Package and router share one convention. A runner that refuses its input raises an exception whose
class is called `InvalidInput`. coglet passes on only "Class: message", and this class name makes
the error the caller's. Every other exception is the model's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import orjson

from router.errors import (
    Canceled,
    InsufficientStorage,
    InvalidInput,
    PredictionFailed,
    WorkerDied,
    without_paths,
)
from router.models.process_interface import LogLine, NotStartedError, StartError
from router.models.tracebacks import last_raised
from router.prediction import Failure, Json, Outcome, Status

# coglet's prefixes of an exception from run(): a plain one, an `async` one, a generator.
PREFIXES = ("Prediction failed: ", "Async prediction failed: ", "Generator iteration error: ")
INVALID_INPUT = "InvalidInput: "
WORKER_LOST = ("Worker crashed", "Slot socket error")
# coglet found that its worker had died when it was about to pass the prediction on.
NOT_HANDED_OVER = "Failed to send request"
NO_FOLDER = ("Failed to create output dir", "Failed to create input dir")


def _bare(error: str) -> str:
    """Return the error without coglet's own prefixes.

    The error of a runner's exception then starts with its class.
    """
    while prefix := next((p for p in PREFIXES if error.startswith(p)), None):
        error = error.removeprefix(prefix)
    return error


def read_failure(error: str) -> Failure:
    """Return the failure that coglet's error text describes."""
    text = _bare(error)
    if text.startswith(WORKER_LOST):
        return Failure(WorkerDied.code, "The model's process ended while it worked on this")
    if text.startswith(NO_FOLDER):
        text = "The prediction's files cannot be written: the disk may be full"
        return Failure(InsufficientStorage.code, text)
    if text.startswith(INVALID_INPUT):
        return Failure(InvalidInput.code, without_paths(text.removeprefix(INVALID_INPUT)))
    return Failure(PredictionFailed.code, f"The model failed: {without_paths(text)}")


def read_outcome(status: int, body: bytes) -> Outcome:
    """Return the outcome in coglet's answer to POST /predictions.

    An answer that cannot be read is a failed prediction. Raises NotStartedError when the worker
    never got the prediction.
    """
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
    """Return the failure for an input that coglet's own check has refused.

    Then the schema on disk is not the runner's, or the router's check is less strict.
    """
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
    """Return one line of coglet's JSON log. Any other line is the text itself."""
    try:
        fields = orjson.loads(line)["fields"]
        source = "stderr" if fields.get("source") == "Stderr" else "stdout"
        return LogLine(str(fields["message"]), str(fields.get("prediction_id", "")), source)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return LogLine(line.decode(errors="replace").rstrip("\n"))


def is_print_of_prediction(line: bytes) -> bool:
    """Whether the model may have printed the line while it ran a prediction.

    The check is cheap, because it is made for every line of every prediction. `source` is Stdout
    or Stderr.
    """
    return b'"source":"Std' in line and b'"prediction_id"' in line


def is_print_outside_runs(line: bytes) -> bool:
    """Whether the model printed the line outside of its set-up and of every prediction."""
    return b'"target":"coglet::user"' in line


# A log that the router keeps has less than half of this, even with every character escaped.
MAX_LOG_BYTES = 8 << 20
# Limit for the answer without its log. So it limits a model's output, base64 included.
MAX_BODY_BYTES = 256 << 20

LOGS = b'"logs":"'
# The rest of a JSON string: up to its end, or to an escape that is cut in two.
IN_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)


class BodyTooLargeError(OSError):
    """The answer is larger than MAX_BODY_BYTES."""


class AnswerBody:
    """Collects the pieces of a body. It looks for the log only when there is too much data."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._cut_at: int | None = MAX_LOG_BYTES  # None when the search for the log is over
        self._in_log: _LongLog | None = None

    def feed(self, piece: bytes) -> None:
        """Add a piece. Raises BodyTooLargeError when the body without a long log is too large."""
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
        """Return the body so far, without a log that is too long."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _look_for_log(self) -> None:
        body = b"".join(self._pieces)
        at = body.find(LOGS)
        if at < 0:
            # The log comes before the other long parts, so there is none.
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
    """Counts the lines and bytes of a JSON string, which is left out."""

    def __init__(self) -> None:
        self._lines = 0
        self._size = 0
        self._escape = b""  # the backslash at the end of the last piece

    def feed(self, piece: bytes) -> bytes | None:
        """Add a piece. Return what comes after the string, its closing quote first.

        None while the string has not ended.
        """
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
        """Return the line that replaces it, in the form of `router.predictions.prediction_log`."""
        return b"[callme left out %d lines, %d bytes]\\n" % (self._lines, self._size)


def without_long_log(body: bytes) -> bytes:
    """Return a body that came in one piece, without a log that is too long.

    Raises BodyTooLargeError when the rest of it is too large.
    """
    if len(body) <= MAX_LOG_BYTES:
        return body
    answer = AnswerBody()
    answer.feed(body)
    return answer.whole()


# coglet's prefix of what the runner's own healthcheck() reports, and its own text when that takes
# over 5 s.
OWN_CHECK = "Healthcheck failed: "
OWN_CHECK_TIMED_OUT = f"{OWN_CHECK}user-defined healthcheck timed out"
PROBLEM_CHARS = 500


def set_up_log(health: Mapping[str, Json]) -> str:
    """Return what the set-up printed, from the health check's answer; "" for nothing."""
    return str((health.get("setup") or {}).get("logs") or "")


def start_error(reason: str, printed: Sequence[str], health: Mapping[str, Json]) -> StartError:
    """Return the error of a start that failed, with what the package raised.

    Else with the line that most likely says why: the last of the set-up's log, or of all that was
    printed.
    """
    if raised := last_raised(printed):
        return StartError(f"{reason}: {raised.error}", location=raised.location)
    lines = [s for s in set_up_log(health).splitlines() or printed if s.strip()]
    own = [s for s in lines if not s.startswith("[coglet")] or lines
    return StartError(f"{reason}: {own[-1].strip()}" if own else reason)


def own_problem(health: Mapping[str, Json]) -> str:
    """Return what the runner's own health check reports; "" when it is healthy or has none."""
    said = str(health.get("user_healthcheck_error") or "")
    return without_paths(said[:PROBLEM_CHARS]) if said.startswith(OWN_CHECK) else ""
