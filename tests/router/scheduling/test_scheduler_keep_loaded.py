"""Models that stay loaded at their hours, and models that come before others."""

from __future__ import annotations

from router.scheduling import messages as msg
from router.scheduling.model import Phase
from router.scheduling.scheduler import OwnPolicy, Policy
from tests.router.scheduling.conftest import Story


def test_it_is_loaded_at_its_hour_and_stays(story: Story) -> None:
    """Without a request, for longer than any idle time; after its hours it is as any other."""
    assert story.tell(msg.Keep("alpha", True)) == [msg.Start("alpha", 1)]
    story.ready("alpha")
    assert story.wait(10 * story.policy.idle_to_sleep_s) == []
    assert story.scheduler.next_wakeup(story.now) is None
    assert story.scheduler.snapshot(story.now).models["alpha"].stays_loaded
    assert story.tell(msg.Keep("alpha", False)) == [msg.Stop("alpha", 1, "idle")]
    assert story.stopped("alpha") == []
    assert story.wait(600.0) == []


def test_it_waits_for_room_and_returns(story: Story) -> None:
    """A prediction for another model takes the memory; it is loaded again when that is idle."""
    story.tell(msg.Keep("alpha", True))
    story.ready("alpha")
    story.submit("beta", "1")
    effects = story.wake()
    assert effects == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.stopped("alpha") == [msg.Start("beta", 1)]
    story.ready("beta")
    assert story.finish("1") == []
    assert story.scheduler.snapshot(story.now).models["alpha"].wanted
    assert story.wait(story.policy.idle_to_sleep_s) == [msg.Stop("beta", 1, "idle")]
    assert story.stopped("beta") == [msg.Start("alpha", 2)]


def test_it_is_evicted_last() -> None:
    """Although it is the cheapest one to lose."""
    story = Story(budget=20)
    for name in ("alpha", "beta"):
        story.tell(msg.Load(name))
        story.ready(name)
    story.submit("beta", *map(str, range(8)))
    for i in range(8):
        story.finish(str(i))
    story.tell(msg.Keep("alpha", True))
    story.wait(story.policy.min_residency_s)
    assert story.submit("gamma", "9") == [msg.Stop("beta", 1, "evicted for gamma")]


def test_it_is_tried_again_after_each_back_off(story: Story) -> None:
    """Its set-up fails, and then does not."""
    story.tell(msg.Keep("alpha", True))
    story.fail_start("alpha")
    assert story.phase("alpha") is Phase.FAILED
    assert story.wake() == [msg.Start("alpha", 2)]
    story.fail_start("alpha")
    assert story.wake() == [msg.Start("alpha", 3)]
    assert story.ready("alpha") == []


def test_the_operator_may_unload_it(story: Story) -> None:
    """Until it is loaded again, by whatever."""
    story.tell(msg.Keep("alpha", True))
    story.ready("alpha")
    assert story.tell(msg.Unload("alpha")) == [msg.Stop("alpha", 1, "unload")]
    assert story.stopped("alpha") == []
    assert story.wait(600.0) == []
    story.submit("alpha", "1")
    story.ready("alpha")
    story.finish("1")
    assert story.wait(10 * story.policy.idle_to_sleep_s) == []


def test_a_sleeper_is_woken_and_not_stopped() -> None:
    """It sleeps only while another model has the memory."""
    story = Story(own_policies={"beta": OwnPolicy(idle_to_sleep_s=50.0)})
    story.tell(msg.Keep("alpha", True))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.min_residency_s)
    assert story.submit("beta", "1") == [msg.Sleep("alpha", 1, "evicted for beta", 11)]
    story.tell(msg.Slept("alpha", 1))
    story.ready("beta")
    assert story.wait(10 * story.policy.asleep_to_stop_s) == []
    story.finish("1")
    assert story.wait(50.0) == [msg.Stop("beta", 1, "idle")]
    assert story.stopped("beta") == [msg.Wake("alpha", 1)]


def test_the_model_of_the_higher_priority_gets_memory_first() -> None:
    """Although the other has waited longer, but the other rises as it waits."""
    own = {"beta": OwnPolicy(priority=2), "gamma": OwnPolicy(priority=0)}
    for waited_s, first in ((20.0, "gamma"), (2 * Policy().ageing_s, "beta")):
        story = Story(own_policies=own)
        story.resident("alpha")
        story.submit("alpha", "a")
        story.submit("beta", "b")
        story.now += waited_s
        story.submit("gamma", "c")
        story.finish("a")
        assert story.stopped("alpha") == [msg.Start(first, 1)], story.picture()


def test_the_model_of_the_lower_priority_loses_memory_first() -> None:
    """Although it is used more."""
    story = Story(budget=20, own_policies={"alpha": OwnPolicy(priority=2)})
    for name in ("alpha", "beta"):
        story.tell(msg.Load(name))
        story.ready(name)
    story.submit("alpha", *map(str, range(8)))
    for i in range(8):
        story.finish(str(i))
    story.wait(story.policy.min_residency_s)
    assert story.submit("gamma", "9") == [msg.Stop("alpha", 1, "evicted for gamma")]


def test_a_queue_limit_of_its_own() -> None:
    """The others have the general one."""
    story = Story(own_policies={"alpha": OwnPolicy(queue_limit=2)})
    effects = story.submit("alpha", "1", "2", "3") + story.submit("beta", "4", "5", "6")
    assert [e.id for e in effects if isinstance(e, msg.Drop)] == ["3"]
