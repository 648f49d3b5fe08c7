"""What a running prediction records: kept as it comes, and bounded however long it goes on."""

from __future__ import annotations

import asyncio

from router.prediction import MetricUpdate, OutputChunk, Prediction, Status, advance
from router.predictions.custom_metrics import MAX_BYTES
from router.predictions.in_flight import MAX_METRIC_BYTES, Live


async def test_updates_are_bounded() -> None:
    """Followers see the first so many; a value that is too large is none of them."""
    p = advance(Prediction("a", "m", {}, created_at=1.0), Status.PROCESSING, 2.0)
    live = Live(p, asyncio.get_running_loop().create_future())
    live.note(MetricUpdate("large", "x" * MAX_BYTES))
    live.note(OutputChunk("one"))
    live.note(MetricUpdate("a.b", 0.5))
    assert live.metrics_since(0) == [(1, MetricUpdate("a.b", 0.5))]
    assert live.present().metrics == {"a": {"b": 0.5}}
    for _ in range(MAX_METRIC_BYTES // len("counted")):
        live.note(MetricUpdate("counted", 1, "increment"))
    seen = len(live.metrics_since(0))
    assert 1000 < seen < MAX_METRIC_BYTES // len("counted")
    live.note(MetricUpdate("counted", 1, "increment"))
    assert len(live.metrics_since(0)) == seen
    live.restart()
    assert live.metrics_since(0) == []
    assert live.present().metrics == {}
