"""What the operator asks: a restart, an unload, a load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.scheduling import messages as msg
from router.scheduling.model import Phase

if TYPE_CHECKING:
    from tests.router.scheduling.conftest import Story


def test_a_restart_waits_for_what_runs(story: Story) -> None:
    """Nothing is dropped: what runs ends, what waits runs on the new process."""
    story.resident("alpha")
    story.submit("alpha", "1")
    assert story.tell(msg.Unload("alpha", again=True)) == []
    assert story.submit("alpha", "2") == []
    assert story.finish("1") == [msg.Stop("alpha", 1, "restart")]
    assert story.stopped("alpha") == [msg.Start("alpha", 2)]
    assert story.ready("alpha") == [msg.Run("2", "alpha", 2)]
    assert story.dropped() == {}


def test_a_restart_of_a_start(story: Story) -> None:
    """The start with the old code is given up."""
    story.submit("alpha", "1")
    assert story.tell(msg.Unload("alpha", again=True)) == [msg.Stop("alpha", 1, "restart")]
    assert story.stopped("alpha") == [msg.Start("alpha", 2)]
    assert story.ready("alpha") == [msg.Run("1", "alpha", 2)]


def test_a_restart_ends_the_back_off(story: Story) -> None:
    """The failure may be repaired: it is tried at once."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    assert story.phase("alpha") is Phase.FAILED
    assert story.tell(msg.Unload("alpha", again=True)) == [msg.Start("alpha", 2)]
    assert story.model("alpha").failures == 0


def test_an_unload(story: Story) -> None:
    """It stays unloaded until the next prediction."""
    story.resident("alpha")
    assert story.tell(msg.Unload("alpha")) == [msg.Stop("alpha", 1, "unload")]
    assert story.stopped("alpha") == []
    assert story.wait(600.0) == []
    assert story.tell(msg.Unload("alpha")) == []
    assert story.submit("alpha", "1") == [msg.Start("alpha", 2)]


def test_a_load_before_the_back_off_is_over(story: Story) -> None:
    """A preload waits for it; the operator does not."""
    story.submit("alpha", "1")
    story.fail_start("alpha")
    assert story.tell(msg.Load("alpha")) == []
    assert story.tell(msg.Load("alpha", at_once=True)) == [msg.Start("alpha", 2)]


def test_not_while_the_router_stops(story: Story) -> None:
    """It stops everything itself."""
    story.resident("alpha")
    story.submit("alpha", "1")
    story.tell(msg.RouterStopping())
    assert story.tell(msg.Unload("alpha", again=True)) == []
    assert story.finish("1") == [msg.Stop("alpha", 1, "shutdown")]
    assert story.stopped("alpha") == []
