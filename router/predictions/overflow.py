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

from router import errors
from router.clock import Clock, Timer
from router.errors import RouterError
from router.prediction import Prediction
from router.scheduling import messages
from router.scheduling.scheduler import Scheduler

# Refusals that the other home may not share. One that is stopping stops both.
ELSEWHERE_PERHAPS = (errors.ModelUnavailable, errors.QueueFull)
LAST_SERVED = 10

CallLater = Callable[..., Timer]


@dataclass(frozen=True, slots=True)
class OverflowRule:
    """`remote`: what the scheduler calls the second home. `after_s`: seconds that a prediction
    may have to wait here. `to_box`: it is another box, which may have a second home too. What
    came from a box does not go on to one: two that help each other out would send it to and fro.
    """

    remote: str
    after_s: float
    to_box: bool = False


@dataclass(slots=True)
class Placement:
    """One prediction on its way: where it is, who has refused it."""

    prediction: Prediction
    home: str
    refused_by: set[str] = field(default_factory=set)
    timer: Timer | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Overflow:
    """Submits predictions, and remembers which home served them."""

    def __init__(
        self,
        post: Callable[[messages.Event], None],
        scheduler: Scheduler,
        clock: Clock,
        call_later: CallLater,
        rules: Mapping[str, OverflowRule] | None = None,
    ) -> None:
        self._post = post
        self._scheduler = scheduler
        self._clock = clock
        self._call_later = call_later
        self._rules = rules or {}
        self._placements: dict[str, Placement] = {}
        self._served: Counter[str] = Counter()
        self._last: dict[str, deque[str]] = {}

    def submit(self, p: Prediction) -> None:
        """Put it into the line where it is likely to run first."""
        rule = self._rules.get(p.model)
        if rule is None or (rule.to_box and p.via):
            self._post(messages.Submitted(p.id, p.model, p.owner, p.priority))
            return
        if p.home == rule.remote:
            placement = self._placements[p.id] = Placement(p, p.home, refused_by={p.model})
            self._go(placement, p.home)
            return
        now = self._clock.monotonic()
        too_long = self._scheduler.estimate(p.model, p.owner, now).wait_s > rule.after_s
        placement = self._placements[p.id] = Placement(p, p.model)
        if too_long and self._scheduler.estimate(rule.remote, p.owner, now).accepted:
            self._go(placement, rule.remote)
            # Or nobody would ever start it here again. It takes only memory that nobody uses.
            self._post(messages.Warm(p.model))
        else:
            self._go(placement, p.model)

    def refused(self, prediction_id: str, error: RouterError) -> bool:
        """It was refused where it is. True when it has been sent to its other home instead."""
        placement = self._placements.get(prediction_id)
        if placement is None or not isinstance(error, ELSEWHERE_PERHAPS):
            return False
        placement.refused_by.add(placement.home)
        model = placement.prediction.model
        other = self._rules[model].remote if placement.home == model else model
        if other in placement.refused_by:
            return False
        self._go(placement, other)
        return True

    def second_home(self, prediction_id: str) -> str:
        """Where it is, if that is not here; "" when it is."""
        placement = self._placements.get(prediction_id)
        return (
            ""
            if placement is None or placement.home == placement.prediction.model
            else placement.home
        )

    def served(self, p: Prediction) -> None:
        """It has run, with whatever result."""
        placement = self._placements.get(p.id)
        home = placement.home if placement else p.model
        self._served[home] += 1
        self._last.setdefault(home, deque(maxlen=LAST_SERVED)).append(p.id)

    def forget(self, prediction_id: str) -> None:
        """It has ended."""
        if (placement := self._placements.pop(prediction_id, None)) is not None:
            placement.stop_timer()

    def record(self, home: str) -> tuple[int, list[str]]:
        """How many predictions ran there, and the ids of the last ones, oldest first."""
        return self._served[home], list(self._last.get(home, ()))

    # ---- within ----------------------------------------------------------------------------

    def _go(self, placement: Placement, home: str) -> None:
        p = placement.prediction
        placement.stop_timer()
        placement.home = home
        self._post(messages.Submitted(p.id, home, p.owner, p.priority))
        # It may have been refused at once and be elsewhere by now, or be no more.
        if home == p.model and self._placements.get(p.id) is placement and placement.home == home:
            self._watch(placement)

    def _watch(self, placement: Placement) -> None:
        rule = self._rules[placement.prediction.model]
        placement.timer = self._call_later(rule.after_s, self._has_waited, placement)

    def _has_waited(self, placement: Placement) -> None:
        """Its time here is over, if it still waits and the other home takes it."""
        p, rule = placement.prediction, self._rules[placement.prediction.model]
        now = self._clock.monotonic()
        placement.timer = None
        if rule.remote in placement.refused_by or self._scheduler.standing(p.id, now) is None:
            return
        if self._scheduler.estimate(rule.remote, p.owner, now).accepted:
            # A waiter that is withdrawn leaves its line without a word.
            self._post(messages.Withdrawn(p.id))
            self._go(placement, rule.remote)
        else:
            self._watch(placement)
