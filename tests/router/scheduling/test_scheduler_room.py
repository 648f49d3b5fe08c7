"""Models that share one memory: who has to go, who need not, and whose turn it is."""

from __future__ import annotations

import pytest

from router.errors import ModelUnavailable
from router.scheduling import messages as msg
from router.scheduling.model import Phase
from tests.router.scheduling.conftest import Story


def measured(story: Story, budget: int, **footprints: int) -> list[msg.Effect]:
    """Memory is measured."""
    return story.tell(msg.Measured(budget, footprints))


# ---- evicting idle models ----------------------------------------------------------------


def test_an_idle_model_makes_room(story: Story) -> None:
    """It is stopped, and the other starts only when its memory has been seen to be free."""
    story.resident("alpha")
    assert story.submit("beta", "1") == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.wait(5) == []
    assert story.stopped("alpha") == [msg.Start("beta", 1)]
    assert story.model("alpha").evictions == 1


def test_the_cheapest_goes(story: Story) -> None:
    """Of two idle models the one that is sooner brought back is stopped."""
    measured(story, 20)
    story.tell(msg.Load("alpha"))
    story.ready("alpha", load_s=60)
    story.tell(msg.Load("beta"))
    story.ready("beta", load_s=2)
    story.now += 10
    assert story.submit("gamma", "1") == [msg.Stop("beta", 1, "evicted for gamma")]


def test_a_new_model_is_left_alone(story: Story) -> None:
    """Below min_residency_s nobody is evicted; the claim is woken for the moment after."""
    story.submit("alpha", "1")
    story.ready("alpha")
    story.finish("1")
    assert story.submit("beta", "2") == []
    assert story.scheduler.next_wakeup(story.now) == story.now + story.policy.min_residency_s
    assert story.wake() == [msg.Stop("alpha", 1, "evicted for beta")]


def test_an_idle_model_need_not_earn_its_load(story: Story) -> None:
    """However long it took to load, without work a model goes at min_residency_s."""
    story.submit("alpha", "1")
    story.ready("alpha", load_s=50)
    story.finish("1")
    story.submit("beta", "2")
    assert story.wake() == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.now == 1050.0 + story.policy.min_residency_s


def test_the_less_asked_for_goes(story: Story) -> None:
    """Of two idle models that load equally fast, the one with fewer requests is stopped."""
    measured(story, 20)
    story.resident("alpha", "beta")
    story.submit("alpha", "a1", "a2")
    story.submit("beta", "b1")
    story.finish("a1", "a2", "b1")
    assert story.submit("gamma", "1") == [msg.Stop("beta", 1, "evicted for gamma")]


def test_two_claims_do_not_share_one_victim(story: Story) -> None:
    """Memory on its way belongs to the older claim; the younger finds its own."""
    measured(story, 20)
    story.resident("alpha", "beta")
    story.submit("beta", "b1")
    story.finish("b1")
    assert story.submit("gamma", "1") == [msg.Stop("alpha", 1, "evicted for gamma")]
    assert story.submit("alpha", "2") == []
    assert story.stopped("alpha") == [
        msg.Start("gamma", 1),
        msg.Stop("beta", 1, "evicted for alpha"),
    ]


def test_a_small_claim_does_not_overtake_a_large_one(story: Story) -> None:
    """What an older claim waits for is not given to a younger one that would fit at once."""
    measured(story, 10, alpha=6, beta=10, gamma=3)
    story.resident("alpha")
    story.submit("alpha", "1")
    story.submit("beta", "2")
    story.now += 1
    assert story.submit("gamma", "3") == []
    story.finish("1")
    assert story.phase("alpha") is Phase.STOPPING
    assert story.stopped("alpha") == [msg.Start("beta", 1)]


# ---- draining busy models ----------------------------------------------------------------


def test_patience(story: Story) -> None:
    """After patience_s a busy model is granted nothing new, and goes with its last run."""
    story.resident("alpha")
    story.submit("alpha", "a1", "a2")
    story.submit("beta", "b1")
    assert story.finish("a1") == [msg.Run("a2", "alpha", 1)]
    story.submit("alpha", "a3")
    assert not story.model("alpha").draining
    assert story.scheduler.next_wakeup(story.now) == story.now + story.policy.patience_s
    assert story.wait(story.policy.patience_s) == []
    assert story.model("alpha").draining
    assert story.submit("alpha", "a4") == []
    assert story.finish("a2") == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.waiting("alpha") == ["a3", "a4"]
    assert story.stopped("alpha") == [msg.Start("beta", 1)]


