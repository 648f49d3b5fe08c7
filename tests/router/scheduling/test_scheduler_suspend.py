"""The lowest level: the driver suspends a process, so that it holds nothing on the card."""

from __future__ import annotations

import pytest

from router.errors import ModelUnavailable
from router.scheduling import messages as msg
from router.scheduling.model import Phase
from tests.router.scheduling.conftest import LOAD_S, Story


def two_sleepers(*, can_suspend: bool = True) -> Story:
    """Each holds 1 of 10 asleep; alpha is asked for more often."""
    story = Story(budget=11)
    story.asleep("alpha", "beta", residue=1, can_suspend=can_suspend)
    story.model("alpha").note_request(story.now)
    return story


def test_a_sleepers_rest_is_suspended_for_others() -> None:
    """The colder sleeper first, and no more of them than are needed; none is stopped. A wake from
    there needs all of its memory, and its time is kept apart."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 9}))
    assert story.submit("gamma", "1") == [
        story.sleep("beta", "evicted for gamma", hook=False, driver=True)
    ]
    assert story.phase("beta") is Phase.FALLING_ASLEEP
    assert story.suspended("beta", 1) == [msg.Start("gamma", 1)]
    beta = story.scheduler.snapshot(story.now).models["beta"]
    assert (beta.phase, beta.suspended, beta.memory_bytes) == (Phase.ASLEEP, True, 0)
    assert (beta.evictions, beta.residue_bytes) == (1, 1)
    story.ready("gamma", can_sleep=True)
    story.finish("1")
    assert story.submit("beta", "2") == []
    assert story.wait(10) == [
        story.sleep("gamma", "evicted for beta"),
        story.sleep("alpha", "evicted for beta", hook=False, driver=True),
    ]
    story.suspended("alpha", 1)
    assert story.slept("gamma", residue=0) == [msg.Wake("beta", 1)]
    assert story.model("beta").held_bytes == 10
    story.woke("beta", wake_s=2.0)
    beta = story.scheduler.snapshot(story.now).models["beta"]
    assert (beta.suspended, beta.resume_s, beta.wake_s) == (False, 2.0, None)


def test_by_both_rungs_at_once() -> None:
    """A model that could keep something asleep goes down both levels when that is needed too."""
    story = Story()
    story.asleep("alpha", residue=2, can_suspend=True)
    story.submit("alpha", "1")
    story.woke("alpha")
    story.finish("1")
    story.wait(10)
    assert story.submit("beta", "2") == [
        story.sleep("alpha", "evicted for beta", hook=True, driver=True)
    ]
    assert story.model("alpha").host_limit_bytes == 11 + 2  # the copies and what the hook leaves
    assert story.suspended("alpha", 2) == [msg.Start("beta", 1)]


def test_before_any_is_stopped() -> None:
    """Where the driver can suspend one model, another that it cannot suspend is not stopped."""
    story = two_sleepers(can_suspend=False)
    story.model("alpha").can_suspend = True
    story.tell(msg.Measured(10, {"gamma": 9}))
    assert story.submit("gamma", "1") == [
        story.sleep("alpha", "evicted for gamma", hook=False, driver=True)
    ]


def test_both_where_both_are_needed() -> None:
    """The rest of a ready model and of a sleeper, where nothing less is enough."""
    story = Story(budget=20)
    story.asleep("alpha", residue=1, can_suspend=True)
    story.asleep("beta", residue=2, can_suspend=True)
    story.submit("beta", "1")
    story.woke("beta")
    story.finish("1")
    story.wait(10)
    story.tell(msg.Measured(20, {"gamma": 20}))
    assert story.submit("gamma", "2") == [
        story.sleep("beta", "evicted for gamma", driver=True),
        story.sleep("alpha", "evicted for gamma", hook=False, driver=True),
    ]


@pytest.mark.parametrize("seconds", [LOAD_S - 1, LOAD_S])
def test_what_was_measured_decides(seconds: float) -> None:
    """To suspend and resume takes longer than a start: it is stopped from then on."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 10}))
    story.submit("gamma", "1")
    story.suspended("alpha", 1, seconds=seconds - 0.5)
    story.suspended("beta", 1, seconds=seconds - 0.5)
    for name in ("alpha", "beta"):
        m = story.model(name)
        m.wake_s = 0.5
        m.suspended = False
        assert m.may_suspend is (seconds < LOAD_S), m


