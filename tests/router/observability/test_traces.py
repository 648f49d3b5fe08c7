"""Facts become the spans of a trace, with the times of what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.observability.facts import LoadEnded, PredictionChanged, RequestEnded, WakeEnded
from router.observability.otlp import is_wanted
from router.observability.traces import Span, Traces
from router.prediction import Failure, FileRef, Prediction, Status, job_of
from router.trace_context import TraceContext

ROOT = Path(__file__).resolve().parents[3]
CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", state="a=b")
RECEIVER = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


class Kept:
    """An exporter that keeps what it gets."""

    def __init__(self, sampled: bool = True) -> None:
        self.sampled = sampled
        self.spans: list[Span] = []

    def samples(self, parent: TraceContext | None, trace_id: str) -> bool:
        """What the test says."""
        return self.sampled

    def export(self, span: Span) -> None:
        """Keep it."""
        self.spans.append(span)

    async def close(self) -> None:
        """Nothing waits."""

    def times(self) -> dict[str, tuple[float, float]]:
        """Begin and end by name."""
        return {s.name: (s.began_at, s.ended_at) for s in self.spans}

    def above(self, name: str) -> str:
        """The name of the span above this one."""
        (span,) = [s for s in self.spans if s.name == name]
        return {s.trace.span_id: s.name for s in self.spans}.get(span.trace.parent_id, "")


def waiting(traces: Traces) -> Prediction:
    """A prediction with a file, of a request that continues the caller's trace."""
    files = (FileRef("image", "/spool/a", "a.png"),)
    trace = traces.begin(CALLER)
    return Prediction("p1", "echo", {}, 10.0, files=files, read_at=11.0, trace=trace)


def started(p: Prediction, at: float) -> Prediction:
    """It runs."""
    return replace(p, status=Status.PROCESSING, started_at=at, attempts=p.attempts + 1)


def ended(p: Prediction, at: float) -> Prediction:
    """It has succeeded."""
    return replace(p, status=Status.SUCCEEDED, completed_at=at)


def test_the_trace_of_a_prediction() -> None:
    """Files, queue, the start meanwhile, and the run; the ids are those that coglet was sent."""
    kept = Kept()
    traces = Traces(kept)
    p = waiting(traces)
    assert p.trace is not None
    assert (p.trace.trace_id, p.trace.parent_id) == (CALLER.trace_id, CALLER.span_id)
    running = started(p, 20.0)
    job = job_of(running)
    for fact in (
        PredictionChanged(p),
        LoadEnded("other", 3.0, ready=True, ended_at=15.0),
        LoadEnded("echo", 12.0, ready=True, ended_at=19.0),  # it began before the prediction
        PredictionChanged(running),
        PredictionChanged(ended(running, 25.0)),
        RequestEnded("POST", "/{model}", 200, 16.0, "/echo", "id1", p.trace, 9.5),
    ):
        traces.note(fact)
    assert kept.times() == {
        "prediction.files": (10.0, 11.0),
        "prediction.queue": (11.0, 20.0),
        "model.start": (11.0, 19.0),
        "prediction.run": (20.0, 25.0),
        "prediction": (10.0, 25.0),
        "POST /{model}": (9.5, 25.5),
    }
    assert kept.above("prediction") == "POST /{model}"
    assert kept.above("model.start") == "prediction.queue"
    for name in ("prediction.files", "prediction.queue", "prediction.run"):
        assert kept.above(name) == "prediction", name
    (run,) = [s for s in kept.spans if s.name == "prediction.run"]
    assert job.trace is not None
    assert job.trace.headers == {
        "traceparent": f"00-{CALLER.trace_id}-{run.trace.span_id}-01",
        "tracestate": "a=b",
    }
    assert len({s.trace.span_id for s in kept.spans}) == 6
    assert not [s for s in kept.spans if s.error]
    assert "a.png" not in str(kept.spans)


