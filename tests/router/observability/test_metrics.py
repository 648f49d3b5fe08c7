"""Facts arrive in the exposition under names that a dashboard can rely on."""

from __future__ import annotations

import re

from msgspec.structs import replace
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from router.observability.facts import (
    Facts,
    LoadEnded,
    ModelChanged,
    PredictionChanged,
    PredictionRefused,
    RequestEnded,
)
from router.observability.metrics import REQUEST_BUCKETS_S, PrometheusMetrics
from router.prediction import Failure, Prediction, Status
from router.scheduling import messages as msg
from router.scheduling.scheduler import Policy, Scheduler

WAITING = Prediction("a", "echo", {}, created_at=10.0)
RUNNING = replace(WAITING, status=Status.PROCESSING, started_at=12.0)
DONE = replace(RUNNING, status=Status.SUCCEEDED, completed_at=12.5)


def sample(metrics: PrometheusMetrics, name: str, **labels: str) -> float | None:
    """One value as a scrape would find it."""
    return metrics.registry.get_sample_value(name, labels)


def test_a_predictions_way() -> None:
    """Its wait is counted at its start, its run and outcome at its end."""
    facts = Facts(delay_s=0)
    metrics = PrometheusMetrics(facts)
    for p in (WAITING, RUNNING, DONE):
        facts.tell(PredictionChanged(p))
    assert sample(metrics, "callme_queue_seconds_sum", model="echo") == 2.0
    assert sample(metrics, "callme_prediction_seconds_sum", model="echo") == 0.5
    outcome = {"model": "echo", "outcome": "succeeded"}
    assert sample(metrics, "callme_predictions_total", **outcome) == 1.0


def test_outcomes_are_statuses_or_error_codes() -> None:
    """A failure by its code, a refusal too; one that never ran has no duration."""
    facts = Facts(delay_s=0)
    metrics = PrometheusMetrics(facts)
    failed = replace(DONE, status=Status.FAILED, failure=Failure("worker_died", "It died"))
    facts.tell(PredictionChanged(failed))
    withdrawn = replace(WAITING, status=Status.CANCELED, completed_at=11.0)
    facts.tell(PredictionChanged(withdrawn))
    facts.tell(PredictionRefused("echo", "queue_full"))
    for outcome in ("worker_died", "canceled", "queue_full"):
        labels = {"model": "echo", "outcome": outcome}
        assert sample(metrics, "callme_predictions_total", **labels) == 1.0, outcome
    assert sample(metrics, "callme_prediction_seconds_count", model="echo") == 1.0


def test_models() -> None:
    """Loads by outcome, stops by reason; counters are there before anything has happened."""
    facts = Facts(delay_s=0)
    metrics = PrometheusMetrics(facts)
    metrics.watch(("echo",), lambda: Scheduler({"echo": 1}, 0).snapshot(0.0))
    assert sample(metrics, "callme_model_crashes_total", model="echo") == 0.0
    facts.tell(LoadEnded("echo", 3.0, ready=True))
    facts.tell(LoadEnded("echo", 9.0, ready=False))
    for reason in ("idle", "crashed", "evicted for parrot", "memory", "shutdown"):
        facts.tell(ModelChanged("echo", "stopping", reason))
    assert sample(metrics, "callme_model_loads_total", model="echo", outcome="ready") == 1.0
    assert sample(metrics, "callme_model_loads_total", model="echo", outcome="failed") == 1.0
    assert sample(metrics, "callme_model_load_seconds_sum", model="echo") == 3.0
    assert sample(metrics, "callme_model_crashes_total", model="echo") == 1.0
    assert sample(metrics, "callme_model_evictions_total", model="echo") == 2.0


def test_gauges_are_read_when_scraped() -> None:
    """They show the moment of the scrape, and two registries share nothing."""
    metrics, other = PrometheusMetrics(Facts()), PrometheusMetrics(Facts())
    scheduler = Scheduler({"echo": 1}, 2000, Policy(default_footprint_bytes=1024))
    metrics.watch(("echo",), lambda: scheduler.snapshot(1.0))
    scheduler.handle(msg.Submitted("p0", "echo", "", 1), 1.0)
    scheduler.handle(msg.Ready("echo", 1, 1.0, 1024), 1.0)
    for n in range(1, 6):
        scheduler.handle(msg.Submitted(f"p{n}", "echo", "", 1), 1.0)
    assert sample(metrics, "callme_queue_depth", model="echo") == 5.0
    assert sample(metrics, "callme_running", model="echo") == 1.0
    assert sample(metrics, "callme_model_memory_bytes", model="echo") == 1024.0
    assert sample(metrics, "callme_memory_budget_bytes") == 2000.0
    assert sample(metrics, "callme_model_state", model="echo", state="busy") == 1.0
    assert sample(metrics, "callme_model_state", model="echo", state="ready") == 0.0
    assert sample(other, "callme_memory_budget_bytes") is None


def test_the_library_would_count_the_same() -> None:
    """Names, buckets with their inclusive bounds, sums, and label values that need escapes."""
    facts = Facts(delay_s=0)
    metrics = PrometheusMetrics(facts)
    theirs = CollectorRegistry()
    text = "Time to the response's end"
    buckets = REQUEST_BUCKETS_S
    name = "callme_http_request_seconds"
    histogram = Histogram(name, text, ["route"], buckets=buckets, registry=theirs)
    names = ["route", "method", "status"]
    name = "callme_http_requests_total"
    counter = Counter(name, "HTTP requests answered", names, registry=theirs)
    for seconds in (0.0, 0.0004, *buckets, 0.07, 90.5, 1e9):
        for route in ("/{model}", 'a"\\\n'):
            facts.tell(RequestEnded("GET", route, 200, seconds, "/", "id1"))
            histogram.labels(route).observe(seconds)
            counter.labels(route, "GET", "200").inc()
    expected = [line for line in lines(theirs) if "_created" not in line]
    assert expected
    assert set(lines(metrics.registry)) >= set(expected)


def lines(registry: CollectorRegistry) -> list[str]:
    """The exposition's lines."""
    return generate_latest(registry).decode().splitlines()


def test_labels_stay_few() -> None:
    """Methods that a client makes up are all one; no id and no path is a label."""
    facts = Facts(delay_s=0)
    metrics = PrometheusMetrics(facts)
    for i in range(50):
        facts.tell(RequestEnded(f"M{i}", "/{model}", 405, 0.01, "/a", f"id{i}"))
        facts.tell(PredictionChanged(replace(DONE, id=f"id{i}")))
    text = metrics.exposition().decode()
    assert 'callme_http_requests_total{method="other",route="/{model}",status="405"} 50.0' in text
    assert "id1" not in text
    named = set(re.findall(r"([a-z_]+)=\"", text))
    assert named <= {"model", "outcome", "method", "route", "status", "le", "state"}
