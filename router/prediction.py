"""A prediction and its statuses. All status changes happen in `advance` and `conclude`.

Two rules: a prediction is immutable, so each change makes a new value; and a change that is not in
TRANSITIONS raises and has no effect.

    starting ──▶ processing ──▶ succeeded | failed | canceled
        │            │
        │            └──▶ starting        waits again: its run did not begin, or its remote or
        │                                 the router itself was lost
        └──▶ failed | canceled | aborted  ended before it ran
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

from router import loop_detection
from router.secret_inputs import NO_SECRETS, SecretValues, opened
from router.trace_context import TraceContext

Json = Any  # a JSON value; Python's type system cannot describe it usefully
# The keys and indexes that lead to a value in JSON; () leads to the complete value.
JsonPath = tuple[str | int, ...]


class Status(StrEnum):
    """A prediction's status, by Replicate's names."""

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


# Tuples, not sets: Python computes the hash of an enum member in Python code, and these are read
# often.
TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    Status.STARTING: (Status.PROCESSING, Status.FAILED, Status.CANCELED, Status.ABORTED),
    Status.PROCESSING: (Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.STARTING),
    Status.SUCCEEDED: (),
    Status.FAILED: (),
    Status.CANCELED: (),
    Status.ABORTED: (),
}


class IllegalTransition(Exception):
    """A status change that TRANSITIONS does not allow. The prediction is unchanged."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file in the spool.

    `field`: the name of its input (if `in_list`, the file is one element of that), or of its form
    field. `path`: where the router stored it. `name`: the client's name for it, which is never used
    as a path. `media_type`: as the form gave it, "" when it gave none.
    """

    field: str
    path: str
    name: str
    in_list: bool = False
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of an output. `place`: where it is in the output. `path`: where the router stored
    it. `name`: the last part of its URL, unique within the prediction. `media_type`: as the model's
    server gave it, "" when it gave none."""

    place: JsonPath
    path: str
    name: str
    media_type: str
    size_bytes: int

    def ref(self) -> FileRef:
        """The reference that the spool uses."""
        return FileRef("", self.path, self.name)


@dataclass(frozen=True, slots=True)
class Job:
    """The input of one run of a model. File inputs are in `files`, all others in `inputs`. `via`:
    the boxes that the request came through. `context`: the runner reads it as
    `current_scope().context`. `trace`: the span of the run."""

    id: str
    inputs: Mapping[str, Json] = field(repr=False)  # includes secret values
    files: tuple[FileRef, ...] = ()
    via: str = ""
    context: Mapping[str, str] = field(default_factory=dict, repr=False)
    trace: TraceContext | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a prediction did not succeed. `code`: of `router.errors`. `retry_after_s`: after so many
    seconds another try may succeed, None when that is not known."""

    code: str
    message: str
    details: Mapping[str, Json] | None = None
    retry_after_s: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt at a prediction ended. `status` is terminal. `metrics`: the model's own.
    `refused`: its remote takes none now, and has begun nothing; `missing`: because it says that it
    does not have the model."""

    status: Status
    output: Json = None
    failure: Failure | None = None
    logs: str = ""
    predict_time_s: float | None = None
    metrics: Mapping[str, Json] = msgspec.field(default_factory=dict)
    refused: bool = False
    missing: bool = False


@dataclass(frozen=True, slots=True)
class LogText:
    """One or more lines that a running prediction printed, with their line ends. `source`: `stdout`
    or `stderr`."""

    text: str
    source: str = "stdout"


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """One element of the output of a model that streams. `size_bytes`: its size as JSON, 0 when it
    is not known."""

    value: Json
    size_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class MetricUpdate:
    """A metric that a running prediction recorded. A dot in `name` means an object. `mode` is
    `replace`, `increment` or `append`."""

    name: str
    value: Json
    mode: str = "replace"


Progress = LogText | OutputChunk | MetricUpdate


class WebhookEvent(StrEnum):
    """The events for which a webhook is sent. Cog and Replicate have the first four; the others are
    sent only to receivers that name them. `progress`: how far a run is, and the end of its log.
    `files`: the output has files, before `completed`; the answer says where to upload them."""

    START = "start"
    OUTPUT = "output"
    LOGS = "logs"
    COMPLETED = "completed"
    PROGRESS = "progress"
    FILES = "files"


