"""Models that sleep, in the loop around the scheduler."""

from __future__ import annotations

from router.models.process_interface import (
    SleepRefusedError,
)
from router.observability.facts import WakeEnded
from router.scheduling import messages as msg
from tests.router.predictions.scheduler_loop.loop_world import (
    GOOD,
    FakeProcess,
    FakeSleeper,
    World,
    settle,
)


async def asleep(world: World) -> tuple[FakeProcess, FakeSleeper]:
    """A model that has been put to sleep for want of work."""
    world.can_sleep = True
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    assert process.sleeper is not None
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    process.sleeper.done.set_result(None)
    await settle()
    assert world.loop.scheduler.models["m"].state == "asleep"
    return process, process.sleeper


async def test_sleep_and_wake(world: World) -> None:
    """The same process is put to sleep, woken for the next prediction, and runs it."""
    process, sleeper = await asleep(world)
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    assert world.loop.scheduler.models["m"].state == "waking"
    world.clock.now += 0.25
    sleeper.done.set_result(None)
    await settle()
    assert sleeper.asked == ["sleep", "wake"]
    assert list(process.answers) == ["a"]
    model = world.loop.scheduler.models["m"]
    assert (model.wake_s, model.residue_bytes, model.host_bytes) == (0.25, 2, 7)
    moves = world.loop.sleep_steps.last["m"]
    assert (moves["sleep"].size, moves["wake"].size) == (5, 5)
    assert world.loop.sleep_steps.best_bytes_per_s == 20
    assert world.wakes == [WakeEnded("m", 0.25, ready=True, ended_at=world.clock.now)]
    process.answers["a"].set_result(GOOD)
    await settle()


async def test_a_waking_that_fails(world: World) -> None:
    """The process is ended, and a new one runs what waited."""
    process, sleeper = await asleep(world)
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    world.clock.now += 3
    sleeper.done.set_exception(RuntimeError("out of memory"))
    await settle()
    assert process.stopped_with == 0.0
    assert world.wakes == [WakeEnded("m", 3.0, ready=False, ended_at=world.clock.now)]
    world.clock.now += 2
    world.loop.post(msg.Tick())
    second = await world.ready()
    assert list(second.answers) == ["a"]
    second.answers["a"].set_result(GOOD)
    await settle()


async def test_a_sleep_that_is_refused(world: World) -> None:
    """The process was not touched: it runs what came meanwhile, and is stopped when idle."""
    world.can_sleep = True
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    assert process.sleeper is not None
    process.sleeper.done.set_exception(SleepRefusedError("CUDA graphs"))
    await settle()
    model = world.loop.scheduler.models["m"]
    assert (model.can_sleep, model.sleep_refusal) == (False, "CUDA graphs")
    assert process.stopped_with is None
    process.answers["a"].set_result(GOOD)
    await settle()
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    assert process.stopped_with is not None


async def test_suspended_by_the_driver(world: World) -> None:
    """What its hook cannot do, the driver does; each of its moves is counted as its own."""
    world.can_sleep = True
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    model = world.loop.scheduler.models["m"]
    assert (model.can_suspend, model.suspend_refusal) == (True, "")
    model.load_s, model.can_sleep = 60.0, False
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    sleeper = process.sleeper
    assert sleeper is not None
    sleeper.done.set_result(None)
    await settle()
    assert (model.suspended, model.held_bytes, model.suspended_bytes) == (True, 0, 3)
    world.loop.post(msg.Submitted("a", "m"))
    await settle()
    world.clock.now += 0.5
    sleeper.done.set_result(None)
    await settle()
    assert sleeper.asked == ["suspend", "wake"]
    assert [wake.seconds for wake in world.wakes] == [0.5]
    moves = world.loop.sleep_steps.last["m"]
    assert {move: fact.size for move, fact in moves.items()} == {"suspend": 3, "resume": 3}
    assert world.loop.sleep_steps.best_bytes_per_s == 0
    process.answers["a"].set_result(GOOD)
    await settle()


async def test_the_budget_of_copies(world: World) -> None:
    """It is asked for with what copies take, and not while some are made: nobody knows then how
    much of them is taken already, and it would be counted twice or not at all."""
    world.can_sleep = True
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    assert set(world.copies) == {0}
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    world.copies.clear()
    world.loop._measure()
    assert world.copies == []
    assert process.sleeper is not None
    process.sleeper.done.set_result(None)
    await settle()
    assert world.copies == [7]


async def test_closing_while_one_falls_asleep(world: World) -> None:
    """A sleep that never comes to its end does not hold up the router's."""
    world.can_sleep = True
    world.loop.post(msg.Load("m"))
    process = await world.ready()
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    assert world.loop.scheduler.models["m"].state == "suspending"
    await world.loop.close(grace_s=0)
    assert process.stopped_with is not None
