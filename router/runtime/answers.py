"""What a prediction that has ended says to its caller."""

from __future__ import annotations

from collections.abc import Mapping

from router.domain import errors
from router.domain.errors import RouterError
from router.domain.prediction import FileRef, Json, Prediction

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
    """The error that an ended prediction answers with, None for a success."""
    if p.failure is None:
        return None
    cls = ERROR_OF_CODE.get(p.failure.code, errors.PredictionFailed)
    failure = p.failure
    return cls(failure.message, details=failure.details, retry_after_s=failure.retry_after_s)


def public_inputs(p: Prediction) -> dict[str, Json]:
    """The inputs as they may be shown: a file by the name its client gave it."""
    shown = dict(p.inputs)
    by_field: dict[str, list[FileRef]] = {}
    for f in p.files:
        by_field.setdefault(f.field, []).append(f)
    for name, refs in by_field.items():
        names = [r.name for r in refs]
        shown[name] = names if refs[0].in_list else names[0]
    return shown
