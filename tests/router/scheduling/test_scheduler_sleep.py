"""Models whose process can give its memory back without ending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.scheduling import messages as msg
from router.scheduling.model import Phase

if TYPE_CHECKING:
    from tests.router.scheduling.conftest import Story


def test_idle_to_sleep_to_wake(story: Story) -> None:
    """Unused, it is put to sleep; a prediction wakes the same process and runs on it."""
    story.asleep("alpha")
    assert story.phase("alpha") is Phase.ASLEEP
    assert story.submit("alpha", "1") == [msg.Wake("alpha", 1)]
    assert story.phase("alpha") is Phase.WAKING
    assert story.woke("alpha") == [msg.Run("1", "alpha", 1)]


def test_asleep_takes_no_room(story: Story) -> None:
    """Another model starts beside it, in a memory that holds one."""
    story.asleep("alpha")
    assert story.submit("beta", "1") == [msg.Start("beta", 1)]


def test_a_claim_waits_for_the_sleep(story: Story) -> None:
    """Evicted by sleep, its memory is given on when it has been seen to be free, not before."""
    story.tell(msg.Warm("alpha"))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.min_residency_s)
    assert story.submit("beta", "1") == [msg.Sleep("alpha", 1, "evicted for beta")]
    assert story.wait(5) == []
    assert story.slept("alpha") == [msg.Start("beta", 1)]
    assert story.model("alpha").evictions == 1


def test_a_waking_waits_for_room(story: Story) -> None:
    """It is not woken beside a busy model that fills the memory."""
    story.asleep("alpha")
    story.submit("beta", "1")
    story.ready("beta")
    assert story.submit("alpha", "2") == []
    story.finish("1")
    assert story.wake() == [msg.Stop("beta", 1, "evicted for alpha")]
    assert story.stopped("beta") == [msg.Wake("alpha", 1)]


def test_asked_for_while_it_falls_asleep(story: Story) -> None:
    """It is woken when it has, and the prediction is not lost."""
    story.tell(msg.Warm("alpha"))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.idle_to_sleep_s)
    assert story.submit("alpha", "1") == []
    assert story.slept("alpha") == [msg.Wake("alpha", 1)]


def test_one_that_cannot_after_all(story: Story) -> None:
    """A sleep that fails ends in a stop, and the next prediction in a start."""
    story.tell(msg.Warm("alpha"))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.idle_to_sleep_s)
    assert story.tell(msg.SleepFailed("alpha", 1)) == [msg.Stop("alpha", 1, "cannot sleep")]
    story.stopped("alpha")
    assert story.submit("alpha", "1") == [msg.Start("alpha", 2)]


def test_one_that_cannot_be_woken(story: Story) -> None:
    """It is a crash: the group is stopped, and the waiter gets the next start."""
    story.asleep("alpha")
    story.submit("alpha", "1")
    assert story.die("alpha") == [msg.Stop("alpha", 1, "crashed")]
    story.stopped("alpha")
    assert story.wake() == [msg.Start("alpha", 2)]
    assert story.waiting("alpha") == ["1"]


def test_dead_in_its_sleep(story: Story) -> None:
    """It is noticed and cleared away; the next request gets a new one."""
    story.asleep("alpha")
    assert story.die("alpha") == [msg.Stop("alpha", 1, "crashed")]
    assert story.model("alpha").crashes == 1


def test_long_asleep(story: Story) -> None:
    """After an hour it is stopped: what it holds of the machine's memory is of use to others."""
    story.asleep("alpha")
    assert story.wait(story.policy.asleep_to_stop_s - 1) == []
    assert story.wake() == [msg.Stop("alpha", 1, "long asleep")]


def test_shutdown_wakes_nobody(story: Story) -> None:
    """Asleep, falling asleep or waking: a router that stops stops them."""
    story.asleep("alpha")
    assert story.tell(msg.Draining()) == [msg.Stop("alpha", 1, "shutdown")]


def test_the_sleeper_is_cheap_to_lose(story: Story) -> None:
    """What wakes in half a second goes before what loads in four, asked for equally often."""
    story.tell(msg.Measured(20, {}))
    story.asleep("alpha")
    story.tell(msg.Warm("alpha"))
    story.woke("alpha")
    story.tell(msg.Warm("beta"))
    story.ready("beta")
    story.wait(story.policy.min_residency_s)
    assert story.submit("gamma", "1") == [msg.Sleep("alpha", 1, "evicted for gamma")]


def test_reports_of_another_time(story: Story) -> None:
    """What a stopped generation says of its sleep changes nothing."""
    story.asleep("alpha")
    story.submit("alpha", "1")
    assert story.tell(msg.Slept("alpha", 0)) == []
    assert story.tell(msg.Slept("alpha", 1)) == []  # it wakes by now
    assert story.tell(msg.Woke("alpha", 0, 1.0, 1)) == []
    assert story.phase("alpha") is Phase.WAKING
