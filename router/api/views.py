"""A prediction as JSON: the shape that Cog and Replicate share, with our error object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from router.api.error_handlers import error_fields
from router.domain.prediction import Failure, Prediction
from router.runtime.answers import public_inputs
from router.runtime.predictions import Predictions


def timestamp(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def error_view(failure: Failure) -> dict[str, Any]:
    """The one shape of errors, within a prediction."""
    return error_fields(failure.code, failure.message, failure.details)


def prediction_view(p: Prediction, predictions: Predictions) -> dict[str, Any]:
    """The prediction with its times, its URLs and, while it waits, its place in the queue."""
    failure = p.failure
    view: dict[str, Any] = {
        "id": p.id,
        "model": p.model,
        "status": p.status,
        "input": public_inputs(p),
        "output": p.output,
        "error": error_view(failure) if failure else None,
        "logs": p.logs,
        "metrics": p.metrics,
        "created_at": timestamp(p.created_at),
        "started_at": timestamp(p.started_at),
        "completed_at": timestamp(p.completed_at),
        "urls": {"get": f"/predictions/{p.id}", "cancel": f"/predictions/{p.id}/cancel"},
    }
    if standing := predictions.eta(p.id):
        view["queue"] = {"position": standing[0], "eta_s": round(standing[1], 1)}
    return view