def test_refused_by_the_driver() -> None:
    """It sleeps on, the driver is not asked again, and it is stopped."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 9}))
    story.submit("gamma", "1")
    assert story.tell(msg.SleepRefused("beta", 1, "not permitted")) == [
        story.sleep("alpha", "evicted for gamma", hook=False, driver=True)
    ]
    assert story.phase("beta") is Phase.ASLEEP
    assert story.model("beta").can_sleep
    assert story.model("beta").suspend_refusal == "not permitted"
    assert story.tell(msg.SleepRefused("alpha", 1, "not permitted")) == [
        msg.Stop("beta", 1, "evicted for gamma")
    ]
    assert story.stopped("beta") == [msg.Start("gamma", 1)]


def test_the_second_rung_refused() -> None:
    """It has fallen asleep, and no further: what it holds counts, and then it is stopped."""
    story = Story()
    story.asleep("alpha", residue=2, can_suspend=True)
    story.submit("alpha", "1")
    story.woke("alpha")
    story.finish("1")
    story.wait(10)
    story.submit("beta", "2")
    slept = msg.Slept("alpha", 1, 2, 8, 10, 0.1, 0, "a call failed")
    assert story.tell(slept) == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.model("alpha").suspend_refusal == "a call failed"


def test_failed_half_way() -> None:
    """Nobody knows where the process is: it is stopped, and what it held counts until then."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 9}))
    story.submit("gamma", "1")
    assert story.tell(msg.SleepFailed("beta", 1)) == [msg.Stop("beta", 1, "cannot sleep")]
    assert story.model("beta").held_bytes == 1
    assert story.stopped("beta") == [msg.Start("gamma", 1)]


def test_a_hook_that_refuses_leaves_the_driver() -> None:
    """A model whose hook cannot is suspended as a whole, if that is quicker than a start."""
    story = Story()
    story.tell(msg.Load("alpha"))
    story.ready("alpha", can_sleep=True, can_suspend=True)
    story.wait(2)
    story.tell(msg.SleepRefused("alpha", 1, "CUDA graphs", staging=True))
    story.wait(10)
    assert story.submit("beta", "1") == [
        story.sleep("alpha", "evicted for beta", hook=False, driver=True)
    ]
    assert story.suspended("alpha", 10, host=0) == [msg.Start("beta", 1)]
    assert story.model("alpha").held_host_bytes == 10
    assert story.scheduler.estimate("alpha", "", story.now).wait_s < 1
    story.ready("beta")
    story.finish("1")
    story.submit("alpha", "2")
    story.wake()
    assert story.stopped("beta") == [msg.Wake("alpha", 1)]
    story.woke("alpha")
    assert story.model("alpha").held_host_bytes == 0


def test_a_large_model_is_rather_started_again() -> None:
    """The driver takes four seconds for three gigabytes and a half, and the start no more."""
    story = Story(budget=5 << 30)
    story.tell(msg.Load("alpha"))
    story.ready("alpha", footprint=7 << 29, can_suspend=True)
    story.wait(10)
    story.tell(msg.Measured(5 << 30, {"beta": 4 << 30}))
    assert story.submit("beta", "1") == [msg.Stop("alpha", 1, "evicted for beta")]


def test_no_main_memory_for_it() -> None:
    """Then it is stopped."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 9}, 20))
    assert story.submit("gamma", "1") == [msg.Stop("beta", 1, "evicted for gamma")]


def test_a_claim_of_a_suspended_model_is_as_patient_as_its_wake() -> None:
    """Busy models are drained for it after four times what a wake from there takes."""
    story = two_sleepers()
    story.tell(msg.Measured(10, {"gamma": 9}))
    story.submit("gamma", "1", "2", "3")
    story.suspended("beta", 1)
    story.ready("gamma", can_sleep=True)
    story.model("beta").resume_s = 3.0
    story.submit("beta", "4")
    at = story.scheduler.next_wakeup(story.now)
    assert at is not None
    story.wait(11.9)
    story.finish("1")
    assert story.running("gamma") == ["2"]
    story.wait(0.2)
    story.finish("2")
    assert story.running("gamma") == []


# ---- another program holds the card ------------------------------------------------------


def test_a_patient_prediction_waits_for_the_card(story: Story) -> None:
    """While another program holds it, others are refused; one that waits runs when it is free."""
    story.tell(msg.Measured(5, {}))
    assert story.submit("alpha", "1", waits_out_outages=True) == []
    story.submit("alpha", "2")
    assert isinstance(story.dropped()["2"], ModelUnavailable)
    assert story.waiting("alpha") == ["1"]
    assert story.wait(600) == []
    assert story.tell(msg.Measured(10, {})) == [msg.Start("alpha", 1)]


def test_patience_does_not_help_a_model_that_never_fits(story: Story) -> None:
    """It is refused when it would not fit on an empty card either."""
    story.tell(msg.Measured(10, {"alpha": 11}))
    story.submit("alpha", "1", waits_out_outages=True)
    assert isinstance(story.dropped()["1"], ModelUnavailable)


def test_what_an_empty_card_would_hold() -> None:
    """Another program may hold it from the beginning."""
    story = Story(budget=5, most=10)
    assert story.submit("alpha", "1", waits_out_outages=True) == []
    assert story.tell(msg.Measured(10, {})) == [msg.Start("alpha", 1)]
