"""A model that overflows: when the remote is used, and that no prediction is lost."""

from __future__ import annotations

import pytest

from router.errors import RouterError
from router.prediction import Prediction
from router.predictions.overflow import LastMinute, Overflow, OverflowRule
from router.scheduling import messages as msg
from router.scheduling.scheduler import Policy, Scheduler
from tests.router.fakes import HandClock

AFTER_S = 20.0
HERE, THERE = "m", "m@modal"


class Town:
    """A real scheduler with one model that overflows and one that does not. The test reports
    what the models' processes do."""

    def __init__(self, budget: int = 10, *, to_box: bool = False) -> None:
        self.clock = HandClock()
        policy = Policy(queue_limit=3, default_footprint_bytes=10, unknown_load_s=5.0)
        parallel = {HERE: 1, THERE: 2, "other": 1}
        self.scheduler = Scheduler(parallel, budget, policy, (THERE,), {THERE: HERE})
        self.overflow = Overflow(
            self.post,
            self.scheduler,
            self.clock,
            self.clock.call_later,
            {HERE: OverflowRule(THERE, AFTER_S, to_box)},
        )
        self.effects: list[msg.Effect] = []
        self.dropped: dict[str, RouterError] = {}

    def post(self, event: msg.Event) -> None:
        """As the loop does."""
        for effect in self.scheduler.handle(event, self.clock.now):
            self.effects.append(effect)
            if isinstance(effect, msg.Drop) and not self.overflow.refused(effect.id, effect.error):
                self.overflow.forget(effect.id)
                self.dropped[effect.id] = effect.error

    def submit(self, *ids: str, model: str = HERE) -> None:
        """Predictions arrive."""
        for name in ids:
            self.overflow.submit(Prediction(name, model, {}, self.clock.now))

    def where(self, prediction_id: str) -> str:
        """The place whose queue or running table it is in, "" when in none."""
        for m in self.scheduler.models.values():
            if prediction_id in m.running or prediction_id in [w.id for w in m.waiting]:
                return m.name
        return ""

    def ready(self, name: str, footprint: int = 10) -> None:
        """The model's process is there."""
        self.post(msg.Ready(name, self.scheduler.models[name].generation, 1.0, footprint))

    def fail(self, name: str) -> None:
        """Its start has failed."""
        self.post(msg.StartFailed(name, self.scheduler.models[name].generation, "no"))

    def finish(self, name: str, seconds: float) -> None:
        """A run ends."""
        place = self.where(name)
        generation = self.scheduler.models[place].running[name].generation
        self.post(msg.Finished(name, place, generation, seconds))
        self.overflow.served(Prediction(name, HERE, {}, 0.0))
        self.overflow.forget(name)


@pytest.fixture
def town() -> Town:
    """Memory for one model."""
    return Town()


def test_here_first(town: Town) -> None:
    """While the wait is short, the remote is not asked for anything."""
    town.submit("1", "2")
    town.ready(HERE)
    town.finish("1", 4.0)
    assert (town.where("2"), town.scheduler.models[THERE].generation) == (HERE, 0)
    assert town.overflow.record(HERE) == (1, ["1"])
    assert town.overflow.record(THERE) == (0, [])


@pytest.mark.parametrize("model", [HERE, "other"])
def test_whose_it_is_and_how_urgent_goes_with_it(model: str, town: Town) -> None:
    """Into the queue of either place: the most urgent first, then the owners in turn."""
    p = [Prediction(str(n), model, {}, 0.0, owner="ann", priority=1) for n in range(3)]
    p.append(Prediction("b", model, {}, 0.0, owner="bob", priority=0))
    for prediction in p[1:]:
        town.overflow.submit(prediction)
    first, *rest = town.scheduler.models[model].waiting.order(town.clock.now)
    assert (first.id, first.owner, first.priority) == ("b", "bob", 0)
    assert {(w.owner, w.priority) for w in rest} == {("ann", 1)}


def test_one_who_would_wait_too_long_goes_at_once(town: Town) -> None:
    """By what runs have been measured to take."""
    town.submit("1")
    town.ready(HERE)
    town.finish("1", 15.0)
    town.submit("2", "3", "4")
    assert [town.where(i) for i in "234"] == [HERE, HERE, THERE]
    town.ready(THERE, 0)
    town.finish("4", 1.0)
    assert town.overflow.record(THERE) == (1, ["4"])


def test_one_who_has_waited_too_long_goes(town: Town) -> None:
    """Whatever was foretold. One that runs by then stays."""
    town.submit("1", "2")
    town.ready(HERE)
    town.clock.advance(AFTER_S)
    assert (town.where("1"), town.where("2")) == (HERE, THERE)
    town.clock.advance(10 * AFTER_S)
    assert (town.where("1"), town.where("2")) == (HERE, THERE)


def test_no_room_here(town: Town) -> None:
    """Another model is busy in the memory: when the time is over, the remote."""
    town.submit("x", model="other")
    town.ready("other")
    town.submit("1")
    assert town.where("1") == HERE
    town.clock.advance(AFTER_S)
    assert town.where("1") == THERE


def test_it_cannot_start_here(town: Town) -> None:
    """A set-up that fails, and the back-off after it: all of them run elsewhere."""
    town.submit("1", "2")
    town.fail(HERE)
    assert [town.where(i) for i in "12"] == [THERE, THERE]
    town.submit("3")
    assert town.where("3") == THERE
    assert not town.dropped


