"""Who is next in a queue, how long a queue may be, and what those who wait can read."""

from __future__ import annotations

import pytest

from router.errors import QueueFull
from router.scheduling import messages as msg
from router.scheduling.snapshot import Standing
from tests.router.scheduling.conftest import Story


def test_urgent_first(story: Story) -> None:
    """Priority decides who runs next, and age counts towards it."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.submit("alpha", "background", priority=2)
    story.submit("alpha", "normal")
    story.submit("alpha", "urgent", priority=0)
    assert story.waiting("alpha") == ["urgent", "normal", "background"]
    story.now += 2 * story.policy.ageing_s
    assert story.waiting("alpha") == ["background", "normal", "urgent"]


def test_clients_take_turns(story: Story) -> None:
    """A client with many requests delays another's single one by one turn."""
    story.resident("alpha")
    story.submit("alpha", *(f"a{i}" for i in range(20)), owner="a")
    story.now += 1
    story.submit("alpha", "b", owner="b")
    story.finish("a0")
    assert story.finish("a1") == [msg.Run("b", "alpha", 1)]


def test_an_id_is_taken_once(story: Story) -> None:
    """The same prediction submitted again while it waits or runs does not run twice."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    assert story.submit("alpha", "1", "2") == []
    assert story.finish("1") == [msg.Run("2", "alpha", 1)]
    assert story.finish("2") == []


# ---- the queue's limit -------------------------------------------------------------------


def test_a_full_queue_refuses(story: Story) -> None:
    """Beyond queue_limit a request is refused, and a place that is left can be taken."""
    story.resident("alpha")
    limit = story.policy.queue_limit
    story.submit("alpha", *(str(i) for i in range(1 + limit)))
    assert not story.dropped()
    story.submit("alpha", "late")
    assert isinstance(story.dropped()["late"], QueueFull)
    story.finish("0")
    story.submit("alpha", "later")
    assert not story.dropped()


@pytest.mark.parametrize(("parallel", "expected_s"), [(1, 6.0), (4, 1.5)])
def test_retry_after_is_one_service_time(story: Story, parallel: int, expected_s: float) -> None:
    """A ready model's Retry-After is the measured time in which a place is freed."""
    story.tell(msg.Described("alpha", parallel))
    story.resident("alpha")
    story.submit("alpha", "0")
    story.finish("0", service_s=6.0)
    story.submit("alpha", *(str(i) for i in range(1, 2 + parallel + story.policy.queue_limit)))
    [refusal] = story.dropped().values()
    assert refusal.retry_after_s == pytest.approx(expected_s)


def test_retry_after_counts_the_load(story: Story) -> None:
    """While the model starts, what is left of its set-up is added."""
    story.resident("alpha")
    story.submit("alpha", "0")
    story.finish("0", service_s=6.0)
    story.wake()
    story.stopped("alpha")
    story.submit("alpha", *(str(i) for i in range(1, 1 + story.policy.queue_limit)))
    story.now += 1  # of the 4 seconds that it took before
    story.submit("alpha", "late")
    assert story.dropped()["late"].retry_after_s == pytest.approx(3.0 + 6.0)


def test_one_client_cannot_lock_another_out(story: Story) -> None:
    """A queue full of one client's requests refuses that client and still lets another in."""
    story.resident("alpha")
    story.submit("alpha", *(f"a{i}" for i in range(1 + story.policy.queue_limit)), owner="a")
    story.submit("alpha", "a", owner="a")
    assert isinstance(story.dropped()["a"], QueueFull)
    story.submit("alpha", "b", owner="b")
    assert not story.dropped()


# ---- standing ----------------------------------------------------------------------------


def test_standing_in_a_running_queue(story: Story) -> None:
    """Position counts from 1; every full round ahead takes one measured service time."""
    story.resident("alpha")
    story.submit("alpha", "0")
    story.finish("0", service_s=3.0)
    story.submit("alpha", "1", "2", "3")
    assert story.scheduler.standing("1", story.now) is None  # runs
    assert story.scheduler.standing("2", story.now) == Standing(1, 3.0)
    assert story.scheduler.standing("3", story.now) == Standing(2, 6.0)
    assert story.scheduler.standing("nobody", story.now) is None


def test_standing_while_the_model_starts(story: Story) -> None:
    """The time that the set-up is still expected to take comes first."""
    story.submit("alpha", "1", "2")
    eta_s = story.policy.unknown_load_s
    story.now += 10
    assert story.scheduler.standing("1", story.now) == Standing(1, eta_s - 10)
    expected_s = eta_s - 10 + story.policy.unknown_service_s
    assert story.scheduler.standing("2", story.now) == Standing(2, expected_s)


def test_standing_when_the_set_up_takes_longer_than_it_did(story: Story) -> None:
    """A set-up that should be over by now is expected any moment, not in the past."""
    story.submit("alpha", "1")
    story.now += story.policy.unknown_load_s + 100
    assert story.scheduler.standing("1", story.now) == Standing(1, 0.5)


def test_standing_before_a_model_that_is_drained(story: Story) -> None:
    """What waits for it is served after the other's turn: after another load at least."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    story.submit("beta", "b")
    story.wait(story.policy.patience_s)
    assert story.model("alpha").draining
    standing = story.scheduler.standing("2", story.now)
    assert standing is not None
    assert standing.eta_s >= 4.0  # conftest.LOAD_S, which it took


def test_standing_before_the_start(story: Story) -> None:
    """A model that has no room yet is expected to take one set-up once it has."""
    story.resident("alpha")
    story.submit("alpha", "a")
    story.submit("beta", "b")
    standing = story.scheduler.standing("b", story.now)
    assert standing == Standing(1, story.policy.unknown_load_s)


def test_standing_after_a_crash(story: Story) -> None:
    """The back-off and the next set-up are part of the expected wait."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    story.die("alpha")
    standing = story.scheduler.standing("2", story.now)
    # One second of back-off, four of loading; "1" keeps the only slot for a service time.
    assert standing == Standing(1, 1.0 + 4.0 + story.policy.unknown_service_s)


def test_standing_shrinks_with_concurrency(story: Story) -> None:
    """Four at a time means a quarter of the rounds."""
    story.tell(msg.Described("alpha", 4))
    story.submit("alpha", *(str(i) for i in range(9)))
    load_s, service_s = story.policy.unknown_load_s, story.policy.unknown_service_s
    assert story.scheduler.standing("3", story.now) == Standing(4, load_s)
    assert story.scheduler.standing("4", story.now) == Standing(5, load_s + service_s)
    assert story.scheduler.standing("8", story.now) == Standing(9, load_s + 2 * service_s)