def test_who_drains_is_decided_at_once() -> None:
    """When a large model may drain too, and is enough for two claims, the small one that drained
    until then serves on in the same moment."""
    story = Story(budget=8, concurrency={"gamma": 2, "delta": 1})
    measured(story, 8, alpha=2, beta=6, gamma=2, delta=2)
    story.submit("gamma", "g1", "g2", "g3")
    story.ready("gamma")
    story.submit("beta", "b1", "b2")
    story.ready("beta", load_s=50)
    story.model("beta").load_s = 1.0  # it is usually quicker
    story.submit("alpha", "a1")
    story.submit("delta", "d1")
    story.wait(story.policy.patience_s)
    assert story.model("gamma").draining
    assert story.finish("g2") == []
    assert story.wait(50 - story.policy.patience_s) == [msg.Run("g3", "gamma", 1)]
    assert story.model("beta").draining
    assert story.wait(1) == []


def test_the_drained_models_waiters_do_not_bring_it_back_first(story: Story) -> None:
    """Its waiters are older than the claim that it was stopped for, and still come second."""
    story.resident("alpha")
    story.submit("alpha", "a1", "a2", "a3")
    story.now += 5
    story.submit("beta", "b1")
    story.wait(story.policy.patience_s)
    story.finish("a1")
    assert story.stopped("alpha") == [msg.Start("beta", 1)]
    assert story.ready("beta") == [msg.Run("b1", "beta", 1)]
    story.finish("b1")
    assert story.wake() == [msg.Stop("beta", 1, "evicted for alpha")]
    assert story.stopped("beta") == [msg.Start("alpha", 2)]


def test_a_drain_ends_with_its_reason(story: Story) -> None:
    """If the claim is withdrawn, the model that was draining for it serves on."""
    story.resident("alpha")
    story.submit("alpha", "a1", "a2")
    story.tell(msg.Described("alpha", 2))
    story.submit("beta", "b1")
    story.wait(story.policy.patience_s)
    story.finish("a1")
    assert story.submit("alpha", "a3") == []
    assert story.tell(msg.Withdrawn("b1")) == [msg.Run("a3", "alpha", 1)]


def test_no_thrash(story: Story) -> None:
    """A model that took a minute to load serves for a minute before it is drained."""
    story.submit("alpha", "a1")
    story.submit("beta", "b1")
    story.ready("alpha", load_s=60)
    assert story.wait(59) == []
    assert not story.model("alpha").draining
    story.wait(1)
    assert story.model("alpha").draining
    assert story.finish("a1") == [msg.Stop("alpha", 1, "evicted for beta")]


def test_the_end_of_protection_is_announced(story: Story) -> None:
    """The moment from which a busy model may be drained is one to wake up for."""
    measured(story, 10, alpha=6, beta=4, gamma=10)
    story.tell(msg.Load("beta"))
    story.ready("beta")
    story.submit("alpha", "a1")
    story.ready("alpha", load_s=50)
    story.submit("gamma", "g1")
    assert story.wake() == [msg.Stop("beta", 1, "evicted for gamma")]
    assert story.now == 1054.0 + 50.0
    assert story.model("alpha").draining


def test_two_streams_take_turns(story: Story) -> None:
    """Two models that are always asked for and never fit together both serve."""
    served = {"alpha": 0, "beta": 0}
    for i in range(300):
        for name in served:
            story.submit(name, f"{name}{i}")
        for name in served:
            if story.phase(name) is Phase.STOPPING:
                story.stopped(name)
            if story.phase(name) is Phase.STARTING:
                story.ready(name)
            for prediction_id in story.running(name):
                story.finish(prediction_id)
                served[name] += 1
        story.wait(1)
    assert min(served.values()) > 100, story.picture()
    loads = [m.loads for m in story.scheduler.models.values()]
    assert sum(loads) < 40, loads


# ---- preloading --------------------------------------------------------------------------


def test_warm_takes_only_what_is_free(story: Story) -> None:
    """Preloading evicts nobody, and happens when there is room without it."""
    story.resident("alpha")
    assert story.tell(msg.Load("beta")) == []
    assert story.wake() == [msg.Stop("alpha", 1, "idle")]
    assert story.stopped("alpha") == [msg.Start("beta", 1)]
    assert story.ready("beta") == []


def test_warm_comes_after_whoever_waits(story: Story) -> None:
    """A request takes room before a preload that was asked for earlier."""
    story.resident("alpha")
    story.tell(msg.Load("beta"))
    story.submit("gamma", "1")
    assert story.stopped("alpha") == [msg.Start("gamma", 1)]


def test_a_preload_is_done_once(story: Story) -> None:
    """A preloaded model that nobody uses goes to sleep and stays asleep."""
    story.resident("alpha")
    assert story.wake() == [msg.Stop("alpha", 1, "idle")]
    assert story.stopped("alpha") == []


def test_warming_the_warm(story: Story) -> None:
    """A model that is resident already is not started again when it has gone to sleep."""
    story.resident("alpha")
    assert story.tell(msg.Load("alpha")) == []
    story.wake()
    assert story.effects == [msg.Stop("alpha", 1, "idle")]
    assert story.stopped("alpha") == []


# ---- memory ------------------------------------------------------------------------------