def test_it_does_not_fit_here() -> None:
    """More memory than there is: it runs elsewhere, and always has."""
    town = Town(budget=5)
    town.submit("1")
    assert town.where("1") == THERE
    assert not town.clock.pending()  # who is there is not watched


def test_a_full_queue_here(town: Town) -> None:
    """Who would be turned away with 429 runs elsewhere; when that is full too, 429."""
    town.submit(*(str(n) for n in range(6)))
    assert [town.where(str(n)) for n in range(6)] == [HERE] * 3 + [THERE] * 3
    town.submit("late")
    assert town.dropped["late"].code == "queue_full"
    assert len(town.clock.pending()) == 3  # of those who wait here


def test_it_is_loaded_here_for_the_next(town: Town) -> None:
    """Or a model whose load takes longer than the wait would never be here again."""
    slow = Town()
    slow.scheduler.models[HERE].load_s = 60.0
    slow.submit("1")
    assert slow.where("1") == THERE
    assert not slow.clock.pending()
    assert msg.Start(HERE, 1) in slow.effects
    slow.ready(HERE)
    slow.submit("2")
    assert slow.where("2") == HERE


def test_the_remote_is_down(town: Town) -> None:
    """What went there comes back, once; what comes later stays here."""
    town.scheduler.models[HERE].load_s = 60.0
    town.submit("1")
    assert town.where("1") == THERE
    town.fail(THERE)
    assert town.where("1") == HERE
    town.clock.advance(10 * AFTER_S)
    assert town.where("1") == HERE
    town.submit("2")
    assert town.where("2") == HERE
    town.fail(HERE)
    assert town.dropped["1"].code == "model_unavailable"
    assert town.where("2") == THERE  # its back-off is over by now, and 2 has not been there


def test_one_that_had_begun_elsewhere_goes_there_again(town: Town) -> None:
    """And nowhere else, not even when that remote is down: it may still run there."""
    begun = Prediction("1", HERE, {}, 0.0, remote_name=THERE)
    town.overflow.submit(begun)
    assert (town.where("1"), town.overflow.remote_of("1")) == (THERE, THERE)
    town.fail(THERE)
    assert town.dropped["1"].code == "model_unavailable"
    town.overflow.submit(Prediction("2", HERE, {}, 0.0, remote_name="m@gone"))
    assert (town.where("2"), town.overflow.remote_of("2")) == (HERE, "")


@pytest.mark.parametrize(("to_box", "where"), [(True, HERE), (False, THERE)])
def test_what_a_box_sent_does_not_go_on_to_a_box(to_box: bool, where: str) -> None:
    """Two that help each other out would send it to and fro. Modal sends nothing back."""
    town = Town(to_box=to_box)
    town.scheduler.models[HERE].load_s = 60.0
    town.overflow.submit(Prediction("1", HERE, {}, 0.0, via="f" * 16))
    town.submit("2")
    assert (town.where("1"), town.where("2")) == (where, THERE)
    town.clock.advance(10 * AFTER_S)
    assert town.where("1") == where


def test_both_are_down(town: Town) -> None:
    """Refused with a reason, and nothing is left of it."""
    town.submit("1")
    town.fail(HERE)
    town.fail(THERE)
    assert town.dropped["1"].code == "model_unavailable"
    assert town.dropped["1"].message == "Cannot start 'm': no"  # no word of m@modal
    assert town.where("1") == ""
    assert not town.overflow._placements


def test_one_that_waits_for_a_remote_that_takes_none(town: Town) -> None:
    """The remote is asked again after each wait, until it accepts."""
    town.submit("0")
    town.ready(HERE)
    town.submit("1")
    for name in ("a", "b", "c", "d", "e"):
        town.post(msg.Submitted(name, THERE))
    town.clock.advance(AFTER_S)
    assert town.where("1") == HERE
    town.ready(THERE, 0)
    town.clock.advance(AFTER_S)
    assert town.where("1") == THERE


def test_a_stopping_router_sends_nobody_elsewhere(town: Town) -> None:
    """Both places stop with it."""
    town.submit("1")
    town.post(msg.RouterStopping())
    assert town.dropped["1"].code == "shutting_down"


def test_models_that_do_not_overflow_are_not_touched(town: Town) -> None:
    """They are submitted, refused and counted like any other."""
    town.submit("1", model="other")
    assert town.where("1") == "other"
    town.fail("other")
    assert town.dropped["1"].code == "model_unavailable"
    town.overflow.served(Prediction("9", "other", {}, 0.0))
    assert town.overflow.record("other") == (1, ["9"])


def test_the_last_ten_are_remembered(town: Town) -> None:
    """Not all."""
    for n in range(25):
        town.overflow.served(Prediction(str(n), "other", {}, 0.0))
    assert town.overflow.record("other") == (25, [str(n) for n in range(15, 25)])


def test_the_last_minute_is_counted(town: Town) -> None:
    """By the second, and what is older is forgotten."""
    assert town.overflow.per_minute("other") == 0
    for _ in range(3):
        for n in range(2):
            town.overflow.served(Prediction(str(n), "other", {}, 0.0))
        town.clock.now += 25.0
    assert town.overflow.per_minute("other") == 4
    town.clock.now += 60.0
    assert town.overflow.per_minute("other") == 0


def test_a_minute_has_sixty_seconds() -> None:
    """What happens within one second is one entry, however much it is."""
    minute = LastMinute()
    for _ in range(5):
        minute.add(1000.7)
    assert (minute.count(1059.9), minute.count(1060.0)) == (5, 0)
    for _ in range(5):
        minute.add(1070.0)
    assert len(minute._seconds) == 1
