"""The scheduler's daily work: starts on demand, grants, queues, answers, and stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router.errors import Canceled, ShuttingDown
from router.scheduling import messages as msg
from router.scheduling.model import Phase

if TYPE_CHECKING:
    from tests.router.scheduling.conftest import Story


# ---- starting and granting ---------------------------------------------------------------


def test_a_model_starts_on_demand(story: Story) -> None:
    """Nothing runs until somebody asks; the first request starts the model, then it runs."""
    assert story.wait(60) == []
    assert story.submit("alpha", "1") == [msg.Start("alpha", 1)]
    assert story.wait(1) == []
    assert story.ready("alpha") == [msg.Run("1", "alpha", 1)]
    assert story.finish("1") == []


def test_a_ready_model_runs_at_once(story: Story) -> None:
    """A request to an idle resident model waits for nothing."""
    story.resident("alpha")
    assert story.submit("alpha", "1") == [msg.Run("1", "alpha", 1)]


def test_no_double_start(story: Story) -> None:
    """However many ask while it starts, a model is started once."""
    assert story.submit("alpha", "1", "2", "3") == [msg.Start("alpha", 1)]
    assert story.tell(msg.Load("alpha")) == []
    assert story.wait(1) == []


def test_one_at_a_time(story: Story) -> None:
    """With concurrency 1 the second runs when the first has finished."""
    story.resident("alpha")
    assert story.submit("alpha", "1", "2") == [msg.Run("1", "alpha", 1)]
    assert story.finish("1") == [msg.Run("2", "alpha", 1)]


def test_as_many_as_the_runner_takes(story: Story) -> None:
    """What the runner says of its concurrency holds from the moment it is known."""
    story.resident("alpha")
    story.submit("alpha", "1", "2", "3", "4")
    assert story.tell(msg.Described("alpha", 3)) == [
        msg.Run("2", "alpha", 1),
        msg.Run("3", "alpha", 1),
    ]
    assert story.finish("2") == [msg.Run("4", "alpha", 1)]


def test_less_concurrency_interrupts_nobody(story: Story) -> None:
    """When concurrency shrinks, runs end in their own time and fewer follow."""
    story.tell(msg.Described("alpha", 2))
    story.resident("alpha")
    story.submit("alpha", "1", "2", "3")
    assert story.tell(msg.Described("alpha", 0)) == []  # 0 is read as 1
    assert story.finish("1") == []
    assert story.finish("2") == [msg.Run("3", "alpha", 1)]


def test_models_do_not_wait_for_each_other(roomy: Story) -> None:
    """A resident model goes on serving while another loads."""
    roomy.resident("alpha")
    assert roomy.submit("beta", "b1") == [msg.Start("beta", 1)]
    assert roomy.submit("alpha", "a1") == [msg.Run("a1", "alpha", 1)]


# ---- withdrawing -------------------------------------------------------------------------


def test_withdrawn_while_waiting(story: Story) -> None:
    """Who leaves the queue does not run, and nothing more is said about it."""
    story.resident("alpha")
    story.submit("alpha", "1", "2", "3")
    assert story.tell(msg.Withdrawn("2")) == []
    assert story.finish("1") == [msg.Run("3", "alpha", 1)]


def test_withdrawn_while_running(story: Story) -> None:
    """A running prediction is interrupted, once, and keeps its slot until it has ended."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    assert story.tell(msg.Withdrawn("1")) == [msg.Interrupt("1", "alpha", 1)]
    assert story.tell(msg.Withdrawn("1")) == []
    assert story.finish("1", service_s=None) == [msg.Run("2", "alpha", 1)]


def test_withdrawn_by_the_last_waiter(story: Story) -> None:
    """A start that nobody waits for any more is finished, and the model idles."""
    story.submit("alpha", "1")
    story.tell(msg.Withdrawn("1"))
    assert story.ready("alpha") == []
    assert story.model("alpha").is_idle


def test_withdrawn_is_final(story: Story) -> None:
    """A withdrawn run that is handed back does not run again; its caller is told."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.tell(msg.Withdrawn("1"))
    story.die("alpha")
    story.hand_back("1")
    assert isinstance(story.dropped()["1"], Canceled)
    story.stopped("alpha")
    assert story.scheduler.next_wakeup(story.now) is None


def test_withdrawing_what_is_unknown(story: Story) -> None:
    """A withdrawal that comes too late, or twice, does nothing."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.finish("1")
    assert story.tell(msg.Withdrawn("1")) == []
    assert story.tell(msg.Withdrawn("never")) == []


# ---- stale reports -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "report",
    [
        msg.Ready("alpha", 1, 1.0, 99),
        msg.StartFailed("alpha", 1, "late"),
        msg.Died("alpha", 1, "late"),
        msg.Stopped("alpha", 1),
        msg.Finished("1", "alpha", 1),
        msg.Requeued("1", "alpha", 1),
    ],
    ids=lambda report: type(report).__name__,
)
def test_reports_of_an_earlier_start_are_ignored(story: Story, report: msg.Event) -> None:
    """Whatever comes late from the first process changes nothing about the second."""
    story.resident("alpha")
    story.wake()
    story.stopped("alpha")
    story.submit("alpha", "1")
    story.ready("alpha")
    assert story.run_of("1") == ("alpha", 2)
    before = story.picture().splitlines()[1:]
    assert story.tell(report) == []
    assert story.picture().splitlines()[1:] == before
    assert story.model("alpha").need_bytes == 10


