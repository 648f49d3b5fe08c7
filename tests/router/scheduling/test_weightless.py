"""Models that run on other machines, and what is foretold of one more prediction."""

from __future__ import annotations

import math

import pytest

from router.scheduling import messages as msg
from router.scheduling.model import Phase
from tests.router.scheduling.conftest import Story


@pytest.fixture
def story() -> Story:
    """A budget for one local model; gamma is elsewhere."""
    return Story(weightless=("gamma",))


def test_it_starts_when_memory_is_full(story: Story) -> None:
    """Nobody is stopped or drained for it, not even when more is held than there is."""
    story.resident("alpha")
    story.submit("alpha", "1")
    assert story.submit("gamma", "2") == [msg.Start("gamma", 1)]
    other = Story(weightless=("gamma",))
    other.resident("alpha")
    other.submit("alpha", "1")
    other.tell(msg.Measured(0, {"alpha": 50}))
    assert other.submit("gamma", "2") == [msg.Start("gamma", 1)]


def test_nobody_is_helped_by_its_end(story: Story) -> None:
    """It is not evicted: there would be nothing to have. It ends when nobody wants it."""
    story.submit("gamma", "1")
    story.ready("gamma", footprint=0)
    story.finish("1")
    story.resident("alpha")
    story.now += 60
    assert story.submit("beta", "2") == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.model("gamma").phase is Phase.READY
    assert msg.Stop("gamma", 1, "idle") in story.wait(story.policy.idle_to_sleep_s)


def test_what_one_more_would_wait(story: Story) -> None:
    """Nothing at a model that is ready and idle; the load, the runs ahead; no end at one
    that cannot start."""
    assert story.scheduler.estimate("alpha", "", story.now).wait_s == story.policy.unknown_load_s
    story.submit("alpha", "1")
    story.ready("alpha")
    story.finish("1", service_s=3.0)
    assert story.scheduler.estimate("alpha", "", story.now).wait_s == 0
    story.submit("alpha", "2", "3")
    assert story.scheduler.estimate("alpha", "", story.now).wait_s == pytest.approx(6.0)
    assert story.scheduler.standing("2", story.now) is None
    assert story.scheduler.standing("3", story.now) is not None
    story.tell(msg.Measured(5, {}))
    assert story.scheduler.estimate("beta", "", story.now).wait_s == math.inf


def test_one_that_backs_off_takes_none(story: Story) -> None:
    """And has no time at which it would start; nor does anyone when the router stops."""
    story.submit("gamma", "1")
    story.tell(msg.StartFailed("gamma", 1, "not there"))
    assert not story.scheduler.estimate("gamma", "", story.now).accepted
    assert story.scheduler.estimate("gamma", "", story.now).wait_s == math.inf
    assert story.scheduler.estimate("alpha", "", story.now).accepted
    story.tell(msg.Draining())
    assert not story.scheduler.estimate("alpha", "", story.now).accepted


def test_a_full_queue_takes_none(story: Story) -> None:
    """The limit is the same as for everybody."""
    story.submit("gamma", *(str(n) for n in range(story.policy.queue_limit)))
    assert not story.scheduler.estimate("gamma", "", story.now).accepted
