"""Facts arrive in the exposition under names that a dashboard can rely on."""

from __future__ import annotations

import re

from msgspec.structs import replace

from router.observability.facts import ModelReading, Reading
from router.observability.metrics import PrometheusObserver
from router.prediction import Failure, Prediction, Status

WAITING = Prediction("a", "echo", {}, created_at=10.0)
RUNNING = replace(WAITING, status=Status.PROCESSING, started_at=12.0)
DONE = replace(RUNNING, status=Status.SUCCEEDED, completed_at=12.5)


def sample(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    """One value as a scrape would find it."""
    return observer.registry.get_sample_value(name, labels)


def test_a_predictions_way() -> None:
    """Its wait is counted at its start, its run and outcome at its end."""
    observer = PrometheusObserver()
    for p in (WAITING, RUNNING, DONE):
        observer.prediction_changed(p)
    assert sample(observer, "callme_queue_seconds_sum", model="echo") == 2.0
    assert sample(observer, "callme_prediction_seconds_sum", model="echo") == 0.5
    outcome = {"model": "echo", "outcome": "succeeded"}
    assert sample(observer, "callme_predictions_total", **outcome) == 1.0


def test_outcomes_are_statuses_or_error_codes() -> None:
    """A failure by its code, a refusal too; one that never ran has no duration."""
    observer = PrometheusObserver()
    failed = replace(DONE, status=Status.FAILED, failure=Failure("worker_died", "It died"))
    observer.prediction_changed(failed)
    withdrawn = replace(WAITING, status=Status.CANCELED, completed_at=11.0)
    observer.prediction_changed(withdrawn)
    observer.prediction_refused("echo", "queue_full")
    for outcome in ("worker_died", "canceled", "queue_full"):
        labels = {"model": "echo", "outcome": outcome}
        assert sample(observer, "callme_predictions_total", **labels) == 1.0, outcome
    assert sample(observer, "callme_prediction_seconds_count", model="echo") == 1.0


def test_models() -> None:
    """Loads by outcome, stops by reason; counters are there before anything has happened."""
    observer = PrometheusObserver()
    observer.watch(("echo",), lambda: Reading(0, ()))
    assert sample(observer, "callme_model_crashes_total", model="echo") == 0.0
    observer.load_ended("echo", 3.0, ready=True)
    observer.load_ended("echo", 9.0, ready=False)
    for reason in ("idle", "crashed", "evicted for parrot", "memory", "shutdown"):
        observer.model_changed("echo", "stopping", reason)
    assert sample(observer, "callme_model_loads_total", model="echo", outcome="ready") == 1.0
    assert sample(observer, "callme_model_loads_total", model="echo", outcome="failed") == 1.0
    assert sample(observer, "callme_model_load_seconds_sum", model="echo") == 3.0
    assert sample(observer, "callme_model_crashes_total", model="echo") == 1.0
    assert sample(observer, "callme_model_evictions_total", model="echo") == 2.0


def test_gauges_are_read_when_scraped() -> None:
    """They show the moment of the scrape, and two observers share nothing."""
    observer, other = PrometheusObserver(), PrometheusObserver()
    queued = 1
    states = {"ready": False, "busy": True}
    observer.watch(("echo",), lambda: Reading(7, (ModelReading("echo", states, queued, 2, 1024),)))
    queued = 5
    assert sample(observer, "callme_queue_depth", model="echo") == 5.0
    assert sample(observer, "callme_running", model="echo") == 2.0
    assert sample(observer, "callme_model_memory_bytes", model="echo") == 1024.0
    assert sample(observer, "callme_memory_budget_bytes") == 7.0
    assert sample(observer, "callme_model_state", model="echo", state="busy") == 1.0
    assert sample(observer, "callme_model_state", model="echo", state="ready") == 0.0
    assert sample(other, "callme_memory_budget_bytes") is None


def test_labels_stay_few() -> None:
    """Methods that a client makes up are all one; no id and no path is a label."""
    observer = PrometheusObserver()
    for i in range(50):
        observer.request_ended(f"M{i}", "/{model}", 405, 0.01)
        observer.prediction_changed(replace(DONE, id=f"id{i}"))
    text = observer.exposition().decode()
    assert 'callme_http_requests_total{method="other",route="/{model}",status="405"} 50.0' in text
    assert "id1" not in text
    named = set(re.findall(r"([a-z_]+)=\"", text))
    assert named <= {"model", "outcome", "method", "route", "status", "le", "state"}
