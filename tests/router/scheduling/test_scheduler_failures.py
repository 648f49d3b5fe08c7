"""Set-ups that fail, processes that die: who is told, who waits, and when it is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from router.errors import ModelUnavailable
from router.scheduling import messages as msg
from router.scheduling.model import Phase

if TYPE_CHECKING:
    from tests.router.scheduling.conftest import Story


def crash(story: Story, model: str = "alpha") -> None:
    """A resident model dies and its process is cleared away."""
    story.die(model)
    story.stopped(model)


# ---- a set-up fails ----------------------------------------------------------------------


def test_a_failed_start_tells_its_waiters(story: Story) -> None:
    """Everyone who waited learns why, and when to try again."""
    story.submit("alpha", "1", "2")
    story.fail_start("alpha")
    assert story.dropped().keys() == {"1", "2"}
    for error in story.dropped().values():
        assert isinstance(error, ModelUnavailable)
        assert error.message == "Cannot start 'alpha': no weights"
        assert error.retry_after_s == 1.0


def test_a_start_that_knows_when(story: Story) -> None:
    """A back-end that says when to come again is not asked before, within the back-off's limit."""
    for asked_s, told_s in ((90.0, 90.0), (1e6, 300.0)):
        story.submit("alpha", "1")
        generation = story.model("alpha").generation
        story.tell(msg.StartFailed("alpha", generation, "not now", (), asked_s))
        assert story.dropped()["1"].retry_after_s == told_s
        story.now += told_s - 1.0
        story.submit("alpha", "2")
        assert story.dropped()["2"].retry_after_s == 1.0
        story.now += 1.0


def test_who_was_told_may_come_again(story: Story) -> None:
    """A prediction that was dropped can be submitted again under its id."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    story.now += 1.0
    assert story.submit("alpha", "1") == [msg.Start("alpha", 2)]


def test_backing_off(story: Story) -> None:
    """Until the back-off is over, requests are refused at once and nothing is started."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    story.now += 0.5
    story.submit("alpha", "2")
    assert isinstance(story.dropped()["2"], ModelUnavailable)
    assert story.wait(0.5) == []  # nobody waits, so nothing is tried


def test_half_open(story: Story) -> None:
    """After the back-off the next request is the probe; the others wait for its result."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    story.now += 1.0
    assert story.submit("alpha", "2") == [msg.Start("alpha", 2)]
    assert story.submit("alpha", "3") == []
    assert story.ready("alpha") == [msg.Run("2", "alpha", 2)]
    assert story.finish("2") == [msg.Run("3", "alpha", 2)]


def test_back_off_doubles_to_its_limit(story: Story) -> None:
    """1, 2, 4 … seconds, never more than 300, however often it fails."""
    waits = []
    for i in range(12):
        story.submit("alpha", str(i))
        story.fail_start("alpha")
        retry_after_s = story.dropped()[str(i)].retry_after_s
        assert retry_after_s is not None
        waits.append(retry_after_s)
        story.now += retry_after_s
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_model_may_fail_for_weeks(story: Story) -> None:
    """The doubling does not overflow after a thousand failures."""
    for i in range(2000):
        story.submit("alpha", str(i))
        story.fail_start("alpha")
        story.now += 300
    assert story.model("alpha").failures == 2000


def test_success_resets_the_back_off(story: Story) -> None:
    """A prediction that succeeds makes the next failure the first again; Ready does not."""
    for i in range(3):
        story.submit("alpha", str(i))
        story.fail_start("alpha")
        story.now += 10
    story.submit("alpha", "probe")
    story.ready("alpha")
    assert story.model("alpha").failures == 3
    story.finish("probe")
    crash(story)
    assert story.model("alpha").retry_at == story.now + 1.0


def test_a_failure_of_one_model_is_its_own(roomy: Story) -> None:
    """While one model backs off, others start and run."""
    roomy.submit("alpha", "1")
    roomy.fail_start("alpha")
    assert roomy.submit("beta", "2") == [msg.Start("beta", 1)]


# ---- a process dies ----------------------------------------------------------------------


def test_a_crash_is_cleared_away_and_waited_out(story: Story) -> None:
    """The dead process is stopped; after a second it is started again for who waits."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    assert story.die("alpha") == [msg.Stop("alpha", 1, "crashed")]
    story.finish("1", service_s=None)
    assert story.stopped("alpha") == []
    assert story.phase("alpha") is Phase.FAILED
    assert story.submit("alpha", "3") == []
    assert story.scheduler.next_wakeup(story.now) == story.now + 1.0
    assert story.wake() == [msg.Start("alpha", 2)]
    assert story.ready("alpha") == [msg.Run("2", "alpha", 2)]