DEFAULT_EVENTS = (
    WebhookEvent.START,
    WebhookEvent.OUTPUT,
    WebhookEvent.LOGS,
    WebhookEvent.COMPLETED,
)


@dataclass(frozen=True, slots=True)
class Callback:
    """The webhook of a prediction: its URL, and the events that are sent to it."""

    url: str
    events: tuple[str, ...] = DEFAULT_EVENTS


@dataclass(frozen=True, slots=True)
class Delivery:
    """A `completed` webhook that has not been delivered. `attempts`: the failed tries so far.
    `due_at`: when it is tried next, in seconds since the epoch."""

    prediction_id: str
    attempts: int
    due_at: float


class Prediction(msgspec.Struct, frozen=True):
    """One request to one model. Times are seconds since the epoch.

    `digest`: a hash of the inputs as they were sent, by which idempotent requests are compared.
    `namespace`: the owner in Replicate's `owner/name`; `base_url`: the address at which the client
    reached the router; both are only shown again. `output_files`: the files that are not in
    `output`, which has null in their places. `remote_name`: the remote where it began, by the
    scheduler's name for it; "" when it began here or not at all. `via`: the boxes
    that the request came through (`router.loop_detection`). `secrets`: the values of the inputs
    that are REDACTED in `inputs`, and the request's context (`router.secret_inputs`); kept only
    until it ends. `read_at`: when its inputs had been read, 0 if that took no time. `trace`: the
    span of its request, None when it belongs to no trace.

    This is a msgspec struct: each request makes one and two changed copies, and a frozen dataclass
    with so many fields takes five times as long for that.
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
    remote_name: str = msgspec.field(default="", name="home")  # its name in stored documents
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
    read_at: float = 0.0
    trace: TraceContext | None = None

    @property
    def own_trace(self) -> TraceContext | None:
        """Its span, from its creation to its end. It is below the request's."""
        return self.trace.child(f"prediction {self.id}") if self.trace else None

    @property
    def run_trace(self) -> TraceContext | None:
        """The span of its present run. Each run has one of its own."""
        own = self.own_trace
        return own.child(f"run {self.started_at}") if own else None


# The times among a prediction's metrics, in seconds: of the run, and from its creation to its end.
TIMES = ("predict_time", "total_time")


def job_of(p: Prediction) -> Job:
    """What its model is to run: with the values of its secret inputs."""
    inputs, context = opened(p.inputs, p.secrets)
    return Job(p.id, inputs, p.files, p.via, context, p.run_trace)


def model_of(version: str) -> str:
    """The model of a version's name: `caption` of `caption@next`, and of `caption`."""
    return version.partition("@")[0]


def announced(p: Prediction) -> bool:
    """Whether a webhook is sent at its end."""
    return p.callback is not None and WebhookEvent.COMPLETED in p.callback.events


def new_id() -> str:
    """128 random bits in lower-case hex: unguessable, and safe in paths and URLs."""
    return os.urandom(16).hex()  # as secrets.token_hex, without its six steps


def _require_arrow(p: Prediction, to: Status) -> None:
    if to not in TRANSITIONS[p.status]:
        raise IllegalTransition(f"prediction {p.id}: {p.status} to {to}")


def advance(p: Prediction, to: Status, now: float) -> Prediction:
    """Change the status of `p` at `now`, in seconds since the epoch.

    Raises IllegalTransition when TRANSITIONS does not allow it.
    """
    _require_arrow(p, to)
    if to is Status.PROCESSING:
        return replace(p, status=to, started_at=now, attempts=p.attempts + 1)
    if to is Status.STARTING:
        return replace(p, status=to, started_at=None)
    return replace(p, status=to, completed_at=now, secrets=NO_SECRETS)


def conclude(p: Prediction, outcome: Outcome, now: float) -> Prediction:
    """The ended prediction with its outcome. `predict_time` and `total_time`, in seconds, replace
    the model's own metrics of these names. Raises IllegalTransition as `advance` does."""
    _require_arrow(p, outcome.status)
    metrics = {**p.metrics, **outcome.metrics}
    if outcome.predict_time_s is not None:
        metrics["predict_time"] = outcome.predict_time_s
    metrics["total_time"] = now - p.created_at
    # One copy, instead of a second one by `advance`: every request makes this one.
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
