"""Subscribers get every change; a slow one is dropped and delays no other."""

from __future__ import annotations

from router.observability.events import QUEUE_LIMIT, EventStream
from router.observability.facts import Facts, ModelChanged, PredictionChanged, RequestEnded
from router.observability.metrics import PrometheusMetrics
from router.prediction import Prediction
from router.shutdown import Shutdown

WAITING = Prediction("a", "echo", {"n": 1}, created_at=1.0)


async def test_a_slow_follower_is_dropped() -> None:
    """One event too many ends its subscription; another's goes on."""
    stream = EventStream(Shutdown(), Facts())
    slow, quick = stream.subscribe(), stream.subscribe()
    for _ in range(QUEUE_LIMIT + 1):
        stream.note(PredictionChanged(WAITING))
        quick.events.get_nowait()
    assert slow.ended.done()
    assert not quick.ended.done()


async def test_a_follower_that_left_gets_nothing_more() -> None:
    """Nor is anything kept for it."""
    stream = EventStream(Shutdown(), Facts())
    gone, here = stream.subscribe(), stream.subscribe()
    stream.unsubscribe(gone)
    stream.note(PredictionChanged(WAITING))
    assert gone.events.empty()
    assert not here.events.empty()


async def test_what_happened_before_is_no_event() -> None:
    """Even when it has not been delivered yet; metrics are read with everything that happened."""
    facts = Facts(delay_s=60)
    stream, metrics = EventStream(Shutdown(), facts), PrometheusMetrics(facts)
    facts.tell(ModelChanged("echo", "stopping", "crashed"))
    subscription = stream.subscribe()
    assert subscription.events.empty()
    facts.tell(ModelChanged("echo", "ready"))
    facts.tell(ModelChanged("echo", "stopping", "crashed"))
    assert 'callme_model_crashes_total{model="echo"} 2.0' in metrics.exposition().decode()
    states = [subscription.events.get_nowait()[1]["state"] for _ in range(2)]
    assert states == ["ready", "stopping"]


async def test_a_server_that_stops_follows_nothing() -> None:
    """Subscriptions end with it, and one that comes later ends at once."""
    shutdown = Shutdown()
    stream = EventStream(shutdown, Facts())
    before = stream.subscribe()
    shutdown.begin()
    assert before.ended.done()
    assert stream.subscribe().ended.done()
    shutdown.reset()
    assert not stream.subscribe().ended.done()


async def test_what_is_told() -> None:
    """A prediction's id, model and status, a model's state, and nothing of requests."""
    stream = EventStream(Shutdown(), Facts())
    subscription = stream.subscribe()
    stream.note(RequestEnded("GET", "/health", 200, 0.1, "/health", "id1"))
    stream.note(PredictionChanged(WAITING))
    stream.note(ModelChanged("echo", "stopping", "idle"))
    assert [subscription.events.get_nowait() for _ in range(2)] == [
        ("prediction", {"id": "a", "model": "echo", "status": "starting"}),
        ("model", {"model": "echo", "state": "stopping"}),
    ]
    assert subscription.events.empty()
