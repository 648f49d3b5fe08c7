"""The loop around the scheduler, with processes that do as the test says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from router.errors import ModelUnavailable, RouterError
from router.models.catalog import Package
from router.models.process_interface import (
    Copied,
    LogLine,
    MayHaveBegunError,
    NotStartedError,
    Report,
    SleepRefusedError,
    Slept,
    StartError,
    Woken,
)
from router.observability.facts import Facts, WakeEnded
from router.prediction import Failure, Job, LogText, Outcome, Progress, Status
from router.predictions.scheduler_loop import SchedulerLoop
from router.scheduling import messages as msg
from router.scheduling.scheduler import Policy, Scheduler
from tests.router.fakes import HandClock, PlentyOfMemory

GOOD = Outcome(Status.SUCCEEDED, output=1, predict_time_s=0.1)
DIED = Outcome(Status.FAILED, failure=Failure("worker_died", "gone"))


class FakeSleeper:
    """Sleeps and wakes when the test says so, or fails."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked: list[str] = []

    async def stage(self, limit_bytes: int) -> Copied:
        """As the test says."""
        await self._wait("stage")
        return Copied(7, 5, 5, 0.1)

    async def why_not_suspended(self) -> str:
        """It could be."""
        return ""

    async def sleep(self, limit_bytes: int, *, hook: bool = True, driver: bool = False) -> Slept:
        """As the test says."""
        await self._wait("sleep" if hook else "suspend")
        if driver:
            return Slept(Copied(0, 0, 0, 0.0), 0, suspended_bytes=3, suspend_s=0.5)
        return Slept(Copied(7, 5, 1, 0.1), residue_bytes=2)

    async def wake(self) -> Woken:
        """As the test says."""
        is_suspended = self.asked[-1] == "suspend"
        await self._wait("wake")
        return Woken(0, 0.0, 3, 0.5) if is_suspended else Woken(5, 0.25)

    async def _wait(self, what: str) -> None:
        self.asked.append(what)
        self.done = asyncio.get_running_loop().create_future()
        await self.done


class FakeProcess:
    """A process whose every answer is a future that the test settles."""

    def __init__(self, sleeper: FakeSleeper | None = None) -> None:
        self.sleeper = sleeper
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: dict[str, asyncio.Future[Outcome]] = {}
        self.breaks: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.reports: dict[str, Report] = {}
        self.canceled: list[str] = []
        self.stopped_with: float | None = None
        self.say_health: Callable[[str], None]

    async def start(self) -> None:
        """Ready when the test says so."""
        await self.ready

    async def predict(self, job: Job, report: Report) -> Outcome:
        """What the test says."""
        self.reports[job.id] = report
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.answers[job.id] = future
        return await future

    async def cancel(self, prediction_id: str) -> None:
        """Noted."""
        self.canceled.append(prediction_id)

    async def stop(self, grace_s: float) -> None:
        """Noted; what runs is lost."""
        self.stopped_with = grace_s
        for future in self.answers.values():
            if not future.done():
                future.set_result(DIED)

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """The test says it."""
        self.say_health = tell

    @property
    def set_up_log(self) -> str:
        """The line of its set-up."""
        return "loaded w.bin"

    async def broken(self) -> str:
        """When the test says so."""
        return await self.breaks

    def footprint_bytes(self) -> int:
        """One."""
        return 1

    def pids(self) -> Sequence[int]:
        """None."""
        return []

    def log_tail(self) -> Sequence[LogLine]:
        """A line of everybody's and one of a prediction's."""
        return [
            LogLine("loaded /srv/models/w.bin", in_set_up=True),
            LogLine("somebody's subprocess"),
            LogLine("p is here", "p"),
        ]


class Recorder:
    """The owner of predictions: writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.progress: list[tuple[str, Progress]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.errors: dict[str, RouterError] = {}
        self.ended: set[str] = set()

    def started(self, prediction_id: str) -> Job:
        """Noted."""
        self.told.append(("started", prediction_id))
        return Job(prediction_id, {})

    def progressed(self, prediction_id: str, progress: Progress) -> None:
        """Noted."""
        self.progress.append((prediction_id, progress))

    def handed_back(self, prediction_id: str, *, may_have_begun: bool) -> bool:
        """Noted. Those that the test names have ended."""
        self.told.append(("may have begun" if may_have_begun else "handed_back", prediction_id))
        return prediction_id not in self.ended

    def finished(self, prediction_id: str, outcome: Outcome) -> float | None:
        """Noted."""
        self.told.append(("finished", prediction_id))
        self.outcomes[prediction_id] = outcome
        return outcome.predict_time_s

    def dropped(self, prediction_id: str, error: RouterError) -> None:
        """Noted."""
        self.told.append(("dropped", prediction_id))
        self.errors[prediction_id] = error


class World:
    """A loop with one model `m` and everything around it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.jobs = Recorder()
        self.can_sleep = False
        self.processes: list[FakeProcess] = []
        self.wakes: list[WakeEnded] = []
        self.copies: list[int] = []  # that take main memory, whenever its budget was asked for
        facts = Facts(delay_s=0)
        facts.add(self.wakes.append, WakeEnded)
        package = Package("m", Path("/m"), "run.py:Runner", Path(sys.executable))
        scheduler = Scheduler({"m": 1}, 1 << 40, Policy(default_footprint_bytes=1))
        self.loop = SchedulerLoop(
            *(scheduler, {"m": package}, self._make, PlentyOfMemory(), self.clock),
            jobs=self.jobs,
            facts=facts,
            copies_budget=self._budget,
        )

    def _budget(self, copies: int) -> int:
        self.copies.append(copies)
        return 1 << 40

    def _make(self, package: Package) -> FakeProcess:
        self.processes.append(FakeProcess(FakeSleeper() if self.can_sleep else None))
        return self.processes[-1]

    async def ready(self) -> FakeProcess:
        """Let the newest process become ready."""
        await settle()
        self.processes[-1].ready.set_result(None)
        await settle()
        return self.processes[-1]


async def settle() -> None:
    """Let every task run as far as it can without time or the outside."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A fresh world, closed at the end."""
    world = World()
    yield world
    for process in world.processes:
        if not process.ready.done():
            process.ready.set_result(None)
    await world.loop.close(grace_s=0)


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


async def asleep(world: World) -> tuple[FakeProcess, FakeSleeper]:
    """A model that has been put to sleep for want of work."""
    world.can_sleep = True
    world.loop.post(msg.Warm("m"))
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
    world.loop.post(msg.Warm("m"))
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
    world.loop.post(msg.Warm("m"))
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
    world.loop.post(msg.Warm("m"))
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
    world.loop.post(msg.Warm("m"))
    process = await world.ready()
    world.clock.now += 400
    world.loop.post(msg.Tick())
    await settle()
    assert world.loop.scheduler.models["m"].state == "suspending"
    await world.loop.close(grace_s=0)
    assert process.stopped_with is not None


async def test_the_log_of_a_set_up(world: World) -> None:
    """Of the process that is there; nothing while there is none."""
    assert world.loop.set_up_log("m") == ""
    world.loop.post(msg.Warm("m"))
    await world.ready()
    assert world.loop.set_up_log("m") == "loaded w.bin"


async def test_a_health_check_that_says_no(world: World) -> None:
    """The scheduler learns of it from the process that is there, and observers of both changes."""
    world.loop.post(msg.Warm("m"))
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
