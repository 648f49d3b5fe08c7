"""The stream of changes that clients may follow: an observer with subscribers.

A subscriber that does not keep up is dropped: nobody waits for it, and what it has missed it
can ask for when it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from router.prediction import Prediction

# A burst of this many changes between two reads of one client.
QUEUE_LIMIT = 256

Event = tuple[str, Mapping[str, str]]


class Subscription:
    """One client's events. `ended` is done when no more will come."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, event: Event) -> None:
        """Add it, or end the subscription of a client that is too slow."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """No more will come."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def wait_ended(self) -> None:
        """Return when no more will come."""
        await asyncio.shield(self.ended)


class EventStream:
    """Fulfils Observer: tells subscribers of models' states and predictions' statuses."""

    def __init__(self, catch_up: Callable[[], object] = lambda: None) -> None:
        """`catch_up` tells of everything that has happened so far."""
        self._catch_up = catch_up
        self._subscriptions: set[Subscription] = set()
        self.closing = asyncio.Event()

    def open(self) -> None:
        """Take subscribers."""
        self.closing.clear()

    def close(self) -> None:
        """End every subscription and, at once, those still to come: a server that stops waits
        for its clients."""
        self.closing.set()
        for subscription in self._subscriptions:
            subscription.end()

    def subscribe(self) -> Subscription:
        """A subscription from now on, until `unsubscribe`."""
        self._catch_up()
        subscription = Subscription()
        if self.closing.is_set():
            subscription.end()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Nobody reads it any more."""
        self._subscriptions.discard(subscription)

    def prediction_changed(self, p: Prediction) -> None:
        """Its id, model and status: no input and no output."""
        if self._subscriptions:
            self._put("prediction", {"id": p.id, "model": p.model, "status": p.status.value})

    def prediction_refused(self, model: str, code: str) -> None:
        """No change of anything that was there."""

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """Its new state."""
        if self._subscriptions:
            self._put("model", {"model": model, "state": state})

    def load_ended(self, model: str, seconds: float, *, ready: bool) -> None:
        """Told by the new state."""

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Not for clients."""

    def _put(self, kind: str, data: Mapping[str, str]) -> None:
        for subscription in self._subscriptions:
            subscription.put((kind, data))
