"""Metrics add up as coglet 0.23.1 has it, and stay small."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.prediction import MetricUpdate, Outcome, Prediction, Status, conclude
from router.predictions.custom_metrics import MAX_BYTES, MAX_DEPTH, apply, bounded, size_bytes

Updates = list[tuple[str, Any, str]]


@pytest.mark.parametrize(
    ("updates", "metrics"),
    [
        ([("t", 0.7, "replace"), ("t", 0.9, "replace")], {"t": 0.9}),
        ([("t", 0.7, "replace"), ("t", None, "replace")], {}),
        ([("n", 1, "increment"), ("n", 3, "increment")], {"n": 4}),
        ([("n", 1.5, "increment"), ("n", 2, "increment")], {"n": 3.5}),
        ([("n", "x", "replace"), ("n", 2, "increment")], {"n": "x"}),
        ([("n", True, "replace"), ("n", 2, "increment")], {"n": True}),
        ([("n", (1 << 63) - 1, "replace"), ("n", 1, "increment")], {"n": -(1 << 63)}),
        ([("l", 1, "append"), ("l", 2, "append")], {"l": [1, 2]}),
        ([("v", 1, "replace"), ("v", 2, "append")], {"v": [1, 2]}),
        ([("a.b.c", 42, "replace"), ("a.b.d", 1, "increment")], {"a": {"b": {"c": 42, "d": 1}}}),
        ([("a", 1, "replace"), ("a.b", 2, "replace")], {"a": {"b": 2}}),
        ([("a.b", 2, "replace"), ("a.b", None, "replace")], {"a": {}}),
        ([("", 1, "replace"), ("a.", 1, "replace"), (".b", 1, "append")], {}),
        ([("a..b", 1, "increment")], {}),
    ],
)
def test_as_coglet_does(updates: Updates, metrics: dict[str, Any]) -> None:
    """The cases of coglet's own tests."""
    got: dict[str, Any] = {}
    for update in updates:
        apply(got, MetricUpdate(*update))
    assert got == metrics
    assert orjson.dumps(got)


def test_a_value_that_is_shared_is_not_changed() -> None:
    """The metrics that were handed out before stay as they were."""
    metrics: dict[str, Any] = {}
    apply(metrics, MetricUpdate("l", 1, "append"))
    seen = dict(metrics)
    apply(metrics, MetricUpdate("l", 2, "append"))
    assert seen == {"l": [1]}


@pytest.mark.slow
def test_the_largest_are_left_out() -> None:
    """Until the others fit; what is nested too deeply as well."""
    assert bounded({}) == ({}, [])
    fits = {"a": "x" * 1000, "b": 1}
    assert bounded(fits) == (fits, [])
    large = {"a": "x" * (MAX_BYTES // 2), "b": "x" * MAX_BYTES, "c": "x" * (MAX_BYTES // 3)}
    kept, left_out = bounded(large)
    assert (list(kept), left_out) == (["a", "c"], ["b"])
    many = {f"m{i}": i for i in range(100_000)}
    kept, left_out = bounded(many)
    assert len(orjson.dumps(kept)) <= MAX_BYTES
    assert len(kept) + len(left_out) == len(many)
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    assert size_bytes(deep) is None
    assert size_bytes([[]] * MAX_BYTES) is None
    deeper: Any = []
    for _ in range(100_000):
        deeper = [deeper]
    assert size_bytes(deeper) is None
    assert bounded({"deep": deep, "flat": [[1]]}) == ({"flat": [[1]]}, ["deep"])


def test_times_are_not_the_models() -> None:
    """Its own of these names give way, as they do to coglet's."""
    p = Prediction("id", "m", {}, 1.0, status=Status.PROCESSING)
    own = {"predict_time": -1, "total_time": "x", "mine": 1}
    done = conclude(p, Outcome(Status.SUCCEEDED, predict_time_s=0.5, metrics=own), 5.0)
    assert done.metrics == {"predict_time": 0.5, "total_time": 4.0, "mine": 1}
