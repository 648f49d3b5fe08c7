"""Everybody who is told of what happens, put together."""

from __future__ import annotations

from functools import partial

from router.adapters.metrics import PrometheusObserver
from router.ports import Observer
from router.runtime.afterwards import Afterwards, Deferred
from router.runtime.events import EventStream
from router.runtime.observers import Observers, read
from router.scheduling.scheduler import Scheduler


class Telemetry:
    """The metrics and the stream of changes, and the one observer that tells both: afterwards, but
    before anybody looks."""

    def __init__(self) -> None:
        self.afterwards = Afterwards()
        self.metrics = PrometheusObserver()
        self.events = EventStream(self.afterwards.catch_up)
        self.at_once: Observer = Observers([self.metrics, self.events])
        self.observer: Observer = Deferred(self.at_once, self.afterwards)

    def open(self, scheduler: Scheduler) -> None:
        """Begin with this scheduler."""
        self.metrics.watch(tuple(scheduler.models), partial(read, scheduler))
        self.events.open()

    def exposition(self) -> bytes:
        """The metrics as Prometheus reads them."""
        self.afterwards.catch_up()
        return self.metrics.exposition()

    def close(self) -> None:
        """End what clients follow; metrics can be read to the end."""
        self.afterwards.catch_up()
        self.events.close()
