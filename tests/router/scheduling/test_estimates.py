"""What is learned from measurements, and what callers are told because of it."""

from __future__ import annotations

import math

import pytest

from router.errors import Canceled, ShuttingDown
from router.scheduling import messages as msg
from router.scheduling import refusals
from router.scheduling.model import DEMAND_HALF_LIFE_S, Model, Phase
from router.scheduling.queue import WaitingLine
from router.scheduling.tunables import Policy
from tests.router.scheduling.conftest import Story


def model(name: str = "alpha", label: str = "") -> Model:
    """A model of which nothing is known."""
    return Model(name, 1, WaitingLine(30.0), 10, label)


def test_every_time_is_smoothed() -> None:
    """A new measurement moves the estimate by a fifth of the difference."""
    m = model()
    for note in (m.note_load, m.note_wake, m.note_service):
        note(10.0)
        note(20.0)
    assert (m.load_s, m.wake_s, m.service_s) == (12.0, 12.0, 12.0)


def test_demand_halves() -> None:
    """One request counts one; after a half-life it counts a half beside a new one."""
    m = model()
    m.note_request(0.0)
    assert m.demand(0.0) == 1.0
    m.note_request(DEMAND_HALF_LIFE_S)
    assert m.demand(DEMAND_HALF_LIFE_S) == 1.5


@pytest.mark.parametrize("phase", [Phase.FALLING_ASLEEP, Phase.ASLEEP, Phase.WAKING])
def test_a_sleeper_is_expected_after_its_wake(phase: Phase) -> None:
    """As long as waking has taken; a load, while no wake has been measured."""
    m = model()
    m.note_load(4.0)
    m.enter(phase, 100.0)
    m.retry_at = 200.0  # of an earlier failure, which a sleeper has behind it
    assert m.wait_for_start_s(101.0, unknown_load_s=30.0) == 4.0
    m.note_wake(0.5)
    assert m.wait_for_start_s(101.0, unknown_load_s=30.0) == 0.5


def test_the_quick_waker_is_cheap_to_lose(story: Story) -> None:
    """What wakes in half a second goes before what loads in four, whichever is listed first."""
    story.tell(msg.Measured(20, {}))
    story.asleep("beta")
    story.tell(msg.Load("beta"))
    story.woke("beta")
    story.tell(msg.Load("alpha"))
    story.ready("alpha")
    story.wait(story.policy.min_residency_s)
    assert story.submit("gamma", "1") == [story.sleep("beta", "evicted for gamma")]


def test_once_woken_it_may_sleep_again(story: Story) -> None:
    """A wish to have it resident is over when it is: it is not woken from its next sleep. How
    long waking took is known from then on."""
    story.asleep("alpha")
    assert story.tell(msg.Load("alpha")) == [msg.Wake("alpha", 1)]
    story.woke("alpha", wake_s=0.5)
    assert story.model("alpha").wake_s == 0.5
    story.wait(story.policy.idle_to_sleep_s)
    assert story.slept("alpha") == []
    assert story.phase("alpha") is Phase.ASLEEP


def test_a_failed_start_says_what_was_printed(story: Story) -> None:
    """`log_tail` in the details, where there is any output at all."""
    story.submit("alpha", "1")
    story.tell(msg.StartFailed("alpha", 1, "no weights", ("reading", "no such file")))
    assert story.dropped()["1"].details == {"log_tail": ["reading", "no such file"]}
    story.submit("beta", "2")
    story.fail_start("beta")
    assert story.dropped()["2"].details is None


def test_a_router_that_stops_says_when_to_come_again(story: Story) -> None:
    """Also to those who come later."""
    assert story.scheduler.shutting_down is False
    story.submit("alpha", "1")
    story.tell(msg.RouterStopping())
    story.submit("alpha", "2")
    error = story.dropped()["2"]
    assert isinstance(error, ShuttingDown)
    assert error.message == "Cannot predict: the server is stopping"
    assert error.retry_after_s == refusals.RETRY_SHUTDOWN_S