@pytest.mark.parametrize("ready", [True, False])
def test_a_run_that_is_handed_back_is_a_span_of_its_own(ready: bool) -> None:
    """The prediction waits again from then on, is woken for, and runs under another id."""
    kept = Kept()
    traces = Traces(kept, clock=lambda: 30.0)
    p = waiting(traces)
    first = started(p, 20.0)
    # The attempt does not count, so the second run has the same number.
    again = replace(first, status=Status.STARTING, started_at=None, attempts=0)
    second = started(again, 40.0)
    for fact in (
        PredictionChanged(p),
        PredictionChanged(first),
        PredictionChanged(again),
        WakeEnded("echo", 5.0, ready, 39.0),
        PredictionChanged(second),
        PredictionChanged(ended(second, 50.0)),
    ):
        traces.note(fact)
    runs = [s for s in kept.spans if s.name == "prediction.run"]
    assert [(s.began_at, s.ended_at, s.error) for s in runs] == [
        (20.0, 30.0, "handed_back"),
        (40.0, 50.0, ""),
    ]
    assert runs[0].trace.span_id != runs[1].trace.span_id
    queues = [(s.began_at, s.ended_at) for s in kept.spans if s.name == "prediction.queue"]
    assert queues == [(11.0, 20.0), (30.0, 40.0)]
    (wake,) = [s for s in kept.spans if s.name == "model.wake"]
    assert (wake.began_at, wake.ended_at, wake.error) == (34.0, 39.0, "" if ready else "failed")


def test_what_fails_has_its_code_and_no_text() -> None:
    """One that never ran has a queue and no run."""
    kept = Kept()
    traces = Traces(kept)
    p = waiting(traces)
    failure = Failure("model_unavailable", "secret text")
    for fact in (
        PredictionChanged(p),
        PredictionChanged(replace(p, status=Status.FAILED, completed_at=12.0, failure=failure)),
        RequestEnded("POST", "/{model}", 503, 2.0, "/echo", "id1", p.trace, 10.0),
    ):
        traces.note(fact)
    assert {s.name: s.error for s in kept.spans} == {
        "prediction.files": "",
        "prediction.queue": "",
        "prediction": "model_unavailable",
        "POST /{model}": "503",
    }
    assert "secret text" not in str(kept.spans)


def test_what_is_not_sampled_or_not_served_is_no_span() -> None:
    """A trace that the sampler drops, and requests that any program of the internet may send."""
    kept = Kept(sampled=False)
    traces = Traces(kept)
    p = waiting(traces)
    assert p.trace is not None
    assert p.trace.header.endswith("-00")
    for fact in (PredictionChanged(p), PredictionChanged(ended(started(p, 20.0), 25.0))):
        traces.note(fact)
    traces.note(RequestEnded("POST", "/{model}", 200, 1.0, "/echo", "id1", p.trace, 10.0))
    kept.sampled = True
    new = traces.begin(None)
    for status in (401, 404, 405):
        traces.note(RequestEnded("POST", "/{model}", status, 1.0, "/x", "id1", new, 10.0))
    traces.note(RequestEnded("POST", "/{model}", 200, 1.0, "/echo", "id1", CALLER, 0.0))
    assert kept.spans == []
    assert (new.parent_id, new.flags) == ("", 1)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        (RECEIVER, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**RECEIVER, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({**RECEIVER, "OTEL_SDK_DISABLED": "true"}, False),
        ({**RECEIVER, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**RECEIVER, "OTEL_TRACES_EXPORTER": "console,otlp"}, True),
    ],
)
def test_only_a_receiver_turns_traces_on(env: dict[str, str], wanted: bool) -> None:
    """As the variables are specified, and as coglet reads them."""
    assert is_wanted(env) is wanted


@pytest.mark.slow
def test_nothing_is_imported_when_traces_are_off() -> None:
    """The whole application, without one module of OpenTelemetry's SDK."""
    code = (
        "import sys\n"
        "from router.app import create_app\n"
        "create_app()\n"
        "found = [m for m in sys.modules if m.startswith('opentelemetry.')]\n"
        "print([m for m in found if 'sdk' in m or 'exporter' in m or 'proto' in m])"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
