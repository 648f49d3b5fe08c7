"""The outcomes for the responses of back-ends on other machines. Pure functions.

`backend_failed` is an error of the back-end itself, and the breaker counts it. An error of the
model (a failed run, an input that is not valid) gives the same outcome as from a local model.
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
from router.models.process_interface import StartError
from router.prediction import Failure, Json, Outcome, Status
from router.remote.http import RemoteResponse

BACKEND_FAILED = BackendFailed.code
UNAVAILABLE = ModelUnavailable.code
# Errors of the back-end itself. A time-out is one too, as a local model that hangs is killed.
TROUBLE = frozenset({BACKEND_FAILED, UNAVAILABLE, DeadlineExceeded.code})
LOOP_DETECTED = LoopDetected.code  # caused by the request's route, so not an error of the back-end
LOOP_STATUS = 508
NOT_FOUND = 404
# The answers of one that does not serve the model now: it has begun nothing.
REFUSED = frozenset({NOT_FOUND, 409, 429, 503})
LEADS_BACK = "The back-end leads back to this box"
SHOWN_CHARS = 300


def failed(code: str, message: str) -> Outcome:
    """A failed outcome with that error code and message."""
    return Outcome(Status.FAILED, failure=Failure(code, message))


def broken_off(reason: str) -> Outcome:
    """The connection ended before the response did."""
    return failed(
        BACKEND_FAILED, f"The back-end broke off, and the prediction may have begun: {reason}"
    )


def unreadable(status: int) -> Outcome:
    """The response was not a prediction."""
    return failed(BACKEND_FAILED, f"The back-end answered {status} with something unreadable")


def canceled(logs: str = "") -> Outcome:
    """The prediction was canceled."""
    failure = Failure(Canceled.code, "The prediction was canceled")
    return Outcome(Status.CANCELED, failure=failure, logs=logs)


def said(answer: Mapping[str, Json]) -> str:
    """The message in the body of an error, in our form or Replicate's; "" when there is none."""
    error = answer.get("error")
    if isinstance(error, dict):
        error = error.get("message")
    text = error or answer.get("detail") or answer.get("title") or ""
    return without_paths(text[:SHOWN_CHARS]) if isinstance(text, str) else ""


def of_status(status: int, answer: Mapping[str, Json]) -> Outcome:
    """The outcome of an HTTP status that is no prediction."""
    message = said(answer)
    because = f": {message}" if message else ""
    if status in (400, 422):
        return _invalid_input(answer, message)
    if status == 413:
        return failed(InvalidInput.code, "The input is larger than the back-end accepts")
    if status == LOOP_STATUS:
        return failed(LOOP_DETECTED, LEADS_BACK)
    refusal = {
        401: "The back-end does not accept the router's key",
        403: "The back-end does not accept the router's key",
        402: f"The back-end asks for payment first{because}",
        404: f"The back-end has no such model{because}",
        409: f"The back-end takes no prediction now{because}",
        429: f"The back-end takes no prediction now{because}",
        503: f"The back-end takes no prediction now{because}",
    }.get(status)
    if refusal is not None:
        return failed(UNAVAILABLE, refusal)
    return failed(BACKEND_FAILED, f"The back-end answered {status}{because}")


def of_answer(answer: RemoteResponse) -> Outcome:
    """The outcome of a response that is no prediction, with its Retry-After."""
    outcome = of_status(answer.status, answer.object())
    return to_be_retried(outcome, answer.retry_after_s())


def refused(answer: RemoteResponse) -> Outcome:
    """The outcome of a response of REFUSED."""
    return replace(of_answer(answer), refused=True, missing=answer.status == NOT_FOUND)


def to_be_retried(outcome: Outcome, retry_after_s: float | None) -> Outcome:
    """The outcome with that Retry-After, if it is an error of the back-end; else unchanged."""
    failure = outcome.failure
    if retry_after_s is None or failure is None or failure.code not in TROUBLE:
        return outcome
    return replace(outcome, failure=dataclasses.replace(failure, retry_after_s=retry_after_s))


def start_error(answer: RemoteResponse) -> StartError:
    """The error of a start for a back-end that answered with an error."""
    failure = of_answer(answer).failure
    reason = failure.message if failure else "no answer"
    outage = answer.status in REFUSED or (answer.status >= 500 and answer.status != LOOP_STATUS)
    missing = answer.status == NOT_FOUND
    retry_after_s = answer.retry_after_s()
    return StartError(reason, retry_after_s=retry_after_s, outage=outage, missing=missing)


def _invalid_input(answer: Mapping[str, Json], message: str) -> Outcome:
    """The problems from Cog's `detail`, a list of `loc` and `msg`, or from Replicate's
    `invalid_fields`; without either, the message."""
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
        message = message or "The back-end refuses the input"
        return Outcome(Status.FAILED, failure=Failure(InvalidInput.code, message))
    message = f"Cannot use '{problems[0]['input']}': {problems[0]['message']}"
    failure = Failure(InvalidInput.code, message, {"problems": problems})
    return Outcome(Status.FAILED, failure=failure)


def _failure(error: str, code: Json) -> Failure:
    """The failure of a prediction. Another box of ours sends its code. Codes for its internal
    errors (a worker that died, a shutdown) become `backend_failed`, as the caller needs no more."""
    if not isinstance(code, str):
        return read_failure(error)
    is_kept = code in (InvalidInput.code, PredictionFailed.code, LOOP_DETECTED, *TROUBLE)
    return Failure(code if is_kept else BACKEND_FAILED, without_paths(error))


def of_prediction(p: Mapping[str, Json], output: Json = None) -> Outcome | None:
    """The outcome of a prediction in Cog's or Replicate's JSON; None while it has not ended.
    `output`, if not None, replaces the prediction's own."""
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
            return failed(
                BACKEND_FAILED, "The back-end answered with a prediction without a known status"
            )
