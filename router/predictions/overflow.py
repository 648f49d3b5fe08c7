"""Where predictions go whose model has a second home, on another machine.

Here first. To the other home goes what would wait longer than `after_s` here, what has
waited so long, and what is refused here because the model cannot start, finds no room, or
its queue is full. The scheduler knows the second home as a model of its own; which of the two
a prediction waits at is known here alone, and the prediction keeps its id.

One that had begun there when the router ended goes there again and nowhere else: it may run
there still, or have run, and is asked for under its id.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router import errors
from router.clock import Clock, Timer
from router.errors import RouterError
from router.prediction import Prediction
from router.scheduling import messages

# Refusals that the other home may not share. One that is stopping stops both.
ELSEWHERE_PERHAPS = (errors.ModelUnavailable, errors.QueueFull)
LAST_SERVED = 10

CallLater = Callable[..., Timer]


@dataclass(frozen=True, slots=True)
class Route:
    """`remote`: what the scheduler calls the second home. `after_s`: seconds that a prediction
    may have to wait here. `to_box`: it is another box, which may have a second home too. What
    came from a box does not go on to one: two that help each other out would send it to and fro.
    """

    remote: str
    after_s: float
    to_box: bool = False


class Lines(Protocol):
    """What is asked of the scheduler."""

    def expected_wait_s(self, model: str, now: float) -> float:
        """Until one more would start; infinite when it never would."""

    def takes(self, model: str, owner: str, now: float) -> bool:
        """Whether one more would be let in."""

    def is_waiting(self, prediction_id: str, now: float) -> bool:
        """In a line, and not running."""


@dataclass(slots=True)
class _Stay:
    """One prediction on its way: where it is, who has refused it."""

    prediction: Prediction
    home: str
    refused_by: set[str] = field(default_factory=set)
    timer: Timer | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Homes:
    """Submits predictions, and remembers which home served them."""

    def __init__(
        self,
        post: Callable[[messages.Event], None],
        lines: Lines,
        clock: Clock,
        call_later: CallLater,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self._post = post
        self._lines = lines
        self._clock = clock
        self._call_later = call_later
        self._routes = routes or {}
        self._stays: dict[str, _Stay] = {}
        self._served: Counter[str] = Counter()
        self._last: dict[str, deque[str]] = {}

    def submit(self, p: Prediction) -> None:
        """Put it into the line where it is likely to run first."""
        route = self._routes.get(p.model)
        if route is None or (route.to_box and p.via):
            self._post(messages.Submitted(p.id, p.model, p.owner, p.priority))
            return
        if p.home == route.remote:
            stay = self._stays[p.id] = _Stay(p, p.home, refused_by={p.model})
            self._go(stay, p.home)
            return
        now = self._clock.monotonic()
        too_long = self._lines.expected_wait_s(p.model, now) > route.after_s
        stay = self._stays[p.id] = _Stay(p, p.model)
        if too_long and self._lines.takes(route.remote, p.owner, now):
            self._go(stay, route.remote)
            # Or nobody would ever start it here again. It takes only memory that nobody uses.
            self._post(messages.Warm(p.model))
        else:
            self._go(stay, p.model)

    def refused(self, prediction_id: str, error: RouterError) -> bool:
        """It was refused where it is. True when it has been sent to its other home instead."""
        stay = self._stays.get(prediction_id)
        if stay is None or not isinstance(error, ELSEWHERE_PERHAPS):
            return False
        stay.refused_by.add(stay.home)
        model = stay.prediction.model
        other = self._routes[model].remote if stay.home == model else model
        if other in stay.refused_by:
            return False
        self._go(stay, other)
        return True

    def second_home(self, prediction_id: str) -> str:
        """Where it is, if that is not here; "" when it is."""
        stay = self._stays.get(prediction_id)
        return "" if stay is None or stay.home == stay.prediction.model else stay.home

    def served(self, p: Prediction) -> None:
        """It has run, with whatever result."""
        stay = self._stays.get(p.id)
        home = stay.home if stay else p.model
        self._served[home] += 1
        self._last.setdefault(home, deque(maxlen=LAST_SERVED)).append(p.id)

    def forget(self, prediction_id: str) -> None:
        """It has ended."""
        if (stay := self._stays.pop(prediction_id, None)) is not None:
            stay.stop_timer()

    def record(self, home: str) -> tuple[int, list[str]]:
        """How many predictions ran there, and the ids of the last ones, oldest first."""
        return self._served[home], list(self._last.get(home, ()))

    # ---- within ----------------------------------------------------------------------------

    def _go(self, stay: _Stay, home: str) -> None:
        p = stay.prediction
        stay.stop_timer()
        stay.home = home
        self._post(messages.Submitted(p.id, home, p.owner, p.priority))
        # It may have been refused at once and be elsewhere by now, or be no more.
        if home == p.model and self._stays.get(p.id) is stay and stay.home == home:
            self._watch(stay)

    def _watch(self, stay: _Stay) -> None:
        route = self._routes[stay.prediction.model]
        stay.timer = self._call_later(route.after_s, self._has_waited, stay)

    def _has_waited(self, stay: _Stay) -> None:
        """Its time here is over, if it still waits and the other home takes it."""
        p, route = stay.prediction, self._routes[stay.prediction.model]
        now = self._clock.monotonic()
        stay.timer = None
        if route.remote in stay.refused_by or not self._lines.is_waiting(p.id, now):
            return
        if self._lines.takes(route.remote, p.owner, now):
            # A waiter that is withdrawn leaves its line without a word.
            self._post(messages.Withdrawn(p.id))
            self._go(stay, route.remote)
        else:
            self._watch(stay)
