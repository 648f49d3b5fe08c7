"""What the answers of back-ends on other machines mean. Pure functions.

`backend_failed` is the back-end's own trouble, and counts for the breaker; what the model
itself said (a failure, an objection to the input) is the same as from a local one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from msgspec.structs import replace

from router.errors import (
    BackendFailed,
    Canceled,
    DeadlineExceeded,
    InvalidInput,
    LoopDetected,
    ModelUnavailable,
    PredictionFailed,
    without_paths,
)
from router.models.coglet_responses import read_failure
from router.models.process import StartError
from router.prediction import Failure, Json, Outcome, Status
from router.remote.http import RemoteResponse

BACKEND_FAILED = BackendFailed.code
UNAVAILABLE = ModelUnavailable.code
# The back-end's own trouble. A time-out is it too: a local model that hangs is killed.
TROUBLE = frozenset({BACKEND_FAILED, UNAVAILABLE, DeadlineExceeded.code})
LOOP_DETECTED = LoopDetected.code  # the way that it came, and not the back-end, is the trouble
LEADS_BACK = "The back-end leads back to this box"
SHOWN_CHARS = 300


def failed(code: str, message: str) -> Outcome:
    """A failure of that code."""
    return Outcome(Status.FAILED, failure=Failure(code, message))


def broken_off(reason: str) -> Outcome:
    """The connection ended before the answer did."""
    return failed(BACKEND_FAILED, f"The back-end broke off, and may have begun: {reason}")


def unreadable(status: int) -> Outcome:
    """Whatever it was, it was not a prediction."""
    return failed(BACKEND_FAILED, f"The back-end answered {status} with something unreadable")


def canceled(logs: str = "") -> Outcome:
    """It was canceled."""
    failure = Failure(Canceled.code, "The prediction was canceled")
    return Outcome(Status.CANCELED, failure=failure, logs=logs)


def said(answer: Mapping[str, Json]) -> str:
    """The sentence in an error's body: ours, Replicate's, or none."""
    error = answer.get("error")
    if isinstance(error, dict):
        error = error.get("message")
    text = error or answer.get("detail") or answer.get("title") or ""
    return without_paths(text[:SHOWN_CHARS]) if isinstance(text, str) else ""


def of_status(status: int, answer: Mapping[str, Json]) -> Outcome:
    """The outcome of an HTTP status that is no prediction."""
    told = said(answer)
    because = f": {told}" if told else ""
    if status in (400, 422):
        return _objection(answer, told)
    if status == 413:
        return failed(InvalidInput.code, "The input is larger than the back-end takes")
    if status == 508:
        return failed(LOOP_DETECTED, LEADS_BACK)
    refusal = {
        401: "The back-end does not accept the router's key",
        403: "The back-end does not accept the router's key",
        402: f"The back-end wants to be paid first{because}",
        404: f"The back-end has no such model{because}",
        409: f"The back-end takes no prediction now{because}",
        429: f"The back-end takes no prediction now{because}",
        503: f"The back-end takes no prediction now{because}",
    }.get(status)
    if refusal is not None:
        return failed(UNAVAILABLE, refusal)
    return failed(BACKEND_FAILED, f"The back-end answered {status}{because}")


def of_answer(answer: RemoteResponse) -> Outcome:
    """The same of a whole answer. It is worth another try when the back-end says so."""
    outcome = of_status(answer.status, answer.object())
    return to_be_retried(outcome, answer.retry_after_s())


def to_be_retried(outcome: Outcome, retry_after_s: float | None) -> Outcome:
    """The outcome with what a Retry-After beside it said, if it is the back-end's trouble."""
    failure = outcome.failure
    if retry_after_s is None or failure is None or failure.code not in TROUBLE:
        return outcome
    return replace(outcome, failure=dataclasses.replace(failure, retry_after_s=retry_after_s))


def start_error(answer: RemoteResponse) -> StartError:
    """Why a back-end that answers so is not there."""
    failure = of_answer(answer).failure
    reason = failure.message if failure else "no answer"
    return StartError(reason, retry_after_s=answer.retry_after_s())


def _objection(answer: Mapping[str, Json], told: str) -> Outcome:
    """Cog's `detail`, a list of `loc` and `msg`; Replicate's `invalid_fields`, or its words."""
    problems = []
    detail = answer.get("detail")
    for d in detail if isinstance(detail, list) else []:
        if isinstance(d, dict):
            loc = d.get("loc") or ["?"]
            problems.append({"input": str(loc[-1]), "message": str(d.get("msg"))})
    fields = answer.get("invalid_fields")
    for f in fields if isinstance(fields, list) else []:
        if isinstance(f, dict):
            name = str(f.get("field", "?")).removeprefix("input.")
            problems.append({"input": name, "message": str(f.get("description"))})
    if not problems:
        message = told or "The back-end refuses the input"
        return Outcome(Status.FAILED, failure=Failure(InvalidInput.code, message))
    message = f"Cannot use '{problems[0]['input']}': {problems[0]['message']}"
    failure = Failure(InvalidInput.code, message, {"problems": problems})
    return Outcome(Status.FAILED, failure=failure)


def _failure(error: str, code: Json) -> Failure:
    """Another box of ours gives the code. Of its own troubles (a worker that died, a shutdown)
    the caller need not know more than that it was there."""
    if not isinstance(code, str):
        return read_failure(error)
    is_kept = code in (InvalidInput.code, PredictionFailed.code, LOOP_DETECTED, *TROUBLE)
    return Failure(code if is_kept else BACKEND_FAILED, without_paths(error))


def of_prediction(p: Mapping[str, Json], output: Json = None) -> Outcome | None:
    """The outcome in a prediction as Cog and Replicate show one; None while it has not ended.
    `output` stands for the prediction's own."""
    logs = str(p.get("logs") or "")
    shown = p.get("metrics")
    metrics = dict(shown) if isinstance(shown, dict) else {}
    seconds = metrics.pop("predict_time", None)
    predict_time_s = float(seconds) if isinstance(seconds, int | float) else None
    match p.get("status"):
        case "starting" | "processing":
            return None
        case "succeeded":
            return Outcome(
                Status.SUCCEEDED,
                output=p.get("output") if output is None else output,
                logs=logs,
                predict_time_s=predict_time_s,
                metrics=metrics,
            )
        case "canceled" | "aborted":
            return replace(canceled(logs), metrics=metrics)
        case "failed":
            failure = _failure(str(p.get("error") or "no reason given"), p.get("error_code"))
            return Outcome(
                Status.FAILED,
                failure=failure,
                logs=logs,
                predict_time_s=predict_time_s,
                metrics=metrics,
            )
        case _:
            return failed(BACKEND_FAILED, "The back-end answered with something that has no status")
