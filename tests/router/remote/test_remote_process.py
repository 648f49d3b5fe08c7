"""A back-end as the scheduler's process: cancels, stops, the breaker, the allowance."""

from __future__ import annotations

import asyncio

import pytest

from router.models.process_interface import (
    MayHaveBegunError,
    NotStartedError,
    Report,
    StartError,
)
from router.prediction import Failure, Job, Json, Outcome, Progress, Status
from router.remote.backend import Guards
from router.remote.guard import (
    FAILURES_TO_OPEN,
    HOUR_S,
    MISSING_LONGEST_S,
    SAME_MOMENT_S,
    Allowance,
    Breaker,
    NotFoundWindow,
)
from router.remote.process import RemoteProcess
from router.remote.responses import failed
from tests.router.fakes import HandClock
from tests.waiting import until

GOOD = Outcome(Status.SUCCEEDED, output=1)
NO_MODEL = Failure("model_unavailable", "The back-end has no such model")


class Scripted:
    """Fulfils Backend: each prediction ends as the test says."""

    def __init__(self) -> None:
        self.there = self.missing = True
        self.results: dict[str, asyncio.Future[Outcome]] = {}
        self.canceled: list[str] = []
        self.abandoned: list[str] = []
        self.heeds_cancels = True
        self.listens = True
        self.closed = 0

    async def probe(self) -> None:
        """As the test says."""
        if not self.there:
            raise StartError("it is not there", outage=True, missing=self.missing)

    async def schema(self) -> dict[str, Json]:
        """None."""
        return {}

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Until the test ends it."""
        self.results[job.id] = asyncio.get_running_loop().create_future()
        return await self.results[job.id]

    async def cancel(self, prediction_id: str) -> bool:
        """Noted; heeded or not."""
        self.canceled.append(prediction_id)
        if self.heeds_cancels:
            self.results[prediction_id].set_result(Outcome(Status.CANCELED))
        return self.listens

    async def abandon(self, prediction_id: str) -> None:
        """Noted."""
        self.abandoned.append(prediction_id)

    async def close(self) -> None:
        """Noted."""
        self.closed += 1


class World:
    """A process on a scripted back-end."""

    def __init__(self, per_hour: int | None = None, *, repeatable: bool = False) -> None:
        self.clock = HandClock()
        self.backend = Scripted()
        self.guards = Guards(
            Allowance(per_hour, self.clock),
            Breaker(self.clock),
            NotFoundWindow(self.clock),
            NotFoundWindow(self.clock),
        )
        self.process = RemoteProcess(self.backend, self.guards, repeatable=repeatable)

    def again(self) -> RemoteProcess:
        """The process of the next start: the guards are the same."""
        self.process = RemoteProcess(self.backend, self.guards)
        return self.process

    async def begin(self, name: str) -> asyncio.Task[Outcome]:
        """A prediction that the back-end is at work on."""
        task = asyncio.create_task(self.process.predict(Job(name, {}), ignore))
        await until(lambda: name in self.backend.results)
        return task

    async def run(self, name: str, outcome: Outcome) -> Outcome:
        """A prediction that ends so; a failure comes some time after the one before."""
        if outcome is not GOOD:
            self.clock.advance(SAME_MOMENT_S)
        task = await self.begin(name)
        self.backend.results[name].set_result(outcome)
        return await task


def ignore(progress: Progress) -> None:
    """Progress is not looked at here."""


async def test_it_runs_several_at_once() -> None:
    """Each with its own outcome."""
    world = World()
    await world.process.start()
    first, second = await world.begin("1"), await world.begin("2")
    world.backend.results["2"].set_result(failed("prediction_failed", "no"))
    world.backend.results["1"].set_result(GOOD)
    assert (await first) is GOOD
    assert (await second).failure is not None


async def test_the_breaker_is_a_broken_process() -> None:
    """After failures in a row; then nothing new is sent, and one try decides."""
    world = World()
    await world.process.start()
    for n in range(FAILURES_TO_OPEN):
        await world.run(str(n), failed("backend_failed", "it answered 500"))
    assert await world.process.broken() == "it answered 500"
    with pytest.raises(NotStartedError):
        await world.process.predict(Job("x", {}), ignore)
    await world.again().start()
    await world.run("y", failed("backend_failed", "again"))
    assert await world.process.broken() == "again"
    await world.again().start()
    await world.run("z", GOOD)
    await world.run("z2", failed("backend_failed", "once"))
    await world.run("z3", GOOD)


async def test_what_the_model_says_is_no_trouble() -> None:
    """A hundred objections to inputs do not open the breaker."""
    world = World()
    await world.process.start()
    for n in range(100):
        await world.run(str(n), failed("invalid_input", "no picture"))
    await world.run("last", GOOD)


async def test_a_back_end_that_is_not_there() -> None:
    """The start says so, and closes what it opened."""
    world = World()
    world.backend.there = False
    with pytest.raises(StartError, match="it is not there"):
        await world.process.start()
    assert world.backend.closed == 1


async def test_the_allowance() -> None:
    """Spent, the process breaks before it sends anything, and does not start for an hour."""
    world = World(per_hour=2)
    await world.process.start()
    await world.run("1", GOOD)
    await world.run("2", GOOD)
    with pytest.raises(NotStartedError, match="2 requests"):
        await world.process.predict(Job("3", {}), ignore)
    assert "3" not in world.backend.results
    assert "2 requests" in await world.process.broken()
    with pytest.raises(StartError, match="the next in 3600 s"):
        await world.again().start()
    world.clock.advance(HOUR_S)
    await world.again().start()
    await world.run("4", GOOD)


async def test_a_cancel_that_is_heeded() -> None:
    """The back-end's own word for it is the outcome."""
    world = World()
    await world.process.start()
    task = await world.begin("1")
    await world.process.cancel("1")
    assert (await task).status is Status.CANCELED
    await world.process.cancel("unknown")
    assert world.backend.canceled == ["1"]


