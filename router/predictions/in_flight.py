"""A prediction that has not ended, and the reasons to end it before its model does."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass, field

import orjson
from msgspec.structs import replace

from router.clock import Timer
from router.errors import (
    Canceled,
    DeadlineExceeded,
    PredictionFailed,
    RouterError,
    WorkerDied,
)
from router.prediction import (
    TIMES,
    Failure,
    Json,
    LogText,
    MetricUpdate,
    Outcome,
    OutputChunk,
    Prediction,
    Progress,
    Status,
)
from router.predictions import custom_metrics
from router.predictions.output_files import StoredOutputs
from router.predictions.prediction_log import (
    GAP,
    NumberedLine,
    PredictionLog,
    bounded,
    lines_since,
)
from router.predictions.worker_death import MAX_ATTEMPTS
from router.secret_inputs import is_lost

log = logging.getLogger(__name__)

# The shortest wait before a prediction that its remote refused is submitted again.
REFUSED_AGAIN_S = 5.0
# If a remote asks for a longer wait, the prediction fails instead: this is no short outage.
REFUSED_LONGEST_S = 300.0
# All metrics that a running prediction records, together. Its final metrics are bounded by
# `custom_metrics.MAX_BYTES`.
MAX_METRIC_BYTES = 256 << 10
# All elements of a streamed output together, as JSON: they are kept in memory until the end.
MAX_STREAMED_BYTES = 64 << 20
# Limit for the output, and for the log, in a webhook that is sent before the end.
BRIEF_BYTES = 256 << 10
# Added to the size of each element, because even `""` takes memory.
ELEMENT_BYTES = 64
# The assumed length of a file's URL, which Replicate's API shows in place of the file.
LINK_BYTES = 256


@dataclass(frozen=True, slots=True)
class EndReason:
    """Why a prediction is ended before its model does. Its final status is `waiting` if it waits at
    that moment, `running` if it runs."""

    failure: Failure
    waiting: Status
    running: Status


CANCELED = EndReason(
    Failure(Canceled.code, "The prediction was canceled"), Status.CANCELED, Status.CANCELED
)
# The statuses are those of Replicate's `Cancel-After`: aborted before it ran, canceled while it
# ran.
OVERDUE = EndReason(
    Failure(DeadlineExceeded.code, "The prediction did not end before its deadline"),
    Status.ABORTED,
    Status.CANCELED,
)
TOO_LARGE = EndReason(
    Failure(
        PredictionFailed.code, f"The model's output is larger than {MAX_STREAMED_BYTES >> 20} MiB"
    ),
    Status.FAILED,
    Status.FAILED,
)


@functools.cache
def too_long(limit_s: float) -> EndReason:
    """It ran for longer than its time limit."""
    failure = Failure(DeadlineExceeded.code, f"The prediction took longer than {limit_s:.0f} s")
    return EndReason(failure, Status.ABORTED, Status.FAILED)


@dataclass(slots=True)
class InFlight:
    """A prediction that has not ended. `prediction` is always its present state; `done` is resolved
    when it has ended."""

    prediction: Prediction
    done: asyncio.Future[None]
    end_reason: EndReason | None = None  # overrides the model's own result
    timer: Timer | None = None  # fires when it has run for too long
    deadline: Timer | None = None  # fires at its deadline
    dropped_with: RouterError | None = None
    accepted: bool = False  # its caller has been or will be notified that it will run
    _log: PredictionLog = field(default_factory=PredictionLog)  # while it runs
    _chunks: list[Json] = field(default_factory=list)
    _streamed_bytes: int = 0
    _shown_bytes: int = 0  # the size of the chunks in a webhook
    _metrics: dict[str, Json] = field(default_factory=dict)
    # Each with the number of output elements that came before it.
    _metric_updates: list[tuple[int, MetricUpdate]] = field(default_factory=list)
    _metric_bytes: int = 0
    _followers: set[asyncio.Future[None]] = field(default_factory=set)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    stored_outputs: StoredOutputs | None = None  # the files of its output, once it has one
    version: int = 0  # counts every change that wakes followers

    def try_again_s(self, outcome: Outcome) -> float | None:
        """Seconds until it is submitted again after its remote has refused it for now; None if it
        is not. Only a durable one is, whose caller does not wait for a response, and only if the
        remote asks for a wait of at most REFUSED_LONGEST_S."""
        if not outcome.refused or not self.prediction.durable or self.end_reason is not None:
            return None
        asked_s = (outcome.failure.retry_after_s if outcome.failure else None) or 0.0
        return max(asked_s, REFUSED_AGAIN_S) if asked_s <= REFUSED_LONGEST_S else None

    def ensure_stored_outputs(self) -> StoredOutputs:
        """Its `stored_outputs`, made when there are none yet."""
        if self.stored_outputs is None:
            self.stored_outputs = StoredOutputs()
        return self.stored_outputs

    def note(self, progress: Progress) -> bool:
        """Add a part of its log, output or metrics, and wake its followers. False when the output
        would be larger than MAX_STREAMED_BYTES; then nothing is added."""
        match progress:
            case LogText():
                self._log.add(progress)
            case OutputChunk(value):
                size = progress.size_bytes or len(orjson.dumps(value))
                self._streamed_bytes += size + ELEMENT_BYTES
                if self._streamed_bytes > MAX_STREAMED_BYTES:
                    return False
                self._chunks.append(value)
                self._shown_bytes += LINK_BYTES if self._is_link(value) else size + ELEMENT_BYTES
            case MetricUpdate():
                self._note_metric(progress)
        self.wake_followers()
        return True

    def _is_link(self, value: Json) -> bool:
        """Whether a webhook shows a URL in place of the value."""
        is_file = isinstance(value, str) and value.startswith("data:")
        return is_file and bool(self.prediction.namespace)

    def _note_metric(self, update: MetricUpdate) -> None:
        size = custom_metrics.size_bytes(update.value)
        if size is None or self._metric_bytes + size + len(update.name) > MAX_METRIC_BYTES:
            return
        self._metric_bytes += size + len(update.name)
        self._metric_updates.append((len(self._chunks), update))
        custom_metrics.apply(self._metrics, update)

    def restart(self) -> None:
        """Forget all progress: the prediction has not begun, or begins again."""
        self._log = PredictionLog()
        self._chunks.clear()
        self._streamed_bytes = self._shown_bytes = 0
        self._metrics.clear()
        self._metric_updates.clear()
        self._metric_bytes = 0

    def present(self) -> Prediction:
        """The prediction now, with the log, output and metrics so far."""
        p = self.prediction
        if p.status is not Status.PROCESSING or not (self._log or self._chunks or self._metrics):
            return p
        output = list(self._chunks) if self._chunks else None
        return replace(p, output=output, logs=self._log.text(), metrics=self._metrics_so_far())

    def brief(self) -> Prediction:
        """The prediction for a webhook before its end, of which there may be two a second. An
        output over BRIEF_BYTES is left out, and of a log over BRIEF_BYTES only the end is in it."""
        if self._shown_bytes <= BRIEF_BYTES and self._log.size_bytes <= BRIEF_BYTES:
            return self.present()
        output = list(self._chunks) if self._shown_bytes <= BRIEF_BYTES else None
        logs, metrics = self._log.end(BRIEF_BYTES), self._metrics_so_far()
        return replace(self.prediction, output=output or None, logs=logs, metrics=metrics)

    def _metrics_so_far(self) -> dict[str, Json]:
        return {**self.prediction.metrics, **custom_metrics.bounded(self._metrics)[0]}

    def with_progress(self, outcome: Outcome) -> Outcome:
        """The outcome with its log cut to the limits. If the run did not succeed, what the outcome
        lacks of output, log and metrics is filled in from the progress so far."""
        logs = bounded(outcome.logs)
        if logs.startswith("[callme") and GAP.fullmatch(logs):
            logs = self._log.text() or logs  # the response held only a gap: its log was too long
        if outcome.status is Status.SUCCEEDED:
            return outcome if logs is outcome.logs else replace(outcome, logs=logs)
        output = outcome.output if outcome.output is not None else (list(self._chunks) or None)
        metrics = outcome.metrics or self._metrics
        return replace(outcome, output=output, logs=logs or self._log.text(), metrics=metrics)

    def with_bounded_metrics(self, outcome: Outcome) -> Outcome:
        """The outcome without the metrics that are too large to keep. Those are logged."""
        metrics, left_out = custom_metrics.bounded(outcome.metrics)
        if left_out:
            p = self.prediction
            fields = {"prediction": p.id, "model": p.model, "metrics": left_out[:10]}
            log.warning("metrics are too large and left out", extra=fields)
        return replace(outcome, metrics=metrics)

    def progress_since(self, outputs: int, lines: int) -> tuple[list[Json], list[NumberedLine]]:
        """The output elements after the first `outputs`, and the log lines after the first `lines`.
        Each line has its number, counted from 1."""
        p = self.prediction
        if not p.status.is_terminal:
            return self._chunks[outputs:], self._log.since(lines)
        logged = self._log.since(lines)
        reached = max(lines, logged[-1][0] if logged else 0)
        return chunks_of(p)[outputs:], logged + lines_since(p.logs, reached)

    def metrics_since(self, count: int) -> list[tuple[int, MetricUpdate]]:
        """The metric updates after the first `count`, each with the number of output elements that
        came before it."""
        return self._metric_updates[count:]

    async def changed_since(self, version: int, timeout_s: float) -> bool:
        """Wait for a newer version than `version`: for progress, another status or the end. False
        when nothing changed within `timeout_s`."""
        if self.version != version or self.done.done():
            return True
        follower: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers.add(follower)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait({follower, self.done}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return False
        finally:
            self._followers.discard(follower)
        return True

    def wake_followers(self) -> None:
        """Count a change and wake all followers."""
        self.version += 1
        for follower in self._followers:
            _resolve(follower)
        self._followers.clear()

    def end(self) -> None:
        """Resolve `done` and wake all waiters."""
        self.done.set_result(None)
        for waiter in self._waiters:
            _resolve(waiter)

    async def wait(self, timeout_s: float) -> None:
        """Return when the prediction has ended, or after `timeout_s`. A waiter may be cancelled.

        Each waiter has a future of its own. `asyncio.wait` would return one turn of the event loop
        later, which every quick prediction would pay for.
        """
        if self.done.done():
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(timeout_s, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.remove(waiter)

    def stop_timer(self) -> None:
        """Stop the time limit: the prediction does not run now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop_timers(self) -> None:
        """Stop the time limit and the deadline: the prediction has ended."""
        self.stop_timer()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def chunks_of(p: Prediction) -> list[Json]:
    """The elements of an ended prediction's output. An output that is not a list is one element."""
    if p.output is None:
        return []
    return p.output if isinstance(p.output, list) else [p.output]


def metrics_of(p: Prediction) -> list[tuple[int, MetricUpdate]]:
    """The model's own metrics of an ended prediction, as updates. When each was recorded is not
    known any more, so each has 0 output elements before it."""
    own = {k: v for k, v in p.metrics.items() if k not in TIMES}
    return [(0, MetricUpdate(name, value)) for name, value in own.items()]


def hopeless(p: Prediction, now: float) -> tuple[Status, Failure] | None:
    """The final status and failure of an unfinished prediction that must not run again after a
    restart of the router; None when it may run."""
    running = p.status is Status.PROCESSING
    if p.deadline_at is not None and p.deadline_at <= now:
        return (OVERDUE.running if running else OVERDUE.waiting), OVERDUE.failure
    if is_lost(p.secrets):
        reason = "Its secret inputs cannot be read any more; send it again"
        return Status.FAILED, Failure(RouterError.code, reason)
    if running and p.attempts >= MAX_ATTEMPTS:
        reason = f"The server stopped during the last of {p.attempts} attempts"
        return Status.FAILED, Failure(WorkerDied.code, reason)
    return None
