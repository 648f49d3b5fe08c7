"""A world for predictions: time, processes, spool and store, all in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from router.models.catalog import Package
from router.models.process_interface import LogLine, Report, StartError
from router.observability.facts import Fact, Facts, PredictionRefused
from router.prediction import FileRef, Job, Json, Outcome, OutputFile, Prediction, Status
from router.predictions.lifecycle import Predictions
from router.predictions.output_files import Outputs
from router.predictions.overflow import OverflowRule
from router.predictions.scheduler_loop import Jobs, SchedulerLoop
from router.predictions.webhooks import Webhooks
from router.scheduling.scheduler import Policy, Scheduler
from router.storage.store import Files, Outbox, Store
from tests.router.conftest import AnyStore
from tests.waiting import until

GOOD = Outcome(Status.SUCCEEDED, output={"x": 1}, logs="a line\n", predict_time_s=0.1)
TIME_LIMIT_S = 600.0
KEEP_S = 86400.0
QUEUE_LIMIT = 4


@dataclass
class Alarm:
    """A call to come."""

    at: float
    callback: Callable[..., object]
    args: tuple[Any, ...]
    canceled: bool = False

    def cancel(self) -> None:
        """It will not come."""
        self.canceled = True


class HandClock:
    """Fulfils Clock and Timers. Time stands still but for `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.alarms: list[Alarm] = []

    def monotonic(self) -> float:
        """The test's time."""
        return self.now

    def time(self) -> float:
        """The test's time."""
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Alarm:
        """Noted."""
        self.alarms.append(Alarm(self.now + delay, callback, args))
        return self.alarms[-1]

    def pending(self) -> list[Alarm]:
        """What is still to come, next first."""
        return sorted((a for a in self.alarms if not a.canceled), key=lambda a: a.at)

    def advance(self, seconds: float) -> None:
        """Let time pass; what falls due is called in order."""
        until = self.now + seconds
        while (due := self.pending()) and due[0].at <= until:
            self.now = max(self.now, due[0].at)
            due[0].canceled = True
            due[0].callback(*due[0].args)
        self.now = until


class PlentyOfMemory:
    """Fulfils Memory."""

    def measure(self, pids: Sequence[int]) -> int:
        """Nothing much."""
        return 1

    def budget_bytes(self, held_by_models: int) -> int:
        """Plenty."""
        return 1 << 40

    def most_bytes(self) -> int:
        """As much."""
        return 1 << 40

    async def wait_freed(self, pids: Iterable[int]) -> None:
        """At once."""


class Model:
    """Fulfils Process: ready at once unless `opens` is cleared, and every answer is the test's."""

    def __init__(self) -> None:
        self.opens = asyncio.Event()
        self.opens.set()
        self.start_error: StartError | None = None
        self.answers: dict[str, asyncio.Future[Outcome]] = {}
        self.jobs: list[Job] = []
        self.reports: dict[str, Report] = {}
        self.canceled: list[str] = []

    async def start(self) -> None:
        """Ready when it may be, or failed with `start_error`."""
        await self.opens.wait()
        if self.start_error is not None:
            raise self.start_error

    @property
    def sleeper(self) -> None:
        """It never sleeps."""
        return

    async def predict(self, job: Job, report: Report) -> Outcome:
        """What the test says, when it says it."""
        self.jobs.append(job)
        self.reports[job.id] = report
        self.answers[job.id] = asyncio.get_running_loop().create_future()
        return await self.answers[job.id]

    async def cancel(self, prediction_id: str) -> None:
        """Heeded at once."""
        self.canceled.append(prediction_id)
        self.answers[prediction_id].set_result(Outcome(Status.CANCELED))

    async def stop(self, grace_s: float) -> None:
        """Nothing to stop."""

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """Always well."""

    async def broken(self) -> str:
        """Never."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    def footprint_bytes(self) -> int:
        """One."""
        return 1

    def pids(self) -> Sequence[int]:
        """None."""
        return []

    def log_tail(self) -> Sequence[LogLine]:
        """None."""
        return []

    @property
    def set_up_log(self) -> str:
        """Nothing."""
        return ""


@dataclass
class Spool:
    """The removing half of Files."""

    removed: list[str] = field(default_factory=list)

    def remove(self, files: Iterable[FileRef]) -> None:
        """Noted."""
        self.removed += [f.path for f in files]


@dataclass(frozen=True)
class Call:
    """A webhook that was sent."""

    url: str
    message_id: str
    body: dict[str, Json]


class Receiver:
    """Fulfils WebhookSender: everybody's server, with the answers that the test wants."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Json = {}
        self.put_status = 200
        self.files: list[tuple[str, Path, str]] = []

    def check(self, url: str) -> None:
        """Any will do."""

    async def send(self, url: str, message_id: str, body: bytes) -> int:
        """Noted; answered when the gate is open, by fast.… at once."""
        self.calls.append(Call(url, message_id, orjson.loads(body)))
        if "//fast." not in url:
            await self.gate.wait()
        return self.status

    async def ask(self, url: str, message_id: str, body: bytes) -> tuple[int, bytes]:
        """The same, with `answer`."""
        return await self.send(url, message_id, body), orjson.dumps(self.answer)

    async def put(self, url: str, path: Path, media_type: str) -> int:
        """Noted, unless the file is called `gone`."""
        if path.name == "gone":
            raise FileNotFoundError
        self.files.append((url, path, media_type))
        return self.put_status

    async def close(self) -> None:
        """Nothing to close."""


@contextlib.asynccontextmanager
async def local(file: OutputFile) -> AsyncIterator[FileRef]:
    """The file itself in place of a copy."""
    yield file.ref()


async def render(p: Prediction) -> dict[str, Json]:
    """Enough to tell one webhook from another."""
    return {"id": p.id, "status": p.status, "output": p.output, "logs": p.logs}


class Disk:
    """A store as one router sees it: cut off from it, its writes do not arrive any more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.cut:
                await asyncio.get_running_loop().create_future()
            return await getattr(self._store, name)(*args, **kwargs)

        return call


class Refusals:
    """A listener that notes what was refused."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, fact: Fact) -> None:
        """Noted."""
        if isinstance(fact, PredictionRefused):
            self.noted.append((fact.model, fact.code))


class Router:
    """One run of the router, with one model `echo`, which overflows by `rule` if there is one."""

    def __init__(
        self,
        store: Store,
        clock: HandClock,
        spool: Spool,
        receiver: Receiver,
        rule: OverflowRule | None = None,
    ) -> None:
        self.time_limits_s: dict[str, float] = {}
        self.disk = Disk(store)
        disk = cast(Store, self.disk)
        outbox = cast(Outbox, self.disk)
        self.webhooks = Webhooks(disk, outbox, receiver, clock, render, local=local, timers=clock)
        self.model = Model()
        self.remote = Model()
        self.refusals = Refusals()
        self.facts = Facts([self.refusals.note], delay_s=0)
        models = {"echo": self.model} | ({rule.remote: self.remote} if rule else {})
        packages = {
            name: Package(name, Path("/echo"), "run.py:Runner", Path(sys.executable))
            for name in models
        }
        scheduler = Scheduler(
            dict.fromkeys(models, 1),
            1 << 40,
            Policy(QUEUE_LIMIT, default_footprint_bytes=1),
            [rule.remote] if rule else (),
            {rule.remote: "echo"} if rule else {},
        )
        memory = PlentyOfMemory()

        def make_loop(jobs: Jobs) -> SchedulerLoop:
            make_process = lambda package: models[package.name]  # noqa: E731
            return SchedulerLoop(scheduler, packages, make_process, memory, clock, jobs=jobs)

        self.predictions = Predictions(
            make_loop,
            disk,
            cast(Files, spool),
            clock,
            self.webhooks,
            time_limit_s=TIME_LIMIT_S,
            time_limits_s=self.time_limits_s,
            keep_results_s=KEEP_S,
            outputs=Outputs(cast(Files, spool), "secret"),
            timers=clock,
            facts=self.facts,
            rules={"echo": rule} if rule else None,
        )
        self.loop = self.predictions.loop


class World:
    """A store that outlives the routers on it."""

    def __init__(self, store: AnyStore, rule: OverflowRule | None = None) -> None:
        self.store = store
        self.rule = rule
        self.clock = HandClock()
        self.spool = Spool()
        self.receiver = Receiver()
        self.router = Router(store, self.clock, self.spool, self.receiver, rule)

    async def open(self) -> None:
        """As the application does."""
        await self.router.webhooks.open()
        await self.router.predictions.open()

    async def kill_and_restart(self) -> None:
        """kill -9: nothing more is written by the old one, and a new one takes up its rows."""
        self.router.disk.cut = True
        for alarm in self.clock.alarms:
            alarm.cancel()
        self.router = Router(self.store, self.clock, self.spool, self.receiver, self.rule)
        await self.open()

    async def running(self, prediction_id: str) -> None:
        """Wait until the model works on it, and the disk knows."""
        await until(lambda: prediction_id in self.router.model.answers)
        await self.stored(prediction_id, Status.PROCESSING)

    async def stored(self, prediction_id: str, status: Status) -> Prediction:
        """Wait until the disk has it in that status."""
        deadline = time.monotonic() + 30
        while True:
            p = await self.store.get(prediction_id)
            if p is not None and p.status is status:
                return p
            assert time.monotonic() < deadline, f"never {status}: {p}"
            await asyncio.sleep(0.001)

    def answer(self, prediction_id: str, outcome: Outcome = GOOD) -> None:
        """The model's answer."""
        self.router.model.answers[prediction_id].set_result(outcome)
