"""A prediction on its way, and the reasons for which it is ended before its model has."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import orjson
from msgspec.structs import replace

from router.clock import Timer
from router.errors import Canceled, DeadlineExceeded, PredictionFailed, RouterError, WorkerDied
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
from router.predictions.output_files import Shelf
from router.predictions.prediction_log import (
    GAP,
    NumberedLine,
    PredictionLog,
    bounded,
    lines_since,
)
from router.secret_inputs import is_lost

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
# Of what a running prediction records; its end has all that is kept. See `custom_metrics`.
MAX_METRIC_BYTES = 256 << 10
# Of the elements of a streamed output together, as JSON: they are kept until the end.
MAX_STREAMED_BYTES = 64 << 20
# Of either, in a webhook on the way.
BRIEF_BYTES = 256 << 10
# An element that is nothing but `""` takes memory too.
ELEMENT_BYTES = 64
# A file's URL in Replicate's API, which stands in the file's place.
LINK_BYTES = 256


@dataclass(frozen=True, slots=True)
class EndReason:
    """Why a prediction is withdrawn, and how it then ends: while it waits, or while it runs."""

    failure: Failure
    waiting: Status
    running: Status


CANCELED = EndReason(
    Failure(Canceled.code, "The prediction was canceled"), Status.CANCELED, Status.CANCELED
)
# Replicate's words for `Cancel-After`: aborted before it ran, canceled while it ran.
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


@dataclass(slots=True)
class InFlight:
    """A prediction on its way. `prediction` is always its present state, `done` its end."""

    prediction: Prediction
    done: asyncio.Future[None]
    end_reason: EndReason | None = None  # overrides what the model says
    timer: Timer | None = None  # runs out when it has run too long
    deadline: Timer | None = None  # runs out when it has lived too long
    dropped_with: RouterError | None = None
    accepted: bool = False  # its caller has been, or is about to be, told that it will run
    _log: PredictionLog = field(default_factory=PredictionLog)  # while it runs
    _chunks: list[Json] = field(default_factory=list)
    _streamed_bytes: int = 0
    _shown_bytes: int = 0  # of the same in a webhook
    _metrics: dict[str, Json] = field(default_factory=dict)
    # Each with the number of output elements that came before it.
    _metric_updates: list[tuple[int, MetricUpdate]] = field(default_factory=list)
    _metric_bytes: int = 0
    _followers: set[asyncio.Future[None]] = field(default_factory=set)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    shelf: Shelf | None = None  # of the files of its output, once there is one
    version: int = 0  # counts every change that followers are told of

    def shelved(self) -> Shelf:
        """The files of its output that are in the spool."""
        if self.shelf is None:
            self.shelf = Shelf()
        return self.shelf

    def note(self, progress: Progress) -> bool:
        """Add what it has printed or put out, and wake its followers. False, and not
        added, when its output is larger than MAX_STREAMED_BYTES."""
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
        """Whether a webhook shows a URL in its place."""
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
        """It has not begun, or begins again: there is no progress yet."""
        self._log = PredictionLog()
        self._chunks.clear()
        self._streamed_bytes = self._shown_bytes = 0
        self._metrics.clear()
        self._metric_updates.clear()
        self._metric_bytes = 0

    def present(self) -> Prediction:
        """The prediction as it is now, with what it has printed, put out and recorded so far."""
        p = self.prediction
        if p.status is not Status.PROCESSING or not (self._log or self._chunks or self._metrics):
            return p
        output = list(self._chunks) if self._chunks else None
        return replace(p, output=output, logs=self._log.text(), metrics=self._metrics_so_far())

    def brief(self) -> Prediction:
        """The same for a webhook on the way, of which there may be two a second: without an
        output that is large by now, and of a long log the end."""
        if self._shown_bytes <= BRIEF_BYTES and self._log.size_bytes <= BRIEF_BYTES:
            return self.present()
        output = list(self._chunks) if self._shown_bytes <= BRIEF_BYTES else None
        logs, metrics = self._log.end(BRIEF_BYTES), self._metrics_so_far()
        return replace(self.prediction, output=output or None, logs=logs, metrics=metrics)

    def _metrics_so_far(self) -> dict[str, Json]:
        return {**self.prediction.metrics, **custom_metrics.bounded(self._metrics)[0]}

    def with_progress(self, outcome: Outcome) -> Outcome:
        """The outcome with a log that is no longer than it may be and, where the run did not
        succeed, with what it had printed, put out and recorded."""
        logs = bounded(outcome.logs)
        if logs.startswith("[callme") and GAP.fullmatch(logs):
            logs = self._log.text() or logs  # it was too long to be read from the answer
        if outcome.status is Status.SUCCEEDED:
            return outcome if logs is outcome.logs else replace(outcome, logs=logs)
        output = outcome.output if outcome.output is not None else (list(self._chunks) or None)
        metrics = outcome.metrics or self._metrics
        return replace(outcome, output=output, logs=logs or self._log.text(), metrics=metrics)

    def with_bounded_metrics(self, outcome: Outcome) -> Outcome:
        """The outcome without the metrics that are too large to be kept."""
        metrics, left_out = custom_metrics.bounded(outcome.metrics)
        if left_out:
            p = self.prediction
            fields = {"prediction": p.id, "model": p.model, "metrics": left_out[:10]}
            log.warning("metrics are too large and left out", extra=fields)
        return replace(outcome, metrics=metrics)

    def progress_since(self, outputs: int, lines: int) -> tuple[list[Json], list[NumberedLine]]:
        """What has come after so many elements of its output and so many lines of its log, each
        with the number of lines that are before it and itself."""
        p = self.prediction
        if not p.status.is_terminal:
            return self._chunks[outputs:], self._log.since(lines)
        told = self._log.since(lines)
        reached = max(lines, told[-1][0] if told else 0)
        return chunks_of(p)[outputs:], told + lines_since(p.logs, reached)

    def metrics_since(self, count: int) -> list[tuple[int, MetricUpdate]]:
        """The metrics recorded after so many, each with how much output came before it."""
        return self._metric_updates[count:]

    async def changed_since(self, version: int, timeout_s: float) -> bool:
        """Wait for progress, for another status or for the end, if there has been none since
        that version; False after so long."""
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
        """It has changed."""
        self.version += 1
        for follower in self._followers:
            _resolve(follower)
        self._followers.clear()

    def end(self) -> None:
        """It is `done`: wake whoever waits."""
        self.done.set_result(None)
        for waiter in self._waiters:
            _resolve(waiter)

    async def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or after so long. Whoever waits may leave without harm.

        A future of the waiter's own: `asyncio.wait` comes a turn of the loop later, which every
        quick prediction would pay for.
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
        """It does not run now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop_timers(self) -> None:
        """It has ended."""
        self.stop_timer()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def chunks_of(p: Prediction) -> list[Json]:
    """The elements of the output of a prediction that has ended; one that is no list is one."""
    if p.output is None:
        return []
    return p.output if isinstance(p.output, list) else [p.output]


def metrics_of(p: Prediction) -> list[tuple[int, MetricUpdate]]:
    """The model's own metrics of a prediction that has ended; when each came is not known."""
    own = {k: v for k, v in p.metrics.items() if k not in TIMES}
    return [(0, MetricUpdate(name, value)) for name, value in own.items()]


def hopeless(p: Prediction, now: float) -> tuple[Status, Failure] | None:
    """How a prediction that an earlier run of the router left behind ends without running."""
    running = p.status is Status.PROCESSING
    if p.deadline_at is not None and p.deadline_at <= now:
        return (OVERDUE.running if running else OVERDUE.waiting), OVERDUE.failure
    if is_lost(p.secrets):
        reason = "Its secret inputs cannot be read any more; send it again"
        return Status.FAILED, Failure(RouterError.code, reason)
    if running and p.attempts >= MAX_ATTEMPTS:
        reason = f"The server stopped during each of {p.attempts} attempts"
        return Status.FAILED, Failure(WorkerDied.code, reason)
    return None
