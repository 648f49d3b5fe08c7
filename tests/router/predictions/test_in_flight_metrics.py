"""What a running prediction records: kept as it comes, and bounded however long it goes on."""

from __future__ import annotations

import asyncio

from router.prediction import MetricUpdate, OutputChunk, Prediction, Status, advance
from router.predictions.custom_metrics import MAX_BYTES
from router.predictions.in_flight import MAX_METRIC_BYTES, InFlight


async def test_updates_are_bounded() -> None:
    """Followers see the first so many; a value that is too large is none of them."""
    p = advance(Prediction("a", "m", {}, created_at=1.0), Status.PROCESSING, 2.0)
    in_flight = InFlight(p, asyncio.get_running_loop().create_future())
    in_flight.note(MetricUpdate("large", "x" * MAX_BYTES))
    in_flight.note(OutputChunk("one"))
    in_flight.note(MetricUpdate("a.b", 0.5))
    assert in_flight.metrics_since(0) == [(1, MetricUpdate("a.b", 0.5))]
    assert in_flight.present().metrics == {"a": {"b": 0.5}}
    for _ in range(MAX_METRIC_BYTES // len("counted")):
        in_flight.note(MetricUpdate("counted", 1, "increment"))
    seen = len(in_flight.metrics_since(0))
    assert 1000 < seen < MAX_METRIC_BYTES // len("counted")
    in_flight.note(MetricUpdate("counted", 1, "increment"))
    assert len(in_flight.metrics_since(0)) == seen
    in_flight.restart()
    assert in_flight.metrics_since(0) == []
    assert in_flight.present().metrics == {}
