"""Models whose process can give its memory back without ending."""

from __future__ import annotations

from router.scheduling import messages as msg
from router.scheduling.model import Phase
from router.scheduling.tunables import OwnPolicy
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
    story.tell(msg.Load("alpha"))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.min_residency_s)
    assert story.submit("beta", "1") == [story.sleep("alpha", "evicted for beta")]
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
    story.tell(msg.Load("alpha"))
    story.ready("alpha", can_sleep=True)
    story.wait(story.policy.idle_to_sleep_s)
    assert story.submit("alpha", "1") == []
    assert story.slept("alpha") == [msg.Wake("alpha", 1)]


def test_one_that_cannot_after_all(story: Story) -> None:
    """A sleep that fails ends in a stop, and the next prediction in a start."""
    story.tell(msg.Load("alpha"))
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
    assert story.tell(msg.RouterStopping()) == [msg.Stop("alpha", 1, "shutdown")]


def test_the_sleeper_is_cheap_to_lose(story: Story) -> None:
    """What wakes in half a second goes before what loads in four, asked for equally often."""
    story.tell(msg.Measured(20, {}))
    story.asleep("alpha")
    story.tell(msg.Load("alpha"))
    story.woke("alpha")
    story.tell(msg.Load("beta"))
    story.ready("beta")
    story.wait(story.policy.min_residency_s)
    assert story.submit("gamma", "1") == [story.sleep("alpha", "evicted for gamma")]


def test_reports_of_another_time(story: Story) -> None:
    """What a stopped generation says of its sleep changes nothing."""
    story.asleep("alpha")
    story.submit("alpha", "1")
    assert story.tell(msg.Slept("alpha", 0)) == []
    assert story.tell(msg.Slept("alpha", 1)) == []  # it wakes by now
    assert story.tell(msg.Woke("alpha", 0, 1.0, 1)) == []
    assert story.phase("alpha") is Phase.WAKING


def ready_sleeper(story: Story, name: str) -> None:
    """A model that can sleep, ready and idle."""
    story.tell(msg.Load(name))
    story.ready(name, can_sleep=True)


def test_copied_in_idle_time(story: Story) -> None:
    """After two seconds without work, once, because the models do not all fit."""
    ready_sleeper(story, "alpha")
    assert story.wait(story.policy.idle_to_stage_s - 0.1) == []
    assert story.wake() == [msg.Stage("alpha", 1, 11)]
    assert story.tell(msg.Staged("alpha", 1, 9, 8)) == []
    assert story.wait(60) == []
    alpha = story.model("alpha")
    assert (alpha.host_bytes, alpha.freed_bytes, alpha.expected_residue_bytes) == (9, 8, 2)


def test_nothing_is_copied_where_all_fit(roomy: Story) -> None:
    """A model that nobody will push out needs no copies."""
    ready_sleeper(roomy, "alpha")
    assert roomy.wait(60) == []


def test_a_copy_that_is_refused(story: Story) -> None:
    """Busy: it is asked again after a while. Unfit: never again, and it is stopped, not slept."""
    ready_sleeper(story, "alpha")
    story.wait(2)
    assert story.tell(msg.SleepRefused("alpha", 1, "busy", again=True, staging=True)) == []
    assert story.wait(story.policy.restage_s - 1) == []
    assert story.wake() == [msg.Stage("alpha", 1, 11)]
    story.tell(msg.SleepRefused("alpha", 1, "CUDA graphs", staging=True))
    assert story.submit("beta", "1") == [msg.Stop("alpha", 1, "evicted for beta")]
    assert story.scheduler.snapshot(story.now).models["alpha"].sleep_refusal == "CUDA graphs"


def test_an_idle_model_that_cannot_sleep_is_stopped_at_once(story: Story) -> None:
    """It holds its memory for nobody. One that was only at work is asked again after a while."""
    ready_sleeper(story, "alpha")
    story.wait(2)
    story.tell(msg.Staged("alpha", 1, 9, 8))
    assert story.wake() == [story.sleep("alpha", "idle")]
    busy = msg.SleepRefused("alpha", 1, "busy", again=True)
    assert story.tell(busy) == []
    assert story.wait(story.policy.restage_s - 1) == []
    assert story.wake() == [story.sleep("alpha", "idle")]
    unfit = msg.SleepRefused("alpha", 1, "CUDA graphs")
    assert story.tell(unfit) == [msg.Stop("alpha", 1, "idle")]


def test_refused_too_often(story: Story) -> None:
    """A process that is at work each time it should sleep is stopped in the end; meanwhile it is
    ready."""
    ready_sleeper(story, "alpha")
    story.wait(10)
    effects = story.submit("beta", "1")
    for _ in range(3):
        assert effects == [story.sleep("alpha", "evicted for beta")]
        effects = story.tell(msg.SleepRefused("alpha", 1, "busy", again=True))
    assert effects == [msg.Stop("alpha", 1, "evicted for beta")]


def test_a_late_refusal_of_a_copy(story: Story) -> None:
    """It does not end the sleep that was asked for meanwhile."""
    ready_sleeper(story, "alpha")
    assert story.wait(10) == [msg.Stage("alpha", 1, 11)]
    story.submit("beta", "1")
    story.tell(msg.SleepRefused("alpha", 1, "busy", again=True, staging=True))
    assert story.phase("alpha") is Phase.FALLING_ASLEEP
    assert story.slept("alpha") == [msg.Start("beta", 1)]


def test_a_quick_wake_is_not_protected_for_long(story: Story) -> None:
    """A model that woke in half a second makes room again after two, not after ten."""
    story.asleep("alpha", "beta")
    story.submit("alpha", "1")
    story.woke("alpha", wake_s=0.5)
    story.finish("1")
    assert story.submit("beta", "2") == []
    at = story.now
    assert story.wake() == [story.sleep("alpha", "evicted for beta")]
    assert story.now - at == 2.0
    assert story.slept("alpha") == [msg.Wake("beta", 1)]


