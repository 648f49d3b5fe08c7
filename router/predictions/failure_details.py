"""What the caller of a failed prediction gets: the error and the log's end, without secrets."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from router import errors
from router.errors import RouterError, without_paths
from router.models.process_interface import LogLine
from router.models.tracebacks import is_of_traceback, last_raised
from router.prediction import Failure, Outcome, Prediction
from router.secret_inputs import OBJECTION, SecretValues, without_secrets

log = logging.getLogger(__name__)


def scrubbed(failure: Failure, secrets: SecretValues) -> Failure:
    """The failure without secret values, to be shown and stored. A model's server that rejects an
    input quotes its value, however short it is; the message of an exception may quote it too."""
    failure = _without_objections(failure, secrets)
    message = without_secrets(failure.message, secrets)
    return replace(failure, message=message, details=without_secrets(failure.details, secrets))


def _without_objections(failure: Failure, secrets: SecretValues) -> Failure:
    problems = (failure.details or {}).get("problems")
    if not isinstance(problems, list) or not any(_is_about(p, secrets) for p in problems):
        return failure
    kept = [{**p, "message": OBJECTION} if _is_about(p, secrets) else p for p in problems]
    message = f"Cannot use '{kept[0].get('input')}': {kept[0].get('message')}"
    return replace(failure, message=message, details={**(failure.details or {}), "problems": kept})


def _is_about(problem: Any, secrets: SecretValues) -> bool:
    return isinstance(problem, dict) and problem.get("input") in secrets


# Longest line of a log tail: a picture that was printed by mistake must not make an error megabytes
# long.
LINE_CHARS = 300


def failure_log_tail(lines: Sequence[LogLine], prediction_id: str = "") -> tuple[str, ...]:
    """The lines of the set-up and of this prediction, without paths of this machine.

    Lines of other predictions are left out, as they may hold another person's data. A subprocess
    prints lines that name no prediction; these are included only when no other prediction printed
    anything since this one began. Tracebacks are left out: they show the package's code.
    """
    began = next((i for i, line in enumerate(lines) if line.prediction_id == prediction_id), None)
    since = lines[began:] if prediction_id and began is not None else ()
    alone = all(line.prediction_id in ("", prediction_id) for line in since)
    own = [line for line in lines if line.in_set_up]
    own += [x for x in since if x.prediction_id == prediction_id or (alone and not x.in_set_up)]
    shown = [line.text for line in own if not is_of_traceback(line.text)]
    return tuple(without_paths(text)[:LINE_CHARS] for text in shown)


def with_log_tail(outcome: Outcome, lines: Sequence[LogLine], prediction_id: str) -> Outcome:
    """The outcome with `log_tail` in its failure's details; unchanged when it did not fail."""
    if outcome.failure is None:
        return outcome
    tail = list(failure_log_tail(lines, prediction_id))
    details = {**(outcome.failure.details or {}), "log_tail": tail}
    failure = dataclasses.replace(outcome.failure, details=details)
    return msgspec.structs.replace(outcome, failure=failure)


def log_location(p: Prediction, outcome: Outcome) -> None:
    """Tell the operator which line failed. The text of the exception may quote an input."""
    if outcome.failure is None or outcome.failure.code != errors.PredictionFailed.code:
        return
    if raised := last_raised(outcome.logs.splitlines()):
        name = raised.error.partition(":")[0]
        fields = {"prediction": p.id, "model": p.model, "raised": name, "at": raised.location}
        if p.trace is not None:
            fields["trace_id"] = p.trace.trace_id
        log.warning("prediction failed", extra=fields)


ERROR_OF_CODE: Mapping[str, type[RouterError]] = {
    cls.code: cls
    for cls in (
        errors.InvalidInput,
        errors.PredictionFailed,
        errors.WorkerDied,
        errors.BackendFailed,
        errors.ModelUnavailable,
        errors.ShuttingDown,
        errors.DeadlineExceeded,
        errors.InsufficientStorage,
        errors.QueueFull,
        errors.LoopDetected,
        errors.Canceled,
    )
}


def error_of(p: Prediction) -> RouterError | None:
    """The error to answer an ended prediction with; None when it succeeded."""
    if p.failure is None:
        return None
    cls = ERROR_OF_CODE.get(p.failure.code, errors.PredictionFailed)
    failure = p.failure
    return cls(failure.message, details=failure.details, retry_after_s=failure.retry_after_s)
