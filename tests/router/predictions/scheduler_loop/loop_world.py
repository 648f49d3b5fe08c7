"""A scheduler loop with processes that do as a test says."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from router.errors import RouterError
from router.models.catalog import Package
from router.models.process_interface import (
    Copied,
    LogLine,
    Report,
    Slept,
    Woken,
)
from router.observability.facts import Facts, WakeEnded
from router.prediction import Failure, Job, Outcome, Progress, Status
from router.predictions.scheduler_loop import SchedulerLoop
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
    """The owner of predictions: writes down each call."""

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
