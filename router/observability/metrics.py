"""Prometheus: facts become counters and histograms, the scheduler's state becomes gauges.

Every label has few values: models are packages, routes are templates, and outcomes are statuses and
error codes. A path or an id as a label would have values without a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from router.observability.facts import (
    Fact,
    Facts,
    LoadEnded,
    MemoryMoved,
    ModelChanged,
    PredictionChanged,
    PredictionRefused,
    RequestEnded,
    SleepRefused,
)
from router.prediction import Prediction, Status
from router.scheduling.snapshot import STATES, Snapshot

M = TypeVar("M", bound=MetricWrapperBase)
# For runs and queue times: from a small model that is ready, up to the time limit. A load may
# include a download.
RUN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
MOVE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LOAD_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 90)
# Any other method is made up by a client, and is counted as "other".
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class PrometheusMetrics:
    """The metrics of one router. It has its own registry, so that one process can have two
    routers."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._gauges = Gauges()
        self.registry.register(self._gauges)
        self._predictions = self._counter(
            "callme_predictions_total", "Predictions that ended or were refused", "model", "outcome"
        )
        self._run_s = self._histogram(
            "callme_prediction_seconds", "Time from start to end", RUN_BUCKETS_S, "model"
        )
        self._queue_s = self._histogram(
            "callme_queue_seconds", "Time from creation to start", RUN_BUCKETS_S, "model"
        )
        self._loads = self._counter(
            "callme_model_loads_total", "Starts that ended", "model", "outcome"
        )
        self._load_s = self._histogram(
            "callme_model_load_seconds", "Time of starts that succeeded", LOAD_BUCKETS_S, "model"
        )
        self._evictions = self._counter(
            "callme_model_evictions_total", "Stops or sleeps to make room", "model"
        )
        self._move_s = self._histogram(
            "callme_model_move_seconds",
            "Time to copy, free or fill memory",
            MOVE_BUCKETS_S,
            "model",
            "move",
        )
        self._moved = self._counter(
            "callme_model_moved_bytes_total", "Bytes copied, freed or filled", "model", "move"
        )
        self._sleep_refusals = self._counter(
            "callme_model_sleep_refusals_total", "Sleeps and copies that were refused", "model"
        )
        self._crashes = self._counter("callme_model_crashes_total", "Unexpected ends", "model")
        self._requests = self._counter(
            "callme_http_requests_total", "HTTP requests answered", "route", "method", "status"
        )
        self._request_s = self._histogram(
            "callme_http_request_seconds", "Time to the response's end", REQUEST_BUCKETS_S, "route"
        )
        facts.add(self.note)

    def watch(self, models: tuple[str, ...], read: Callable[[], Snapshot]) -> None:
        """Show what `read` returns at every scrape. Also show every model's counters from 0: a
        counter that first appears at 1 has no increase for an alert to see."""
        self._gauges.read = read
        for model in models:
            self._evictions.labels(model)
            self._crashes.labels(model)
            self._sleep_refusals.labels(model)
            for outcome in ("ready", "failed"):
                self._loads.labels(model, outcome)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        self._facts.deliver()
        return generate_latest(self.registry)

    def note(self, fact: Fact) -> None:
        """Count a fact. This is a listener of `router.observability.facts`."""
        match fact:
            case PredictionChanged():
                self._note_prediction(fact.prediction)
            case RequestEnded():
                known = fact.method if fact.method in METHODS else "other"
                self._requests.labels(fact.route, known, str(fact.status)).inc()
                self._request_s.labels(fact.route).observe(fact.seconds)
            case PredictionRefused():
                # A refusal is an outcome like the others, but it has no duration.
                self._predictions.labels(fact.model, fact.code).inc()
            case ModelChanged():
                if fact.reason in ("crashed", "unhealthy"):
                    self._crashes.labels(fact.model).inc()
                elif fact.reason == "memory" or fact.reason.startswith("evicted"):
                    self._evictions.labels(fact.model).inc()
            case MemoryMoved():
                self._move_s.labels(fact.model, fact.move).observe(fact.seconds)
                self._moved.labels(fact.model, fact.move).inc(fact.size)
            case SleepRefused():
                self._sleep_refusals.labels(fact.model).inc()
            case LoadEnded():
                self._loads.labels(fact.model, "ready" if fact.ready else "failed").inc()
                if fact.ready:  # how long a failed start took says nothing about loading
                    self._load_s.labels(fact.model).observe(fact.seconds)

    def _note_prediction(self, p: Prediction) -> None:
        """Record the queue time when a prediction starts, and the outcome when it ends."""
        if p.status is Status.PROCESSING and p.started_at is not None:
            self._queue_s.labels(p.model).observe(max(p.started_at - p.created_at, 0.0))
        elif p.status.is_terminal:
            outcome = p.status.value if p.failure is None else p.failure.code
            self._predictions.labels(p.model, outcome).inc()
            if p.started_at is not None and p.completed_at is not None:
                self._run_s.labels(p.model).observe(max(p.completed_at - p.started_at, 0.0))

    def _counter(self, name: str, text: str, *labels: str) -> Family[Counter]:
        return Family(Counter(name, text, labels, registry=self.registry))

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Family[Histogram]:
        return Family(Histogram(name, text, labels, buckets=buckets, registry=self.registry))


class Family(Generic[M]):
    """A metric, with its children cached by their labels. The library's own look-up of a child
    takes a lock and some µs, and each prediction needs five."""

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def labels(self, *values: str) -> M:
        """The child with these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class Gauges(Collector):
    """Reads the scheduler's state at each scrape, so that no copy of it can be stale."""

    def __init__(self) -> None:
        self.read: Callable[[], Snapshot] | None = None

    def describe(self) -> list[Metric]:
        """Empty, so that registering does not read the scheduler before it exists."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One sample per model, one per model and state, and one for the memory budget."""
        if self.read is None:
            return
        snapshot = self.read()
        depth = _gauge("callme_queue_depth", "Predictions waiting", "model")
        running = _gauge("callme_running", "Predictions running", "model")
        memory = _gauge("callme_model_memory_bytes", "Memory held for the model", "model")
        copies = _gauge("callme_model_copies_bytes", "Main memory of the model's copies", "model")
        state = _gauge("callme_model_state", "1 for the model's present state", "model", "state")
        for m in snapshot.models.values():
            depth.add_metric([m.name], len(m.queue))
            running.add_metric([m.name], len(m.running))
            memory.add_metric([m.name], m.memory_bytes)
            copies.add_metric([m.name], m.host_bytes)
            for name in STATES:
                state.add_metric([m.name, name], float(name == m.state))
        budget = _gauge("callme_memory_budget_bytes", "What models may use together")
        budget.add_metric([], snapshot.budget_bytes)
        may_copy = _gauge("callme_copies_budget_bytes", "Main memory that all copies may take")
        may_copy.add_metric([], snapshot.host_budget_bytes)
        yield from (depth, running, memory, copies, state, budget, may_copy)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)
