"""Everybody who is told of what happens, put together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from router.observability.events import EventStream
from router.observability.facts import Observer, Observers, read
from router.observability.metrics import PrometheusObserver
from router.prediction import Prediction, Status
from router.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)

Work = Callable[[], object]


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


# Without a pause before that, it is done all the same.
AT_MOST_S = 0.01


class Afterwards:
    """Work in its order, at the next pause. Without an event loop it is done at once.

    Done before the next request of a quick caller is with its model, a request's log line and
    metrics delay that by 24 µs, as measured; done while the model works they delay nobody.
    """

    def __init__(self) -> None:
        self._work: deque[Work] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def do(self, work: Work) -> None:
        """Add it. What it raises is logged and harms nobody."""
        self._work.append(work)
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.catch_up()
        else:
            self._timer = loop.call_later(AT_MOST_S, self._time_is_up)

    def pause_comes(self) -> None:
        """What is being done now is to end with this turn of the event loop or the next."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self.catch_up)

    def catch_up(self) -> None:
        """Do all of it now."""
        while self._work:
            work = self._work.popleft()
            try:
                work()
            except Exception:
                log.exception("what was put off failed")

    def _time_is_up(self) -> None:
        self._timer = None
        self.catch_up()


class Deferred:
    """Fulfils Observer: tells another afterwards."""

    def __init__(self, observer: Observer, afterwards: Afterwards) -> None:
        self._observer = observer
        self._afterwards = afterwards
        self._do = afterwards.do

    def prediction_changed(self, p: Prediction) -> None:
        """Told afterwards. One that starts is with its model within a turn."""
        self._do(lambda: self._observer.prediction_changed(p))
        if p.status is Status.PROCESSING:
            self._afterwards.pause_comes()

    def prediction_refused(self, model: str, code: str) -> None:
        """Told afterwards."""
        self._do(lambda: self._observer.prediction_refused(model, code))

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """Told afterwards."""
        self._do(lambda: self._observer.model_changed(model, state, reason))

    def load_ended(self, model: str, seconds: float, *, ready: bool) -> None:
        """Told afterwards."""
        self._do(lambda: self._observer.load_ended(model, seconds, ready=ready))

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """Told afterwards."""
        self._do(lambda: self._observer.request_ended(method, route, status, seconds))
