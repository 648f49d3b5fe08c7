"""Traces: facts become spans.

    POST /{model}              a request: from its first byte to the end of its response
    └── prediction             from its creation to its end
        ├── prediction.files   its input files were received or fetched
        ├── prediction.queue   it waited
        │   └── model.start    meanwhile its model was started, or `model.wake`
        └── prediction.run     its model worked on it; coglet's own spans are below

Only the decision whether a request is traced is made while its caller waits. Spans are made when
facts are delivered, which is later (`router.observability.facts`). A span has no input, no output
and no text of an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from router.observability.facts import (
    Fact,
    LoadEnded,
    PredictionChanged,
    RequestEnded,
    WakeEnded,
)
from router.prediction import Prediction, Status
from router.trace_context import SAMPLED, TraceContext, new_span_id, new_trace_id

Attributes = Mapping[str, str | int | float]


class Span(Struct, frozen=True):
    """A span that has ended. Times are seconds since the epoch. `error`: a code, "" for none.
    `serves`: it is the work for a request of another program."""

    name: str
    trace: TraceContext
    began_at: float
    ended_at: float
    attributes: Attributes
    error: str = ""
    serves: bool = False


class Exporter(Protocol):
    """Where spans go."""

    def samples(self, parent: TraceContext | None, trace_id: str) -> bool:
        """Whether the spans of this trace are reported."""

    def export(self, span: Span) -> None:
        """Report the span, later and in another thread."""

    async def close(self) -> None:
        """Report what waits, as far as a few seconds allow."""


class Move(Struct, frozen=True):
    """The last start or wake of a model."""

    name: str
    began_at: float
    ended_at: float
    failed: bool


class Traces:
    """Begins a span for a request, and makes the spans of predictions from facts."""

    def __init__(self, exporter: Exporter, clock: Callable[[], float] = time.time) -> None:
        self._exporter = exporter
        self._clock = clock
        self._moves: dict[str, Move] = {}  # by model
        self._waits_since: dict[str, float] = {}  # predictions that wait again after a run
        self._runs: dict[str, Prediction] = {}  # what runs

    def begin(self, parent: TraceContext | None) -> TraceContext:
        """The span of a request: below the caller's span, or the first of a new trace."""
        trace_id = parent.trace_id if parent else new_trace_id()
        flags = parent.flags if parent else 0
        flags = flags | SAMPLED if self._exporter.samples(parent, trace_id) else flags & ~SAMPLED
        above = parent.span_id if parent else ""
        state = parent.state if parent else ""
        return TraceContext(trace_id, new_span_id(), above, flags, state, recorded=True)

    async def close(self) -> None:
        """Report what waits."""
        await self._exporter.close()

    def note(self, fact: Fact) -> None:
        """Make the spans that have ended with this fact. This is a listener of
        `router.observability.facts`."""
        match fact:
            case PredictionChanged(p):
                if is_reported(p.trace):
                    self._note_prediction(p)
            case RequestEnded():
                self._note_request(fact)
            case LoadEnded():
                self._moved(fact, "model.start")
            case WakeEnded():
                self._moved(fact, "model.wake")

    def _moved(self, fact: LoadEnded | WakeEnded, name: str) -> None:
        began_at = fact.ended_at - fact.seconds
        self._moves[fact.model] = Move(name, began_at, fact.ended_at, failed=not fact.ready)

    def _note_request(self, fact: RequestEnded) -> None:
        """A request that nobody served is no span: any program of the internet may send one."""
        if fact.trace is None or not is_reported(fact.trace) or fact.status in (401, 404, 405):
            return
        attributes: dict[str, str | int] = {
            "http.request.method": fact.method,
            "http.route": fact.route,
            "callme.request.id": fact.request_id,
        }
        if fact.status:
            attributes["http.response.status_code"] = fact.status
        error = str(fact.status) if fact.status >= 500 else "" if fact.status else "disconnected"
        self._exporter.export(
            Span(
                f"{fact.method} {fact.route}",
                fact.trace,
                fact.began_at,
                fact.began_at + fact.seconds,
                attributes,
                error,
                serves=True,
            )
        )

    def _note_prediction(self, p: Prediction) -> None:
        if p.status is Status.PROCESSING:
            self._end_queue(p, p.started_at or p.created_at)
            self._runs[p.id] = p
            return
        run = self._runs.pop(p.id, None)
        if p.status is Status.STARTING:
            if run is not None:  # its model ended, or would not take it: it waits again
                now = self._waits_since[p.id] = self._clock()
                self._end_run(run, now, "handed_back")
            return
        ended_at = p.completed_at or self._clock()
        error = "" if p.status is Status.SUCCEEDED else p.failure.code if p.failure else p.status
        if run is not None:
            self._end_run(run, ended_at, error)
        else:
            self._end_queue(p, ended_at)
        self._export("prediction", p, p.created_at, ended_at, p.own_trace, error=error)

    def _end_run(self, p: Prediction, ended_at: float, error: str) -> None:
        began_at = p.started_at or ended_at
        self._export("prediction.run", p, began_at, ended_at, p.run_trace, error=error)

    def _end_queue(self, p: Prediction, ended_at: float) -> None:
        """The spans from its creation, or from its last run, to its start or its end."""
        above = p.own_trace
        assert above is not None, "only what is traced comes here"  # noqa: S101
        again_at = self._waits_since.pop(p.id, None)
        if again_at is None and p.read_at:
            files = above.child("files")
            self._export("prediction.files", p, p.created_at, p.read_at, files)
        began_at = again_at or p.read_at or p.created_at
        queue = above.child(f"queue {began_at}")
        self._export("prediction.queue", p, began_at, ended_at, queue)
        move = self._moves.get(p.model)
        if move is not None and move.ended_at > began_at and move.began_at < ended_at:
            seconds = move.ended_at - move.began_at
            self._export(
                *(move.name, p, max(move.began_at, began_at), min(move.ended_at, ended_at)),
                queue.child(move.name),
                error="failed" if move.failed else "",
                more={"callme.model.seconds": round(seconds, 3)},  # it may have begun before
            )

    def _export(
        self,
        name: str,
        p: Prediction,
        began_at: float,
        ended_at: float,
        trace: TraceContext | None,
        *,
        error: str = "",
        more: Attributes | None = None,
    ) -> None:
        if trace is None:
            return
        attributes: dict[str, str | int | float] = {
            "callme.model": p.model,
            "callme.prediction.id": p.id,
            **(more or {}),
        }
        if name == "prediction":
            attributes["callme.prediction.status"] = p.status.value
            attributes["callme.prediction.attempts"] = p.attempts
        if p.remote_name:
            attributes["callme.remote"] = p.remote_name
        self._exporter.export(Span(name, trace, began_at, ended_at, attributes, error))


def is_reported(trace: TraceContext | None) -> bool:
    """Whether spans of this trace are reported by this router."""
    return trace is not None and trace.recorded and bool(trace.flags & SAMPLED)