def test_footprints_are_remembered(story: Story) -> None:
    """What a model was measured to take counts when it is to start again, the peak if more."""
    story.submit("alpha", "1")
    story.ready("alpha", footprint=3)
    assert story.model("alpha").need_bytes == 3
    measured(story, 10, alpha=6)
    measured(story, 10, alpha=2)
    assert story.model("alpha").need_bytes == 6
    story.finish("1")
    story.wake()
    story.stopped("alpha")
    measured(story, 5)
    story.submit("alpha", "2")
    assert isinstance(story.dropped()["2"], ModelUnavailable)


def test_measured_models_fit_together(story: Story) -> None:
    """Models whose measured needs fit run side by side."""
    measured(story, 10, alpha=6, beta=4, gamma=1)
    assert story.submit("alpha", "1") == [msg.Start("alpha", 1)]
    assert story.submit("beta", "2") == [msg.Start("beta", 1)]
    assert story.submit("gamma", "3") == []


def test_unmeasured_is_not_free(story: Story) -> None:
    """Where the driver cannot tell (0 bytes), the default stands and the budget is kept."""
    story.submit("alpha", "1")
    story.ready("alpha", footprint=0)
    measured(story, 10, alpha=0)
    assert story.submit("beta", "2") == []
    assert story.model("alpha").need_bytes == 10


def test_too_large_for_the_machine(story: Story) -> None:
    """A model that not even an empty machine could hold is refused, with the numbers."""
    story.resident("alpha")
    measured(story, 10 << 20, beta=11 << 20)
    story.submit("beta", "1", "2")
    error = story.dropped()["2"]
    assert isinstance(error, ModelUnavailable)
    assert error.message == (
        "Cannot start 'beta': it needs 11 MiB and models may use 10 MiB together"
    )
    assert error.retry_after_s == 30
    assert story.phase("alpha") is Phase.READY  # and nobody is evicted for it


def test_a_shrunk_budget_stops_idle_models(story: Story) -> None:
    """When another program takes memory, as many idle models go as it took, no more."""
    measured(story, 30)
    story.resident("alpha", "beta", "gamma")
    story.submit("alpha", "1")
    [stop] = measured(story, 20)
    assert isinstance(stop, msg.Stop)
    assert stop.model in ("beta", "gamma")
    assert stop.reason == "memory"
    assert story.model(stop.model).evictions == 1
    assert story.wait(1) == []  # what is stopping counts as gone


def test_a_shrunk_budget_waits_for_a_new_model(story: Story) -> None:
    """A model that has just come is left alone, and goes when it has settled."""
    story.submit("alpha", "1")
    story.ready("alpha")
    story.finish("1")
    assert measured(story, 5) == []
    assert story.wake() == [msg.Stop("alpha", 1, "memory")]
    assert story.now == 1004.0 + story.policy.min_residency_s


def test_a_shrunk_budget_waits_for_a_run(story: Story) -> None:
    """Nothing that runs is stopped for another program."""
    story.resident("alpha")
    story.submit("alpha", "1", "2")
    assert measured(story, 5) == []
    assert story.finish("1") == [msg.Run("2", "alpha", 1)]
    assert story.finish("2") == [msg.Stop("alpha", 1, "memory")]


def test_a_budget_that_comes_back(story: Story) -> None:
    """What was refused for lack of memory starts once there is enough."""
    measured(story, 5)
    story.submit("alpha", "1")
    assert isinstance(story.dropped()["1"], ModelUnavailable)
    measured(story, 10)
    assert story.submit("alpha", "2") == [msg.Start("alpha", 1)]


@pytest.mark.parametrize("budget", [0, -5])
def test_no_memory_at_all(story: Story, budget: int) -> None:
    """Without any budget requests are refused, not kept."""
    measured(story, budget)
    story.submit("alpha", "1")
    assert isinstance(story.dropped()["1"], ModelUnavailable)


# ---- more held than there is -------------------------------------------------------------


def test_always_busy_and_over_the_budget(roomy: Story) -> None:
    """Another program takes memory while no model is ever idle: after `patience_s` the one that
    is cheapest to bring back is drained, and its waiters come again when there is room."""
    for name in ("alpha", "beta"):
        roomy.submit(name, f"{name}1", f"{name}2")
        roomy.ready(name, load_s=60 if name == "alpha" else 4)
    assert measured(roomy, 15) == []
    roomy.wait(roomy.policy.patience_s)
    assert roomy.finish("beta1") == [msg.Stop("beta", 1, "memory")]
    assert roomy.finish("alpha1") == [msg.Run("alpha2", "alpha", 1)]
    assert roomy.waiting("beta") == ["beta2"]


def test_memory_that_comes_back_in_time(roomy: Story) -> None:
    """What was over the budget for a moment only costs nobody anything."""
    for name in ("alpha", "beta"):
        roomy.submit(name, f"{name}1", f"{name}2")
        roomy.ready(name)
    measured(roomy, 15)
    roomy.wait(roomy.policy.patience_s - 1)
    measured(roomy, 30)
    measured(roomy, 15)
    roomy.wait(2)
    assert roomy.finish("beta1") == [msg.Run("beta2", "beta", 1)]