async def test_a_cancel_that_is_not_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over here all the same."""
    monkeypatch.setattr("router.remote.process.CANCEL_GRACE_S", 0.05)
    world = World()
    world.backend.heeds_cancels = False
    await world.process.start()
    task = await world.begin("1")
    await world.process.cancel("1")
    assert (await task).status is Status.CANCELED


async def test_a_cancel_by_hanging_up() -> None:
    """Where nothing else tells the back-end, the request is ended at once."""
    world = World()
    world.backend.heeds_cancels = world.backend.listens = False
    await world.process.start()
    task = await world.begin("1")
    await world.process.cancel("1")
    assert (await task).status is Status.CANCELED
    assert world.backend.results["1"].cancelled()


async def test_a_stop_ends_what_runs() -> None:
    """Given up there and ended here; the router takes it for a worker that died, and runs what
    is durable again after a restart."""
    world = World()
    await world.process.start()
    task = await world.begin("1")
    await world.process.stop(0.0)
    outcome = await task
    assert outcome.failure is not None
    assert outcome.failure.code == "worker_died"
    assert (world.backend.abandoned, world.backend.canceled) == (["1"], [])
    assert world.backend.closed == 1


async def test_a_stop_gives_back_what_is_repeatable() -> None:
    """It waits in the queue for the next start; one that was canceled does not."""
    world = World(repeatable=True)
    world.backend.heeds_cancels = False
    await world.process.start()
    running, canceled = await world.begin("1"), await world.begin("2")
    canceling = asyncio.create_task(world.process.cancel("2"))
    await until(lambda: world.backend.canceled == ["2"])
    await world.process.stop(0.0)
    with pytest.raises(MayHaveBegunError, match="stopped using"):
        await running
    assert (await canceled).status is Status.CANCELED
    await canceling


async def test_a_stop_waits_for_what_runs() -> None:
    """For as long as it is told."""
    world = World()
    await world.process.start()
    task = await world.begin("1")
    stopping = asyncio.create_task(world.process.stop(30.0))
    await asyncio.sleep(0)
    world.backend.results["1"].set_result(GOOD)
    await stopping
    assert (await task) is GOOD
    assert world.backend.abandoned == []


async def test_the_router_ending_takes_the_request_with_it() -> None:
    """A cancelled run leaves no request behind."""
    world = World()
    await world.process.start()
    task = await world.begin("1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(world.backend.results["1"].cancelled)


async def test_a_model_that_is_missing_is_waited_for_a_quarter_of_an_hour() -> None:
    """A 404 to a prediction may come from a proxy while the server behind it is exchanged. After
    that long without another answer the prediction ends; another answer begins the time again, and
    so does a pause in which nobody asked."""
    world = World()
    gone = Outcome(Status.FAILED, failure=NO_MODEL, refused=True, missing=True)
    minute_s, minutes = 60.0, int(MISSING_LONGEST_S / 60)

    async def refusals(count: int) -> list[bool]:
        refused = []
        for _ in range(count):
            world.guards.breaker.succeeded()
            await world.again().start()
            name = f"at {world.clock.monotonic()}"
            refused.append((await world.run(name, gone)).refused)
            world.clock.advance(minute_s)
        return refused

    assert await refusals(minutes) == [True] * minutes
    await world.again().start()
    await world.run("x", Outcome(Status.CANCELED))  # no answer about the model
    ended = await world.run("y", gone)
    assert (ended.refused, ended.failure) == (False, NO_MODEL)
    await world.again().start()
    busy = Outcome(Status.FAILED, failure=NO_MODEL, refused=True)
    assert (await world.run("z", busy)).refused
    assert await refusals(2) == [True, True]
    world.clock.advance(MISSING_LONGEST_S)
    assert await refusals(2) == [True, True]


async def test_a_server_that_is_missing_is_waited_for_a_quarter_of_an_hour() -> None:
    """The same for a 404 to the question for its health. One that cannot be reached is away for as
    long as it takes."""
    world = World()
    world.backend.there = False

    async def is_outage() -> bool:
        with pytest.raises(StartError) as told:
            await world.again().start()
        world.clock.advance(60)
        return told.value.outage

    for _ in range(int(MISSING_LONGEST_S / 60)):
        assert await is_outage()
    assert not await is_outage()
    world.backend.missing = False
    assert await is_outage(), "it cannot be reached"
    world.backend.missing = world.backend.there = True
    await world.again().start()
    world.backend.there = False
    assert await is_outage(), "it was there meanwhile"
    for _ in range(int(MISSING_LONGEST_S / 60) - 2):
        assert await is_outage()
    world.backend.missing = False
    assert await is_outage(), "it cannot be reached"
    world.backend.missing = True
    assert await is_outage(), "there was another answer meanwhile"
    assert await is_outage()
