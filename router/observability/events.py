"""The stream of changes that clients may follow.

A subscriber that does not keep up is dropped: nobody waits for it, and what it has missed it
can ask for when it comes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.observability.facts import Fact, ModelChanged, PredictionChanged
from router.shutdown import Shutdown

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
    """Tells subscribers of models' states and predictions' statuses."""

    def __init__(self, shutdown: Shutdown) -> None:
        """Subscriptions end when the server stops: it waits for its clients."""
        self._shutdown = shutdown
        self._subscriptions: set[Subscription] = set()
        shutdown.on_begin(self._end)

    def _end(self) -> None:
        for subscription in self._subscriptions:
            subscription.end()

    def subscribe(self) -> Subscription:
        """A subscription from now on, until `unsubscribe`."""
        subscription = Subscription()
        if self._shutdown.begun:
            subscription.end()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Nobody reads it any more."""
        self._subscriptions.discard(subscription)

    def note(self, fact: Fact) -> None:
        """Tell the subscribers of a model's new state, or a prediction's: its id, model and status,
        no input and no output. A listener of `router.observability.facts`."""
        if not self._subscriptions:
            return
        match fact:
            case PredictionChanged(p):
                data = {"id": p.id, "model": p.model, "status": p.status.value}
                self._put("prediction", data)
            case ModelChanged():
                self._put("model", {"model": fact.model, "state": fact.state})

    def _put(self, kind: str, data: Mapping[str, str]) -> None:
        for subscription in self._subscriptions:
            subscription.put((kind, data))
