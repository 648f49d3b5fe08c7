"""A prediction and its life. All status changes happen in `advance` and `conclude`.

Two rules: a prediction is immutable, so a change is a new value; and a move that is not in
TRANSITIONS raises and changes nothing.

    starting ──▶ processing ──▶ succeeded | failed | canceled
        │            │
        │            └──▶ starting        run again after the router itself died
        └──▶ failed | canceled | aborted  ended before it ran
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from router import loop_detection
from router.secret_inputs import NO_SECRETS, SecretValues

Json = Any  # what JSON can say; Python's type system cannot bound it usefully
# The keys and indexes that lead to a value in JSON; () is the whole of it.
Place = tuple[str | int, ...]


class Status(StrEnum):
    """Replicate's words for where a prediction is."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"

    @property
    def is_terminal(self) -> bool:
        """True when the prediction will not change any more."""
        return self is not Status.STARTING and self is not Status.PROCESSING


# Tuples: Python hashes an enum's member in Python, and these are looked at often.
TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    Status.STARTING: (Status.PROCESSING, Status.FAILED, Status.CANCELED, Status.ABORTED),
    Status.PROCESSING: (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.STARTING),
    Status.SUCCEEDED: (),
    Status.FAILED: (),
    Status.CANCELED: (),
    Status.ABORTED: (),
}


class IllegalTransition(Exception):
    """A status change that the table does not allow; the prediction is unchanged."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file in the spool.

    `field` is the input it fills (one element of it if `in_list`), or the form field that it came
    in; `path` where the router put it; `name` what the client called it (never used as a path);
    `media_type` what a form said of it, "" where nothing was said.
    """

    field: str
    path: str
    name: str
    in_list: bool = False
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of an output. `place`: where it is in the output. `path`: where the router put it.
    `name`: the last part of its URL, one of a kind within the prediction. `media_type`: as the
    model's server said, "" where it said none."""

    place: Place
    path: str
    name: str
    media_type: str
    size_bytes: int

    def ref(self) -> FileRef:
        """The file as the spool knows files."""
        return FileRef("", self.path, self.name)


@dataclass(frozen=True, slots=True)
class Job:
    """What a model's process is given. File inputs are in `files`, all others in `inputs`.
    `via`: the boxes that it came through. `context`: what the runner reads as
    `current_scope().context`."""

    id: str
    inputs: Mapping[str, Json] = field(repr=False)  # secrets among them
    files: tuple[FileRef, ...] = ()
    via: str = ""
    context: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prediction did not succeed: a code of `router.errors` and its message.
    `retry_after_s`: seconds after which it was worth another try, None where that is not known."""

    code: str
    message: str
    details: Mapping[str, Json] | None = None
    retry_after_s: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt at a prediction ended. `status` is terminal; `metrics` are the model's
    own."""

    status: Status
    output: Json = None
    failure: Failure | None = None
    logs: str = ""
    predict_time_s: float | None = None
    metrics: Mapping[str, Json] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogText:
    """A line that a running prediction has just printed, with its end, and to where."""

    text: str
    source: str = "stdout"


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """One element of the output of a model that streams. `size_bytes`: as JSON, 0 where it is
    not known."""

    value: Json
    size_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class MetricUpdate:
    """A metric that a running prediction has just recorded. A dot in `name` means an object;
    `mode` is `replace`, `increment` or `append`."""

    name: str
    value: Json
    mode: str = "replace"


Progress = LogText | OutputChunk | MetricUpdate


class WebhookEvent(StrEnum):
    """What a webhook may be called for."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Callback:
    """Whom to tell about a prediction, and of which events."""

    url: str
    events: tuple[str, ...] = tuple(WebhookEvent)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A `completed` webhook that has not arrived yet: tried so often, to be tried then."""

    prediction_id: str
    attempts: int
    due_at: float


class Prediction(msgspec.Struct, frozen=True):
    """One request to one model. Times are seconds since the epoch.

    `digest` is a hash of the inputs as they were sent: what an idempotent request is compared
    by. `namespace` is the owner in Replicate's `owner/name`, `base_url` the address that the
    client reached us at; both only to be shown again. `output_files`: the files that are not in
    `output`, which has null in their places. `home`: the
    scheduler's name of the remote where it began (`router.predictions.overflow`), "" when it began
    here or not at all. `via`: the boxes that
    the request came through (`router.loop_detection`). `secrets`, kept only until it has ended:
    the values of the inputs that `inputs` shows as REDACTED, and the context of the request
    (`router.secret_inputs`).

    A struct of msgspec's: each request makes one and two changed copies of it, and a frozen
    dataclass of so many fields takes five times as long for that.
    """

    id: str
    model: str
    inputs: Mapping[str, Json]
    created_at: float
    files: tuple[FileRef, ...] = ()
    owner: str = ""
    priority: int = 1
    durable: bool = False
    deadline_at: float | None = None
    callback: Callback | None = None
    digest: str = ""
    namespace: str = ""
    base_url: str = ""
    home: str = ""
    via: str = msgspec.field(default_factory=loop_detection.current)
    secrets: SecretValues = msgspec.field(default_factory=lambda: NO_SECRETS)
    status: Status = Status.STARTING
    started_at: float | None = None
    completed_at: float | None = None
    attempts: int = 0
    output: Json = None
    output_files: tuple[OutputFile, ...] = ()
    failure: Failure | None = None
    logs: str = ""
    metrics: Mapping[str, Json] = msgspec.field(default_factory=dict)


# Seconds among a prediction's metrics: of the run, and from its creation to its end.
TIMES = ("predict_time", "total_time")


def announced(p: Prediction) -> bool:
    """Whether its end is to be told by webhook."""
    return p.callback is not None and WebhookEvent.COMPLETED in p.callback.events


def new_id() -> str:
    """128 random bits in lower-case hex: unguessable, and safe in paths and URLs."""
    return secrets.token_hex(16)


def _require_arrow(p: Prediction, to: Status) -> None:
    if to not in TRANSITIONS[p.status]:
        raise IllegalTransition(f"prediction {p.id}: {p.status} to {to}")


def advance(p: Prediction, to: Status, now: float) -> Prediction:
    """Move `p` to a new status and stamp the time of the move.

    Raises IllegalTransition when the table has no such arrow.
    """
    _require_arrow(p, to)
    if to is Status.PROCESSING:
        return replace(p, status=to, started_at=now, attempts=p.attempts + 1)
    if to is Status.STARTING:
        return replace(p, status=to, started_at=None)
    return replace(p, status=to, completed_at=now, secrets=NO_SECRETS)


def conclude(p: Prediction, outcome: Outcome, now: float) -> Prediction:
    """The prediction with its outcome written in, `predict_time` and `total_time` in seconds
    among its metrics: a model's own of these names give way. Raises IllegalTransition."""
    _require_arrow(p, outcome.status)
    metrics = {**p.metrics, **outcome.metrics}
    if outcome.predict_time_s is not None:
        metrics["predict_time"] = outcome.predict_time_s
    metrics["total_time"] = now - p.created_at
    # One copy rather than `advance` and another: this is on every request's way.
    return replace(
        p,
        status=outcome.status,
        completed_at=now,
        output=outcome.output,
        failure=outcome.failure,
        logs=outcome.logs,
        metrics=metrics,
        secrets=NO_SECRETS,
    )
