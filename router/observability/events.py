"""The stream of changes that clients may follow.

A subscriber that is too slow is dropped, so that the router never waits for it. When it connects
again it can ask for the states that it has missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.observability.facts import Fact, Facts, ModelChanged, PredictionChanged
from router.shutdown import Shutdown

# The most changes between two reads of one client.
QUEUE_LIMIT = 256

Event = tuple[str, Mapping[str, str]]


class Subscription:
    """One client's events. `ended` is done when no more events follow."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue(QUEUE_LIMIT)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, event: Event) -> None:
        """Add an event, or end the subscription when the client is too slow."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.end()

    def end(self) -> None:
        """End the subscription: no more events follow."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def wait_ended(self) -> None:
        """Return when the subscription has ended."""
        await asyncio.shield(self.ended)


class EventStream:
    """Sends the states of models and the statuses of predictions to subscribers."""

    def __init__(self, shutdown: Shutdown, facts: Facts) -> None:
        """Subscriptions end when the server begins to stop, as it waits for its clients to
        leave."""
        self._shutdown = shutdown
        self._facts = facts
        self._subscriptions: set[Subscription] = set()
        shutdown.on_begin(self._end)
        facts.add(self.note, PredictionChanged, ModelChanged)

    def _end(self) -> None:
        for subscription in self._subscriptions:
            subscription.end()

    def subscribe(self) -> Subscription:
        """A subscription that gets all events from now until `unsubscribe`."""
        self._facts.deliver()  # what happened before is no event for it
        subscription = Subscription()
        if self._shutdown.begun:
            subscription.end()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription that is not read any more."""
        self._subscriptions.discard(subscription)

    def note(self, fact: Fact) -> None:
        """Send a model's new state, or a prediction's id, model and status, to all subscribers;
        never an input or an output. This is a listener of `router.observability.facts`."""
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
