"""Followers are told what happens; a slow one is dropped and delays nobody."""

from __future__ import annotations

from router.observability.events import QUEUE_LIMIT, EventStream
from router.observability.facts import Observers
from router.prediction import Prediction

WAITING = Prediction("a", "echo", {"n": 1}, created_at=1.0)


async def test_a_slow_follower_is_dropped() -> None:
    """One event too many ends its subscription; another's goes on."""
    stream = EventStream()
    slow, quick = stream.subscribe(), stream.subscribe()
    for _ in range(QUEUE_LIMIT + 1):
        stream.prediction_changed(WAITING)
        quick.events.get_nowait()
    assert slow.ended.done()
    assert not quick.ended.done()


async def test_a_follower_that_left_gets_nothing_more() -> None:
    """Nor is anything kept for it."""
    stream = EventStream()
    gone, here = stream.subscribe(), stream.subscribe()
    stream.unsubscribe(gone)
    stream.prediction_changed(WAITING)
    assert gone.events.empty()
    assert not here.events.empty()


async def test_a_closed_stream_takes_nobody() -> None:
    """Subscriptions end with it, and one that comes later ends at once."""
    stream = EventStream()
    before = stream.subscribe()
    stream.close()
    assert before.ended.done()
    assert stream.subscribe().ended.done()
    stream.open()
    assert not stream.subscribe().ended.done()


async def test_an_observer_that_fails_harms_nobody() -> None:
    """The others are told all the same."""

    class Broken(EventStream):
        def prediction_changed(self, p: Prediction) -> None:
            raise ValueError

    stream = EventStream()
    subscription = stream.subscribe()
    Observers([Broken(), stream]).prediction_changed(WAITING)
    kind, data = subscription.events.get_nowait()
    assert (kind, data) == ("prediction", {"id": "a", "model": "echo", "status": "starting"})
