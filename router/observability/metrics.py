"""Prometheus: facts become counters and histograms, the scheduler's state becomes gauges.

Every label has few values: models are packages, routes are templates, and outcomes are statuses and
error codes. A path or an id as a label would have values without a limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from router.observability.facts import (
    Facts,
    LoadEnded,
    MemoryMoved,
    ModelChanged,
    PredictionChanged,
    PredictionRefused,
    RequestEnded,
    SleepRefused,
)
from router.prediction import Status
from router.scheduling.snapshot import STATES, Snapshot

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
        facts.add(self._note_prediction, PredictionChanged)
        facts.add(self._note_request, RequestEnded)
        facts.add(self._note_refusal, PredictionRefused)
        facts.add(self._note_model, ModelChanged)
        facts.add(self._note_move, MemoryMoved)
        facts.add(self._note_sleep_refusal, SleepRefused)
        facts.add(self._note_load, LoadEnded)

    def watch(self, models: tuple[str, ...], read: Callable[[], Snapshot]) -> None:
        """Show what `read` returns at every scrape. Also show every model's counters from 0: a
        counter that first appears at 1 has no increase for an alert to see."""
        self._gauges.read = read
        for model in models:
            for counter in (self._evictions, self._crashes, self._sleep_refusals):
                counter.add((model,), 0)
            for outcome in ("ready", "failed"):
                self._loads.add((model, outcome), 0)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        self._facts.deliver()
        return generate_latest(self.registry)

    def _note_prediction(self, fact: PredictionChanged) -> None:
        """Record the queue time when a prediction starts, and the outcome when it ends."""
        p = fact.prediction
        if p.status is Status.PROCESSING:
            if p.started_at is not None:
                self._queue_s.observe((p.model,), p.started_at - p.created_at)
        elif p.status.is_terminal:
            self._predictions.add((p.model, p.failure.code if p.failure else p.status.value))
            if p.started_at is not None and p.completed_at is not None:
                self._run_s.observe((p.model,), p.completed_at - p.started_at)

    def _note_request(self, fact: RequestEnded) -> None:
        method = fact.method if fact.method in METHODS else "other"
        self._requests.add((fact.route, method, str(fact.status)))
        self._request_s.observe((fact.route,), fact.seconds)

    def _note_refusal(self, fact: PredictionRefused) -> None:
        """A refusal is an outcome like the others, but it has no duration."""
        self._predictions.add((fact.model, fact.code))

    def _note_model(self, fact: ModelChanged) -> None:
        if fact.reason in ("crashed", "unhealthy"):
            self._crashes.add((fact.model,))
        elif fact.reason == "memory" or fact.reason.startswith("evicted"):
            self._evictions.add((fact.model,))

    def _note_move(self, fact: MemoryMoved) -> None:
        self._move_s.observe((fact.model, fact.move), fact.seconds)
        self._moved.add((fact.model, fact.move), fact.size)

    def _note_sleep_refusal(self, fact: SleepRefused) -> None:
        self._sleep_refusals.add((fact.model,))

    def _note_load(self, fact: LoadEnded) -> None:
        self._loads.add((fact.model, "ready" if fact.ready else "failed"))
        if fact.ready:  # how long a failed start took says nothing about loading
            self._load_s.observe((fact.model,), fact.seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counts:
        counts = Counts(name, text, labels)
        self.registry.register(counts)
        return counts

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Durations:
        durations = Durations(name, text, buckets, labels)
        self.registry.register(durations)
        return durations


Labels = tuple[str, ...]


class Counts(Collector):
    """A counter for each combination of label values.

    The library's own counter takes locks, as many threads may count. Here only the event loop
    counts and reads, and a prediction counts eight times: this is a fifth of the work.
    """

    def __init__(self, name: str, text: str, labels: Labels) -> None:
        self._about = (name, text, labels)
        self._counts: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Add `amount`, which is not negative, to the counter with these label values."""
        self._counts[labels] = self._counts.get(labels, 0) + amount

    def describe(self) -> list[Metric]:
        """The name, which must be the only one in the registry."""
        name, text, labels = self._about
        return [CounterMetricFamily(name, text, labels=labels)]

    def collect(self) -> Iterator[Metric]:
        """One sample per combination of label values."""
        name, text, names = self._about
        family = CounterMetricFamily(name, text, labels=names)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class Durations(Collector):
    """A histogram of seconds for each combination of label values, as `Counts` without locks.

    `bounds`: the largest value of each bucket but the last, which has none.
    """

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], labels: Labels) -> None:
        self._about = (name, text, labels)
        self._bounds = bounds
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one duration. A negative one, from a clock that was set back, counts as 0."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
        if seconds > 0.0:
            self._sums[labels] += seconds
        counts[bisect_left(self._bounds, seconds)] += 1

    def describe(self) -> list[Metric]:
        """The name, which must be the only one in the registry."""
        name, text, labels = self._about
        return [HistogramMetricFamily(name, text, labels=labels)]

    def collect(self) -> Iterator[Metric]:
        """Buckets, count and sum per combination of label values."""
        name, text, names = self._about
        family = HistogramMetricFamily(name, text, labels=names)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, counts in self._counts.items():
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        yield family


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
