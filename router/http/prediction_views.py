"""A prediction as JSON: the shape that Cog and Replicate share, with our error object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from router.http.errors import error_fields
from router.models.tracebacks import without_tracebacks
from router.prediction import Failure, FileRef, Json, Prediction
from router.predictions.lifecycle import Predictions


def timestamp(seconds: float | None) -> str | None:
    """Return the time in RFC 3339 format, in UTC, with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def error_view(failure: Failure) -> dict[str, Any]:
    """Return the failure of a prediction in the shape of all errors."""
    return error_fields(failure.code, failure.message, failure.details)


def prediction_view(
    p: Prediction, predictions: Predictions, *, tracebacks: bool = False
) -> dict[str, Any]:
    """Return the prediction with its times, its URLs and, while it waits, its queue position.

    `tracebacks`: whether its log shows them. The edge function passes this view on to web pages.
    """
    failure = p.failure
    view: dict[str, Any] = {
        "id": p.id,
        "model": p.model,
        "status": p.status,
        "input": public_inputs(p),
        "output": p.output,
        "error": error_view(failure) if failure else None,
        "logs": p.logs if tracebacks else without_tracebacks(p.logs),
        "metrics": p.metrics,
        "created_at": timestamp(p.created_at),
        "started_at": timestamp(p.started_at),
        "completed_at": timestamp(p.completed_at),
        "urls": {"get": f"/predictions/{p.id}", "cancel": f"/predictions/{p.id}/cancel"},
    }
    if standing := predictions.eta(p.id):
        view["queue"] = {"position": standing[0], "eta_s": round(standing[1], 1)}
    return view


def public_inputs(p: Prediction) -> dict[str, Json]:
    """Return the inputs that may be shown, each file as the name that its client gave it."""
    shown = dict(p.inputs)
    by_field: dict[str, list[FileRef]] = {}
    for f in p.files:
        by_field.setdefault(f.field, []).append(f)
    for name, refs in by_field.items():
        names = [r.name for r in refs]
        shown[name] = names if refs[0].in_list else names[0]
    return shown
