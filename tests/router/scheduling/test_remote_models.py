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
    return Story(remote_models=("gamma",))


def test_it_starts_when_memory_is_full(story: Story) -> None:
    """Nobody is stopped or drained for it, not even when more is held than there is."""
    story.resident("alpha")
    story.submit("alpha", "1")
    assert story.submit("gamma", "2") == [msg.Start("gamma", 1)]
    other = Story(remote_models=("gamma",))
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
    story.tell(msg.RouterStopping())
    assert not story.scheduler.estimate("alpha", "", story.now).accepted


def test_a_full_queue_takes_none(story: Story) -> None:
    """The limit is the same as for everybody."""
    story.submit("gamma", *(str(n) for n in range(story.policy.queue_limit)))
    assert not story.scheduler.estimate("gamma", "", story.now).accepted


def through_outage(story: Story, *ids: str) -> list[msg.Effect]:
    """Asynchronous predictions arrive for gamma."""
    effects = []
    for prediction_id in ids:
        effects += story.tell(msg.Submitted(prediction_id, "gamma", waits_out_outages=True))
    return effects


def away(story: Story) -> list[msg.Effect]:
    """gamma's machine is not reached."""
    generation = story.model("gamma").generation
    return story.tell(msg.StartFailed("gamma", generation, "not there", outage=True))


def test_a_patient_one_waits_for_a_machine_that_is_away(story: Story) -> None:
    """Through any number of tries; others are refused at once. When it is back, all run."""
    through_outage(story, "1")
    story.submit("gamma", "2")
    assert [type(e) for e in away(story)] == [msg.Drop]
    assert through_outage(story, "3") == []
    assert [type(e) for e in story.submit("gamma", "4")] == [msg.Drop]
    for generation in range(2, 12):
        assert story.wake() == [msg.Start("gamma", generation)]
        assert away(story) == []
    story.wake()
    assert story.ready("gamma", footprint=0) == [msg.Run("1", "gamma", 12)]
    assert story.finish("1") == [msg.Run("3", "gamma", 12)]


def test_a_patient_one_that_is_handed_back_waits(story: Story) -> None:
    """Its machine was lost while it ran, and is away for longer than anybody else waits."""
    through_outage(story, "1", "2")
    story.ready("gamma", footprint=0)
    for _ in range(6):
        story.die("gamma")
        if story.running("gamma"):
            assert story.hand_back("1") == []
        story.stopped("gamma")
        assert story.waiting("gamma") == ["1", "2"]
        story.wake()
        assert [type(e) for e in story.ready("gamma", footprint=0)] == [msg.Run]


def test_a_patient_one_does_not_wait_for_what_will_fail_again(story: Story) -> None:
    """A key that is not accepted, or the set-up of a model of this machine."""
    through_outage(story, "1")
    story.tell(msg.StartFailed("gamma", 1, "does not accept the key"))
    assert [e.id for e in story.effects if isinstance(e, msg.Drop)] == ["1"]
    story.tell(msg.Submitted("2", "alpha", waits_out_outages=True))
    story.tell(msg.StartFailed("alpha", 1, "no weights", outage=True))
    assert [e.id for e in story.effects if isinstance(e, msg.Drop)] == ["2"]


def test_a_patient_one_needs_a_place(story: Story) -> None:
    """The queue's limit holds for everybody."""
    through_outage(story, "0")
    away(story)
    assert through_outage(story, *(str(n) for n in range(1, story.policy.queue_limit))) == []
    assert [type(e) for e in through_outage(story, "one more")] == [msg.Drop]