def test_reports_out_of_turn_are_ignored(story: Story) -> None:
    """A report that does not belong to the model's phase changes nothing."""
    story.resident("alpha")
    assert story.stopped("alpha") == []
    assert story.fail_start("alpha") == []
    assert story.phase("alpha") is Phase.READY
    story.submit("beta", "1")  # alpha has to go
    assert story.phase("alpha") is Phase.STOPPING
    assert story.die("alpha") == []
    assert story.phase("alpha") is Phase.STOPPING


# ---- idle --------------------------------------------------------------------------------


def test_an_idle_model_stops(story: Story) -> None:
    """A model without work for idle_to_sleep_s is stopped, to the moment."""
    story.submit("alpha", "1")
    story.ready("alpha")
    story.now += 50
    story.finish("1")
    assert story.wait(299.9) == []
    assert story.wait(0.1) == [msg.Stop("alpha", 1, "idle")]
    assert story.stopped("alpha") == []
    assert story.submit("alpha", "2") == [msg.Start("alpha", 2)]


def test_idle_to_sleep_does_not_undercut_min_residency(hasty: Story) -> None:
    """However short idle_to_sleep_s is, a model that has just come is left alone."""
    hasty.tell(msg.Load("alpha"))
    hasty.ready("alpha")
    assert hasty.wait(9.9) == []
    assert hasty.wait(0.1) == [msg.Stop("alpha", 1, "idle")]


def test_work_is_not_idleness(story: Story) -> None:
    """A run that takes longer than idle_to_sleep_s keeps its model."""
    story.resident("alpha")
    story.submit("alpha", "1")
    assert story.wait(3000) == []
    story.finish("1")
    assert story.wait(299) == []


def test_a_sleeping_model_that_is_wanted_comes_back(story: Story) -> None:
    """A request that comes while its model stops waits for that, then for the start."""
    story.resident("alpha")
    story.wake()
    assert story.submit("alpha", "1") == []
    assert story.stopped("alpha") == [msg.Start("alpha", 2)]


# ---- the wake-up -------------------------------------------------------------------------


def test_nothing_to_wake_up_for(story: Story) -> None:
    """Without models or requests no time matters."""
    assert story.scheduler.next_wakeup(story.now) is None
    story.resident("alpha")
    story.wake()
    assert story.scheduler.next_wakeup(story.now) is None  # Stopped is an event


def test_a_moment_that_passed_unhandled_is_due_at_once(story: Story) -> None:
    """If the time to act falls between handling and asking, the answer is now, not never."""
    story.resident("alpha")
    idle_at = story.scheduler.next_wakeup(story.now)
    assert idle_at is not None
    story.now = idle_at + 0.001
    assert story.scheduler.next_wakeup(story.now) == story.now
    assert story.tell(msg.Tick()) == [msg.Stop("alpha", 1, "idle")]


@pytest.mark.parametrize("start", [0.1, 1000.1, 123456.789, 1e6 / 3, 2.0**31 / 7])
def test_a_wake_up_is_never_too_early(story: Story, start: float) -> None:
    """At the moment announced the deed is done, whatever floating-point sums round to."""
    story.now = start
    story.resident("alpha")
    story.now += 0.1
    story.tell(msg.Tick())
    assert story.wake() == [msg.Stop("alpha", 1, "idle")]


# ---- shutting down -----------------------------------------------------------------------


def test_draining(roomy: Story) -> None:
    """Waiters are told, new requests refused, what is idle stops, what runs may end."""
    roomy.resident("alpha", "beta")
    roomy.submit("alpha", "1", "2")
    effects = roomy.tell(msg.RouterStopping())
    assert isinstance(roomy.dropped()["2"], ShuttingDown)
    assert msg.Stop("beta", 1, "shutdown") in effects
    assert roomy.phase("alpha") is Phase.READY
    roomy.submit("alpha", "3")
    assert isinstance(roomy.dropped()["3"], ShuttingDown)
    assert roomy.finish("1") == [msg.Stop("alpha", 1, "shutdown")]
    assert roomy.tell(msg.Load("gamma")) == []


def test_draining_stops_what_starts(story: Story) -> None:
    """A set-up in progress is given up, and its late report changes nothing."""
    story.submit("alpha", "1")
    assert msg.Stop("alpha", 1, "shutdown") in story.tell(msg.RouterStopping())
    assert story.ready("alpha") == []
    assert story.phase("alpha") is Phase.STOPPING
    assert story.stopped("alpha") == []
    assert story.phase("alpha") is Phase.STOPPED


def test_force(story: Story) -> None:
    """With force the process goes at once; its run keeps its slot until it is reported."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.tell(msg.RouterStopping())
    assert story.tell(msg.RouterStopping(force=True)) == [msg.Stop("alpha", 1, "forced")]
    assert story.running("alpha") == ["1"]
    assert story.finish("1", service_s=None) == []
    assert story.stopped("alpha") == []
    assert story.tell(msg.RouterStopping(force=True)) == []


def test_draining_ends_what_is_handed_back(story: Story) -> None:
    """A run that comes back untouched while the router stops is not queued again."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.tell(msg.RouterStopping())
    story.die("alpha")
    story.hand_back("1")
    assert isinstance(story.dropped()["1"], ShuttingDown)