def test_a_slow_stop_is_its_own_back_off(story: Story) -> None:
    """If the dead process takes longer to clear away than the back-off, it starts at once."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    story.die("alpha")
    assert story.wait(5) == []
    assert story.stopped("alpha") == [msg.Start("alpha", 2)]


def test_a_run_keeps_its_slot_until_it_is_reported(story: Story) -> None:
    """The slot of a run of the dead process is free only when that run's end is known."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    crash(story)
    story.wake()
    assert story.ready("alpha") == []
    assert story.model("alpha").running["1"].generation == 1
    assert story.finish("1", service_s=None) == [msg.Run("2", "alpha", 2)]


def test_handed_back_runs_first(story: Story) -> None:
    """A prediction that never began goes back to where it had stood, before all others."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    story.submit("alpha", "urgent", priority=0, owner="b")
    story.die("alpha")
    assert story.hand_back("1") == []
    assert story.waiting("alpha") == ["1", "urgent", "2"]
    story.stopped("alpha")
    assert story.wake() == [msg.Start("alpha", 2)]
    assert story.ready("alpha") == [msg.Run("1", "alpha", 2)]


def test_a_long_back_off_is_not_waited_out(story: Story) -> None:
    """When crashes have made the back-off long, waiters are told instead of kept."""
    story.resident("alpha")
    story.submit("alpha", "running")
    for _ in range(4):  # 1, 2, 4 and 8 seconds
        story.submit("alpha", "next")
        crash(story)
        assert not story.dropped()
        story.wake()
        story.ready("alpha")
    story.submit("alpha", "waiting")
    story.die("alpha")
    assert story.dropped().keys() == {"next", "waiting"}
    assert story.dropped()["next"].retry_after_s == 16.0


def test_a_long_back_off_refuses_before_the_process_is_gone(story: Story) -> None:
    """Who comes while a much-crashed process is cleared away is told at once too."""
    story.resident("alpha")
    story.model("alpha").failures = 7
    story.submit("alpha", "1")
    story.die("alpha")
    story.submit("alpha", "2")
    assert isinstance(story.dropped()["2"], ModelUnavailable)
    story.hand_back("1")
    assert isinstance(story.dropped()["1"], ModelUnavailable)


def test_the_end_of_a_long_back_off_is_waited_out(story: Story) -> None:
    """Who comes less than wait_out_backoff_s before the next try waits for it."""
    story.resident("alpha")
    story.model("alpha").failures = 4
    crash(story)
    story.now += 6.1
    assert story.submit("alpha", "1") == []
    assert story.wake() == [msg.Start("alpha", 2)]


def test_a_crash_of_the_idle_waits_for_demand(story: Story) -> None:
    """A model that dies with nothing to do is not started again for nobody."""
    story.resident("alpha")
    crash(story)
    assert story.scheduler.next_wakeup(story.now) is None
    assert story.wait(100) == []
    assert story.submit("alpha", "1") == [msg.Start("alpha", 2)]


def test_a_late_success_does_not_excuse_a_crash(story: Story) -> None:
    """A run that got done before its process died does not reset the back-off."""
    story.tell(msg.Described("alpha", 2))
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    story.model("alpha").failures = 2
    story.die("alpha")
    story.finish("1", service_s=1.0)
    assert story.model("alpha").failures == 3
    story.stopped("alpha")
    story.finish("2", service_s=1.0)
    assert story.model("alpha").failures == 3


def test_a_rare_crash_is_a_first_crash(story: Story) -> None:
    """A model that has held longer than the longest back-off starts again after a second."""
    story.resident("alpha")
    story.model("alpha").failures = 8
    for i in range(10):
        story.submit("alpha", str(i))
        story.now += 100
        story.finish(str(i), service_s=None)
    crash(story)
    assert story.model("alpha").retry_at == story.now + 1.0


def test_counting(story: Story) -> None:
    """Loads and crashes are counted."""
    story.resident("alpha")
    crash(story)
    story.submit("alpha", "1")
    story.wake()
    story.ready("alpha")
    assert (story.model("alpha").loads, story.model("alpha").crashes) == (2, 1)


# ---- preloading --------------------------------------------------------------------------


def test_a_preload_waits_out_the_back_off(story: Story) -> None:
    """A model that is warmed while it backs off is started when that is over."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    assert story.tell(msg.Load("alpha")) == []
    assert story.wake() == [msg.Start("alpha", 2)]


def test_a_failed_preload_is_not_repeated(story: Story) -> None:
    """Nobody waits for it, so it is tried once."""
    story.tell(msg.Load("alpha"))
    story.fail_start("alpha")
    assert story.scheduler.next_wakeup(story.now) is None
    assert story.wait(1000) == []


def test_the_wait_is_measured(story: Story) -> None:
    """Load and service times are learnt from what is measured, recent ones more."""
    story.submit("alpha", "1")
    story.ready("alpha", load_s=10)
    story.finish("1", service_s=5)
    assert (story.model("alpha").load_s, story.model("alpha").service_s) == (10, 5)
    story.submit("alpha", "2")
    story.finish("2", service_s=10)
    assert story.model("alpha").service_s == pytest.approx(6)
