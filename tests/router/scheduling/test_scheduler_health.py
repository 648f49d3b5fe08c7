"""A model whose own health check says no: who waits, when it is restarted, when it is given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.errors import ModelUnavailable
from router.scheduling import messages as msg
from router.scheduling.model import Phase

if TYPE_CHECKING:
    from tests.router.scheduling.conftest import Story

NO = "it returned False"
RESTART_S = 15.0


def say(story: Story, problem: str, model: str = "alpha") -> list[msg.Effect]:
    """The model's health check says this from now on."""
    return story.tell(msg.HealthChanged(model, story.model(model).generation, problem))


def test_it_gets_no_predictions(story: Story) -> None:
    """They wait until it is well again; it keeps what it runs."""
    story.resident("alpha")
    story.submit("alpha", "1")
    say(story, NO)
    assert story.model("alpha").state == "unhealthy"
    assert story.submit("alpha", "2") == []
    assert story.finish("1") == []
    assert story.waiting("alpha") == ["2"]
    assert say(story, "") == [msg.Run("2", "alpha", 1)]
    assert story.model("alpha").state == "busy"


def test_it_is_restarted(story: Story) -> None:
    """Like one that crashed: who waits is served by the next process."""
    story.resident("alpha")
    say(story, NO)
    story.submit("alpha", "1")
    assert story.scheduler.next_wakeup(story.now) is not None
    assert story.wait(RESTART_S - 0.1) == []
    assert story.wait(0.1) == [msg.Stop("alpha", 1, "unhealthy")]
    assert story.stopped("alpha") == []
    assert story.wait(1.0) == [msg.Start("alpha", 2)]
    assert story.ready("alpha") == [msg.Run("1", "alpha", 2)]


def test_by_itself_once(story: Story) -> None:
    """Nobody waits: it is started again all the same, and after a second time no more."""
    story.resident("alpha")
    say(story, NO)
    assert story.wake() == [msg.Stop("alpha", 1, "unhealthy")]
    story.stopped("alpha")
    assert story.model("alpha").problem == NO
    assert story.wait(1.0) == [msg.Start("alpha", 2)]
    assert story.model("alpha").problem == ""
    say(story, NO)
    story.ready("alpha")
    assert story.model("alpha").state == "unhealthy"
    assert story.wait(RESTART_S) == [msg.Stop("alpha", 2, "unhealthy")]
    story.stopped("alpha")
    assert story.wait(600.0) == []
    assert story.phase("alpha") is Phase.FAILED
    assert story.submit("alpha", "1") == [msg.Start("alpha", 3)]


def test_why_is_said(story: Story) -> None:
    """Who comes during a long back-off learns what the health check says."""
    story.resident("alpha")
    story.model("alpha").failures = 10
    say(story, NO)
    story.wait(RESTART_S)
    story.submit("alpha", "1")
    error = story.dropped()["1"]
    assert isinstance(error, ModelUnavailable)
    assert NO in error.message


def test_never_while_it_runs_something(story: Story) -> None:
    """However long that takes; then at once."""
    story.resident("alpha")
    story.submit("alpha", "1")
    say(story, NO)
    assert story.wait(10 * RESTART_S) == []
    assert story.finish("1") == [msg.Stop("alpha", 1, "unhealthy")]


def test_a_new_trouble(story: Story) -> None:
    """One that was well for longer than the longest back-off is restarted by itself again."""
    story.resident("alpha")
    story.model("alpha").failures = 3
    story.tell(msg.Load("alpha"))
    story.now += story.policy.backoff_max_s
    story.tell(msg.Submitted("1", "alpha"))
    say(story, NO)
    story.tell(msg.Finished("1", "alpha", 1))
    story.wait(RESTART_S)
    assert (story.model("alpha").failures, story.model("alpha").load_requested) == (1, True)


def test_it_is_forgotten_with_the_process(story: Story) -> None:
    """An idle model that is not well gives its memory back like any other, and is then only
    stopped; a late word about it is not heard."""
    story.resident("alpha")
    say(story, NO)
    story.submit("beta", "1")
    assert story.effects == [msg.Stop("alpha", 1, "evicted for beta")]
    say(story, NO)
    assert story.model("alpha").problem == ""
    story.stopped("alpha")
    assert story.phase("alpha") is Phase.STOPPED
