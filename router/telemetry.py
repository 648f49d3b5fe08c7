"""Everybody who is told of what happens, put together."""

from __future__ import annotations

from functools import partial

from router.adapters.metrics import PrometheusObserver
from router.ports import Observer
from router.runtime.events import EventStream
from router.runtime.observers import Observers, read
from router.scheduling.scheduler import Scheduler


class Telemetry:
    """The metrics and the stream of changes, and the one observer that tells both."""

    def __init__(self) -> None:
        self.metrics = PrometheusObserver()
        self.events = EventStream()
        self.observer: Observer = Observers([self.metrics, self.events])

    def open(self, scheduler: Scheduler) -> None:
        """Begin with this scheduler."""
        self.metrics.watch(tuple(scheduler.models), partial(read, scheduler))
        self.events.open()

    def close(self) -> None:
        """End what clients follow; metrics can be read to the end."""
        self.events.close()
