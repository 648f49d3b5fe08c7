"""Overflow: which of a model's two targets, this machine or a remote, runs a prediction.

The local target comes first. A prediction goes to the remote in three cases: it would wait longer
than `after_s` here; it has waited that long; it is refused here because the model cannot start,
does not fit in memory, or its queue is full. The scheduler knows the remote as a model of its own.
Only this module knows at which of the two a prediction waits. The prediction keeps its id.

A prediction that had begun at the remote when the router ended is sent there again and nowhere
else: it may still run there, or may have run, and the router asks the remote for it by its id.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from router import errors
from router.clock import Clock, Timer
from router.errors import RouterError
from router.prediction import Prediction
from router.scheduling import messages
from router.scheduling.scheduler import Scheduler

# Refusals after which the other target may still accept. A router that stops stops both targets.
RETRY_ON_OTHER_TARGET = (errors.ModelUnavailable, errors.QueueFull)
LAST_SERVED = 10
RATE_S = 60

CallLater = Callable[..., Timer]


@dataclass(frozen=True, slots=True)
class OverflowRule:
    """When the predictions of one model go to its remote.

    `remote`: the scheduler's name of the remote. `after_s`: the longest wait here, in seconds.
    `to_box`: the remote is another box, which may overflow to a remote too. A prediction that
    came from a box is not sent on to a box: two boxes with such a rule for each other would send
    it back and forth.
    """

    remote: str
    after_s: float
    to_box: bool = False


@dataclass(slots=True)
class Placement:
    """Where one prediction is, by the scheduler's name of the target, and which targets refused
    it."""

    prediction: Prediction
    target: str = ""  # until it is sent to one
    refused_by: set[str] = field(default_factory=set)
    timer: Timer | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class LastMinute:
    """How many of something happened in the last RATE_S seconds. One count per second is kept, so a
    busy minute takes no more memory than a quiet one."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()  # (second, count), oldest first

    def add(self, now: float) -> None:
        """One more at `now`, in seconds."""
        second, count = int(now), 1
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))
        self._forget(now)

    def count(self, now: float) -> int:
        """How many there were in the RATE_S seconds until `now`."""
        self._forget(now)
        return sum(count for _, count in self._seconds)

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - RATE_S:
            self._seconds.popleft()


class Overflow:
    """Submits predictions to the scheduler, and counts which target served them."""

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
        self._last: defaultdict[str, deque[str]] = defaultdict(partial(deque, maxlen=LAST_SERVED))
        self._last_minute: defaultdict[str, LastMinute] = defaultdict(LastMinute)

    def submit(self, p: Prediction) -> None:
        """Put the prediction into the queue of the target where it is likely to start first."""
        rule = self._rules.get(p.model)
        if rule is None or (rule.to_box and p.via):
            self._post(messages.Submitted(p.id, p.model, p.owner, p.priority, p.durable))
            return
        if p.remote_name == rule.remote:
            placement = self._placements[p.id] = Placement(p, refused_by={p.model})
            self._go(placement, p.remote_name)
            return
        now = self._clock.monotonic()
        too_long = self._scheduler.estimate(p.model, p.owner, now).wait_s > rule.after_s
        placement = self._placements[p.id] = Placement(p)
        if too_long and self._scheduler.estimate(rule.remote, p.owner, now).accepted:
            self._go(placement, rule.remote)
            # Without this, nothing would start the model here again. A Load takes only free memory.
            self._post(messages.Load(p.model))
        else:
            self._go(placement, p.model)

    def refused(self, prediction_id: str, error: RouterError) -> bool:
        """Handle a refusal by the target where it is. True when it was sent to the other one."""
        placement = self._placements.get(prediction_id)
        if placement is None or not isinstance(error, RETRY_ON_OTHER_TARGET):
            return False
        placement.refused_by.add(placement.target)
        model = placement.prediction.model
        other = self._rules[model].remote if placement.target == model else model
        if other in placement.refused_by:
            return False
        self._go(placement, other)
        return True

    def remote_of(self, prediction_id: str) -> str:
        """The scheduler's name of the remote where it is; "" when it is local."""
        placement = self._placements.get(prediction_id)
        return (
            ""
            if placement is None or placement.target == placement.prediction.model
            else placement.target
        )

    def served(self, p: Prediction) -> None:
        """Count a prediction that has run, with any result."""
        placement = self._placements.get(p.id)
        target = placement.target if placement else p.model
        self._served[target] += 1
        self._last[target].append(p.id)
        self._last_minute[target].add(self._clock.monotonic())

    def forget(self, prediction_id: str) -> None:
        """Forget a prediction that has ended."""
        if (placement := self._placements.pop(prediction_id, None)) is not None:
            placement.stop_timer()

    def record(self, target: str) -> tuple[int, list[str]]:
        """How many predictions ran there, and the ids of the last ones, oldest first."""
        return self._served[target], list(self._last.get(target, ()))

    def per_minute(self, target: str) -> int:
        """How many predictions ended there in the last minute, after a run."""
        ended = self._last_minute.get(target)
        return ended.count(self._clock.monotonic()) if ended else 0

    # ---- internal --------------------------------------------------------------------------

    def _go(self, placement: Placement, target: str) -> None:
        p = placement.prediction
        placement.stop_timer()
        placement.target = target
        # It waits for a remote that is away only when no other target may take it.
        waits_out = p.durable and (target == p.model or bool(placement.refused_by))
        self._post(messages.Submitted(p.id, target, p.owner, p.priority, waits_out))
        # By now it may have been refused and sent to the other target, or it may have ended.
        stays = self._placements.get(p.id) is placement and placement.target == target
        if target == p.model and stays:
            self._watch(placement)

    def _watch(self, placement: Placement) -> None:
        rule = self._rules[placement.prediction.model]
        placement.timer = self._call_later(rule.after_s, self._has_waited, placement)

    def _has_waited(self, placement: Placement) -> None:
        """Send it to the remote, if it still waits and the remote accepts it."""
        p, rule = placement.prediction, self._rules[placement.prediction.model]
        now = self._clock.monotonic()
        placement.timer = None
        if rule.remote in placement.refused_by or self._scheduler.standing(p.id, now) is None:
            return
        if self._scheduler.estimate(rule.remote, p.owner, now).accepted:
            # The scheduler sends no effect for a waiter that is withdrawn.
            self._post(messages.Withdrawn(p.id))
            self._go(placement, rule.remote)
        else:
            self._watch(placement)
