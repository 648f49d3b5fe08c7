"""The loop around the scheduler, with processes that do as the test says."""

from __future__ import annotations

import asyncio

import pytest

from router.errors import ModelUnavailable
from router.models.process_interface import (
    MayHaveBegunError,
    NotStartedError,
    StartError,
)
from router.prediction import LogText, Status
from router.scheduling import messages as msg
from tests.router.predictions.scheduler_loop.loop_world import DIED, GOOD, World, settle


async def test_start_run_finish(world: World) -> None:
    """A prediction starts its model, runs, and leaves the slot to the next."""
    world.loop.post(msg.Submitted("a", "m"))
    world.loop.post(msg.Submitted("b", "m"))
    process = await world.ready()
    assert list(process.answers) == ["a"]
    process.answers["a"].set_result(GOOD)
    await settle()
    assert list(process.answers) == ["a", "b"]
    process.answers["b"].set_result(GOOD)
    await settle()
    assert world.jobs.outcomes == {"a": GOOD, "b": GOOD}


async def test_a_cancel_between_grant_and_run_finds_it_running(world: World) -> None:
    """Granted is started: no moment in which it is neither waiting nor running."""
    world.loop.post(msg.Submitted("a", "m"))
    process = await world.ready()
    process.answers["a"].set_result(GOOD)
    await settle()
    world.loop.post(msg.Submitted("b", "m"))  # granted in this very call
    assert ("started", "b") in world.jobs.told
    world.loop.post(msg.Withdrawn("b"))
    await settle()
    assert process.canceled == ["b"]
    process.answers["b"].set_result(GOOD)
    await settle()
    world.loop.post(msg.Submitted("c", "m"))
    await settle()
    assert "c" in process.answers


async def test_a_set_up_that_fails(world: World) -> None:
    """The waiting prediction gets the reason; the process's last lines are kept."""
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    world.processes[0].ready.set_exception(StartError("no weights"))
    await settle()
    assert isinstance(world.jobs.errors["a"], ModelUnavailable)
    assert "no weights" in world.jobs.errors["a"].message
    assert world.loop.log_tail("m") == [
        "loaded /srv/models/w.bin",
        "somebody's subprocess",
        "p is here",
    ]
    # What is nobody's own, and no path of this machine.
    assert world.jobs.errors["a"].details == {"log_tail": ["loaded w.bin"]}


async def test_a_worker_that_dies(world: World) -> None:
    """The running prediction fails, the next is not sent to the corpse but to its successor."""
    world.loop.post(msg.Submitted("a", "m"))
    world.loop.post(msg.Submitted("b", "m"))
    first = await world.ready()
    first.answers["a"].set_result(DIED)
    await settle()
    assert list(first.answers) == ["a"]
    assert first.stopped_with == 0.0
    world.clock.now += 2
    world.loop.post(msg.Tick())
    second = await world.ready()
    assert second is not first
    second.answers["b"].set_result(GOOD)
    await settle()
    assert world.jobs.outcomes["b"] == GOOD
    failure = world.jobs.outcomes["a"].failure
    assert failure is not None
    assert failure.code == "worker_died"
    assert failure.details == {"log_tail": ["loaded w.bin"]}


@pytest.mark.parametrize(
    ("error", "told"),
    [(NotStartedError("x"), "handed_back"), (MayHaveBegunError("x"), "may have begun")],
)
async def test_what_never_began_runs_again(world: World, error: Exception, told: str) -> None:
    """It is handed back and runs on the next process; so does what may run twice."""
    world.loop.post(msg.Submitted("a", "m"))
    first = await world.ready()
    first.answers["a"].set_exception(error)
    await settle()
    assert world.jobs.told == [("started", "a"), (told, "a")]
    world.clock.now += 2
    world.loop.post(msg.Tick())
    second = await world.ready()
    second.answers["a"].set_result(GOOD)
    await settle()
    assert world.jobs.outcomes == {"a": GOOD}


async def test_what_has_ended_does_not_run_again(world: World) -> None:
    """Its owner ended it when it was handed back. The next one runs, on the next process."""
    world.jobs.ended = {"a"}
    world.loop.post(msg.Submitted("a", "m"))
    world.loop.post(msg.Submitted("b", "m"))
    first = await world.ready()
    first.answers["a"].set_exception(MayHaveBegunError("x"))
    await settle()
    world.clock.now += 2
    world.loop.post(msg.Tick())
    second = await world.ready()
    assert (list(first.answers), list(second.answers)) == (["a"], ["b"])


async def test_a_bug_in_an_adapter_frees_the_slot(world: World) -> None:
    """Any exception is a failed prediction, and the next one runs."""
    world.loop.post(msg.Submitted("a", "m"))
    world.loop.post(msg.Submitted("b", "m"))
    process = await world.ready()
    process.answers["a"].set_exception(TypeError("a bug"))
    await settle()
    failure = world.jobs.outcomes["a"].failure
    assert failure is not None
    assert failure.code == "internal_error"
    assert "b" in process.answers


async def test_a_slow_stop_holds_up_nobody(world: World) -> None:
    """While a process is being stopped, posts are handled."""
    world.loop.post(msg.Submitted("a", "m"))
    process = await world.ready()
    never = asyncio.get_running_loop().create_future()

    async def slow_stop(grace_s: float) -> None:
        await never

    process.stop = slow_stop  # type: ignore[method-assign]
    process.breaks.set_result("dead")
    await settle()
    world.loop.post(msg.Submitted("b", "m"))
    assert world.loop.scheduler.models["m"].phase.value == "stopping"
    never.set_result(None)
    await settle()
    process.answers["a"].set_result(DIED)
    await settle()
    assert world.jobs.outcomes["a"].status is Status.FAILED


async def test_close_during_set_up(world: World) -> None:
    """A model that is loading is stopped; the waiting prediction gets an error."""
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    await world.loop.close(grace_s=5)
    assert world.jobs.errors["a"].code == "shutting_down"
    assert world.processes[0].stopped_with is not None


async def test_progress_is_told(world: World) -> None:
    """What a process reports of a prediction comes to the owner of predictions, as that one's."""
    world.loop.post(msg.Submitted("p", "m"))
    process = await world.ready()
    process.reports["p"](LogText("half\n"))
    assert world.jobs.progress == [("p", LogText("half\n"))]
    process.answers["p"].set_result(DIED)
    await settle()
    failure = world.jobs.outcomes["p"].failure
    assert failure is not None
    assert failure.details == {"log_tail": ["loaded w.bin", "p is here"]}


async def test_the_log_of_a_set_up(world: World) -> None:
    """Of the process that is there; nothing while there is none."""
    assert world.loop.set_up_log("m") == ""
    world.loop.post(msg.Load("m"))
    await world.ready()
    assert world.loop.set_up_log("m") == "loaded w.bin"


async def test_a_health_check_that_says_no(world: World) -> None:
    """The scheduler learns of it from the process that is there, and observers of both changes."""
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    model = world.loop.scheduler.models["m"]
    process.say_health("it returned False")
    assert (model.state, model.problem) == ("unhealthy", "it returned False")
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    assert process.answers == {}
    process.say_health("")
    await settle()
    assert list(process.answers) == ["a"]