def test_withdrawn_while_it_was_handed_back(story: Story) -> None:
    """It is canceled, in the words of every other cancel."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.tell(msg.Withdrawn("1"))
    story.hand_back("1")
    error = story.dropped()["1"]
    assert isinstance(error, Canceled)
    assert error.message == "The prediction was canceled"


def test_a_full_queue_names_the_model_as_callers_do() -> None:
    """Without the name of the place where it runs."""
    error = refusals.queue_full(model("alpha@modal", label="alpha"), Policy(), 0.0)
    assert error.message == "Cannot queue: 0 predictions already wait for 'alpha'"


def test_a_back_off_of_just_the_limit_is_waited_out() -> None:
    """`wait_out_backoff_s` itself is still waited out after a crash, and nothing longer is."""
    m, policy = model(), Policy(wait_out_backoff_s=8.0)
    m.crashed, m.retry_at = True, 108.0
    assert not refusals.must_not_wait(m, policy, 100.0)
    assert refusals.must_not_wait(m, policy, 99.9)


def test_nobody_is_expected_to_start_during_a_long_back_off(story: Story) -> None:
    """After a crash the wait is known while it is short, and infinite once it is long."""
    m = story.model("alpha")
    m.crashed = True
    m.retry_at = story.now + 1.0
    assert (
        story.scheduler.estimate("alpha", "", story.now).wait_s == 1.0 + story.policy.unknown_load_s
    )
    m.retry_at = story.now + 1000.0
    assert story.scheduler.estimate("alpha", "", story.now).wait_s == math.inf


def test_counts(story: Story) -> None:
    """Every crash and every eviction is counted."""
    for n in (1, 2):
        story.resident("alpha")
        story.die("alpha")
        story.stopped("alpha")
        story.now += 1000.0
        assert story.model("alpha").crashes == n
    for n in (1, 2):
        story.resident("alpha")
        story.submit("beta", f"b{n}")
        story.stopped("alpha")
        story.ready("beta")
        story.finish(f"b{n}")
        story.wait(story.policy.idle_to_sleep_s)
        story.stopped("beta")
        assert story.model("alpha").evictions == n


def test_a_crash_after_a_long_good_time_is_a_first_one(story: Story) -> None:
    """From `backoff_max_s` on, not a moment sooner."""
    for held_s, failures in ((story.policy.backoff_max_s - 1, 2), (story.policy.backoff_max_s, 1)):
        story.resident("alpha")
        m = story.model("alpha")
        m.failures = 1
        story.now = m.phase_since + held_s
        story.die("alpha")
        assert m.failures == failures
        story.stopped("alpha")
        story.now += 1000.0


def test_gone_just_when_the_back_off_ends(story: Story) -> None:
    """It is stopped then, and not failed."""
    story.resident("alpha")
    story.die("alpha")
    story.now = story.model("alpha").retry_at
    story.stopped("alpha")
    assert story.phase("alpha") is Phase.STOPPED


def test_a_claim_that_can_never_fit_holds_up_nobody(story: Story) -> None:
    """It is refused, and a younger claim that fits is served in the same turn."""
    story.resident("gamma")
    story.tell(msg.Measured(10, {"beta": 4}))
    story.submit("gamma", "g")
    story.submit("alpha", "a")
    story.submit("beta", "b")
    assert msg.Start("beta", 1) in story.tell(msg.Measured(14, {"alpha": 50}))
    assert story.dropped().keys() == {"a"}


def test_a_preload_that_does_not_fit_holds_up_no_other() -> None:
    """A smaller one is loaded into what is free."""
    story = Story(budget=10)
    story.tell(msg.Measured(10, {"alpha": 10, "beta": 3, "gamma": 5}))
    story.resident("gamma")
    assert story.tell(msg.Load("alpha")) == []
    assert story.tell(msg.Load("beta")) == [msg.Start("beta", 1)]


def test_one_byte_too_many_is_given_back(story: Story) -> None:
    """The budget is a limit, and memory on its way back counts."""
    story.resident("alpha")
    assert story.tell(msg.Measured(10, {})) == []
    assert story.tell(msg.Measured(9, {})) == [msg.Stop("alpha", 1, "memory")]
    roomy = Story(budget=20)
    roomy.resident("alpha", "beta")
    assert roomy.tell(msg.Measured(10, {})) == [msg.Stop("alpha", 1, "memory")]
    assert roomy.tell(msg.Measured(19, {})) == []  # alpha's ten are coming


def test_the_wake_up_for_a_busy_box(story: Story) -> None:
    """Held memory that is not there drains a busy model after `patience_s`, not sooner."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.now += 1000.0
    story.tell(msg.Tick())
    since = story.now
    story.tell(msg.Measured(5, {}))
    story.now += 1.0
    story.tell(msg.Tick())
    assert story.scheduler.next_wakeup(story.now) == since + story.policy.patience_s