def test_a_quick_waker_need_not_be_patient(story: Story) -> None:
    """Busy models are drained for it after a second or four times its wake, not after 15 s."""
    story.asleep("alpha", "beta")
    story.submit("beta", "0")
    story.woke("beta", wake_s=0.5)
    story.finish("0")
    story.submit("alpha", "1", "2", "3")
    story.wake()
    story.slept("beta")
    story.woke("alpha", wake_s=0.5)
    story.submit("beta", "4")
    story.wait(1.9)
    story.finish("1")
    assert story.running("alpha") == ["2"]
    story.wait(0.2)
    assert story.finish("2") == [story.sleep("alpha", "evicted for beta")]
    assert story.waiting("alpha") == ["3"]


def test_what_a_sleeper_holds_counts(story: Story) -> None:
    """Two bytes stay: a model that needs all ten has the sleeper stopped; a smaller one does
    not."""
    story.asleep("alpha")
    story.model("alpha").residue_bytes = 2
    story.tell(msg.Measured(10, {"gamma": 8}))
    story.model("gamma").footprint_bytes = 8
    assert story.submit("gamma", "1") == [msg.Start("gamma", 1)]
    story.ready("gamma", footprint=8)
    story.finish("1")
    story.wait(10)
    both = [msg.Stop(name, 1, "evicted for beta") for name in ("gamma", "alpha")]
    assert story.submit("beta", "2") == both
    assert story.stopped("gamma") == []
    assert story.stopped("alpha") == [msg.Start("beta", 1)]


def test_a_sleep_that_would_not_free_enough(story: Story) -> None:
    """A model that would hold two bytes asleep is stopped for one that needs them."""
    ready_sleeper(story, "alpha")
    story.model("alpha").residue_bytes = 2
    story.wait(10)
    assert story.submit("beta", "1") == [msg.Stop("alpha", 1, "evicted for beta")]


def test_a_wake_needs_only_what_it_has_not(story: Story) -> None:
    """What a sleeper still holds is not asked for a second time."""
    story.asleep("alpha")
    story.model("alpha").residue_bytes = 2
    story.tell(msg.Measured(10, {}))
    assert story.submit("alpha", "1") == [msg.Wake("alpha", 1)]
    assert story.scheduler.snapshot(story.now).held_bytes == 10


def with_host(host: int) -> Story:
    """Copies have little room."""
    made = Story()
    made.tell(msg.Measured(10, {}, host))
    return made


def test_no_room_for_copies_at_all() -> None:
    """It is stopped, as if it could not sleep."""
    story = with_host(5)
    ready_sleeper(story, "alpha")
    story.wait(10)
    assert story.submit("beta", "1") == [msg.Stop("alpha", 1, "evicted for beta")]


def test_the_colder_sleeper_goes() -> None:
    """Room for one: the copies of the model that is asked for more often stay."""
    story = with_host(12)
    story.asleep("alpha")
    ready_sleeper(story, "beta")
    for number in range(5):
        story.submit("beta", str(number))
        story.finish(str(number))
    story.wait(10)
    assert story.submit("gamma", "x") == [msg.Stop("alpha", 1, "host memory")]
    assert story.wait(1) == []
    assert story.stopped("alpha") == [story.sleep("beta", "evicted for gamma")]
    assert story.slept("beta") == [msg.Start("gamma", 1)]


def test_the_warmer_sleeper_stays() -> None:
    """The model that is asked for less often is stopped itself."""
    story = with_host(12)
    ready_sleeper(story, "alpha")
    for number in range(5):
        story.submit("alpha", str(number))
        story.finish(str(number))
    story.wait(story.policy.idle_to_sleep_s)
    story.slept("alpha")
    ready_sleeper(story, "beta")
    story.wait(10)
    assert story.submit("gamma", "x") == [msg.Stop("beta", 1, "evicted for gamma")]


def test_main_memory_gets_short() -> None:
    """Sleepers are stopped until the copies fit again."""
    story = with_host(100)
    story.asleep("alpha", "beta")
    assert len(story.tell(msg.Measured(10, {}, 12))) == 1
    assert [e.reason for e in story.tell(msg.Measured(10, {}, 0)) if isinstance(e, msg.Stop)] == [
        "host memory"
    ]


def test_times_of_its_own() -> None:
    """A model's own times come before the policy's."""
    story = Story(own_policies={"alpha": OwnPolicy(idle_to_sleep_s=20.0, asleep_to_stop_s=7.0)})
    ready_sleeper(story, "alpha")
    story.tell(msg.SleepRefused("alpha", 1, "", again=True, staging=True))
    story.model("alpha").refusals = 0
    story.model("alpha").staged = True
    assert story.wait(19.9) == []
    assert story.wake() == [story.sleep("alpha", "idle")]
    story.slept("alpha")
    assert story.wait(6.9) == []
    assert story.wake() == [msg.Stop("alpha", 1, "long asleep")]


def test_an_older_claim_keeps_what_it_holds(story: Story) -> None:
    """A sleeper that waits for its memory is not stopped for a younger claim."""
    story.tell(msg.Measured(12, {"gamma": 4}))
    story.asleep("alpha", residue=2)
    story.submit("beta", "1")
    story.ready("beta")
    story.submit("alpha", "2")
    story.now += 1
    assert story.submit("gamma", "3") == []
    story.wait(story.policy.patience_s)
    assert story.finish("1") == [msg.Stop("beta", 1, "evicted for alpha")]
    assert story.phase("alpha") is Phase.ASLEEP
    assert story.stopped("beta") == [msg.Wake("alpha", 1)]
