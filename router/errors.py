"""The table of all errors: each class has an HTTP status and a stable code.

Each API renders them in its own form (`router/http/errors.py`). docs/http/errors.md lists them,
and a test compares the two. Messages have the form "Cannot X: 'y' must be Z, got V".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

# A path has two or more components, so that "and/or" and "4/5" are kept. The path of a web address
# is no path of this machine.
ABSOLUTE_PATH = re.compile(
    r"(?P<url>https?://\S+)|(?<![\w/.])/{1,3}(?:[\w.+@-]+/)+(?P<name>[\w.+@-]+)"
)


def without_paths(message: str) -> str:
    """The message with every absolute path, also of file:// URLs, cut to its last component."""
    return ABSOLUTE_PATH.sub(lambda found: found["url"] or found["name"], message)


class RouterError(Exception):
    """An error that callers may see.

    `message` is for a person and contains no path of this machine. `details` is for a program.
    `retry_after_s`, in seconds, becomes the Retry-After header.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s


class MalformedRequest(RouterError):
    """The body does not match its Content-Type, or ends early."""

    status, code = 400, "malformed_request"


class Unauthorized(RouterError):
    """No key, a wrong key, or a signature that does not verify."""

    status, code = 401, "unauthorized"


class Forbidden(RouterError):
    """There is no key yet and the client is not on this machine, or the key is no admin key."""

    status, code = 403, "forbidden"


class NotFound(RouterError):
    """The path or file does not exist."""

    status, code = 404, "not_found"


class UnknownModel(RouterError):
    """There is no package of that name."""

    status, code = 404, "unknown_model"


class UnknownPrediction(RouterError):
    """There is no prediction of that id, or its result has been deleted."""

    status, code = 404, "unknown_prediction"


class MethodNotAllowed(RouterError):
    """The path does not have this method."""

    status, code = 405, "method_not_allowed"


class NotAcceptable(RouterError):
    """The response cannot have the media type that the Accept header asks for."""

    status, code = 406, "not_acceptable"


class RequestTimeout(RouterError):
    """The head of a request did not end in time."""

    status, code = 408, "request_timeout"


class IdConflict(RouterError):
    """The id is taken: by a prediction of another model, of another caller, or with other
    inputs."""

    status, code = 409, "id_conflict"


class NotEnded(RouterError):
    """The prediction cannot be deleted: it has not ended, or its result is being written."""

    status, code = 409, "not_ended"


class PayloadTooLarge(RouterError):
    """The body exceeds `max_upload_bytes`."""

    status, code = 413, "payload_too_large"


class UriTooLong(RouterError):
    """The URL of the request is longer than its limit."""

    status, code = 414, "uri_too_long"


class UnsupportedMediaType(RouterError):
    """The Content-Type is not one that this path reads."""

    status, code = 415, "unsupported_media_type"


class RangeNotSatisfiable(RouterError):
    """The Range header asks for bytes that the file does not have."""

    status, code = 416, "range_not_satisfiable"


class InvalidInput(RouterError):
    """An input is missing, unknown, out of range, or refused by the model itself."""

    status, code = 422, "invalid_input"


class QueueFull(RouterError):
    """The model's queue is at its limit. Retry-After is computed from measured service times."""

    status, code = 429, "queue_full"


class RateLimited(RouterError):
    """The key has used its requests of this minute, or has too many running requests."""

    status, code = 429, "rate_limited"


class RequestHeadTooLarge(RouterError):
    """The request line and header fields, or the chunk headers of a body, exceed their limit."""

    status, code = 431, "request_head_too_large"


class PredictionFailed(RouterError):
    """The model raised an exception that is not about its input."""

    status, code = 500, "prediction_failed"


class WorkerDied(RouterError):
    """The model's process ended while it worked on this prediction."""

    status, code = 502, "worker_died"


class BackendFailed(RouterError):
    """The model's other machine closed the connection, or its response cannot be read."""

    status, code = 502, "backend_failed"


class ModelUnavailable(RouterError):
    """The model cannot be started now: its set-up failed, or it does not fit in memory."""

    status, code = 503, "model_unavailable"


class TooManyConnections(RouterError):
    """The limit of open connections is reached, and all of them are in use."""

    status, code = 503, "too_many_connections"


class ResultStoreFailed(RouterError):
    """The result store did not do what it was asked. `reason` is for the operator: it names the
    setting to look at, and contains no key."""

    status, code = 503, "result_store_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(
            "Cannot read the file: the store that holds it does not answer now", retry_after_s=30
        )
        self.reason = reason


class ShuttingDown(RouterError):
    """The router is stopping."""

    status, code = 503, "shutting_down"


class DeadlineExceeded(RouterError):
    """The prediction did not finish within its time limit and was stopped."""

    status, code = 504, "deadline_exceeded"


class InsufficientStorage(RouterError):
    """The upload or the prediction could not be written to disk."""

    status, code = 507, "insufficient_storage"


class LoopDetected(RouterError):
    """The request has been at this box before: a model's back-end leads back to this box."""

    status, code = 508, "loop_detected"


class Canceled(RouterError):
    """The prediction was canceled by request. 499 is the common status for a closed request."""

    status, code = 499, "canceled"
