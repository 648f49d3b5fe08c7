"""A model's process as the rest of the router sees it, local or remote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.models.catalog import Package
from router.prediction import Job, Outcome, Progress


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a model's process printed.

    `prediction_id`: the prediction that printed it, "" when that is not known. `source`: `stdout`
    or `stderr`. `in_set_up`: it was printed before any prediction ran, so it belongs to none.
    """

    text: str
    prediction_id: str = ""
    source: str = "stdout"
    in_set_up: bool = False


# Called with each piece of progress, in order, until there is an outcome.
Report = Callable[[Progress], None]


class StartError(Exception):
    """A model's process did not become ready. The message is for a person.

    `retry_after_s`: another try within these seconds is of no use; None when that is not known.
    `outage`: the model's other machine is away for now, so predictions may wait for it. `missing`:
    that machine says that it does not have the model.
    `location`: the line of the package that raised it, as in "run.py:12 in setup", for the operator
    only; "" when it is not known. `log`: the last lines that were printed, when no process has
    them.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        location: str = "",
        log: Sequence[str] = (),
        outage: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(message)
        self.missing = missing
        self.outage = outage
        self.retry_after_s = retry_after_s
        self.location = location
        self.log = log


class RunAgainError(Exception):
    """A prediction has no outcome, and may run again."""


class NotStartedError(RunAgainError):
    """A prediction was not begun, because the process was found dead.

    It is safe to run the prediction in another process.
    """


class MayHaveBegunError(RunAgainError):
    """A prediction may have begun on another machine, and the settings let it run twice."""


class SleepRefusedError(Exception):
    """A process did not sleep, and nothing has changed in it. The message says why, for a person.

    `again`: a later try may succeed, as the process was only at work.
    """

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True, slots=True)
class Copied:
    """A process's memory has been copied to main memory.

    `host_bytes`: what all its copies take there. `freed_bytes`: what a sleep frees. `copied_bytes`:
    what was copied this time.
    """

    host_bytes: int
    freed_bytes: int
    copied_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Slept:
    """A process is asleep. `copied`: by its hook, all 0 when that has copied nothing.
    `residue_bytes`: what it still holds of the shared memory, as measured; None if that cannot be
    measured. `suspended_bytes`: what the driver has moved to main memory, in `suspend_s`; 0 when it
    has moved nothing. If it was asked to and did not, `suspend_refusal` says why."""

    copied: Copied
    residue_bytes: int | None
    suspended_bytes: int = 0
    suspend_s: float = 0.0
    suspend_refusal: str = ""


@dataclass(frozen=True, slots=True)
class Woken:
    """A process is awake again, after `copied_bytes` were copied in `seconds`, and before that
    `resumed_bytes` by the driver in `resume_s`."""

    copied_bytes: int
    seconds: float
    resumed_bytes: int = 0
    resume_s: float = 0.0


class Sleeper(Protocol):
    """Frees the memory of a process without ending the process."""

    async def stage(self, limit_bytes: int) -> Copied:
        """Copy its memory, so that it falls asleep quickly. It goes on working meanwhile.

        The copies may take at most `limit_bytes` of main memory. Raises SleepRefusedError when the
        process will not; another exception when it does not answer.
        """

    async def why_not_suspended(self) -> str:
        """Return why the driver cannot suspend it; "" when nothing is known against it."""

    async def sleep(self, limit_bytes: int, *, hook: bool = True, driver: bool = False) -> Slept:
        """Give up the shared memory, and return when it is measured to be free.

        It may take `limit_bytes` of main memory. `hook`: the worker hook frees torch's memory; not
        when it has done so already. `driver`: then the driver suspends the process. Raises
        SleepRefusedError when nothing has been changed. After any other exception the process has
        to be stopped.
        """

    async def wake(self) -> Woken:
        """Take the memory again and become ready. The caller has made sure that there is room.

        Raises an exception when that fails or takes too long. The process is then stopped.
        """


class Process(Protocol):
    """One start of one model. It hides all details of the child process."""

    @property
    def sleeper(self) -> Sleeper | None:
        """How it sleeps; None when only its end frees its memory."""

    async def start(self) -> None:
        """Spawn the process and wait until it is ready.

        Raises StartError when it does not become ready. The process is then gone.
        """

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction. Meanwhile call `report` with what it prints and outputs.

        Raises NotStartedError when it has certainly not begun, and MayHaveBegunError when it may
        have begun and still may run again.
        """

    async def cancel(self, prediction_id: str) -> None:
        """Ask a running prediction to stop. It still returns an outcome."""

    async def stop(self, grace_s: float) -> None:
        """End the whole process group, and return when it is gone. It may be called at any time."""

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """Call `tell` at each change of what the runner's own health check reports.

        It is called with "" when the process is healthy, else with the problem. It is called at
        once when the process is unhealthy now.
        """

    async def broken(self) -> str:
        """Return the reason when the process is dead or cannot recover."""

    def footprint_bytes(self) -> int:
        """Memory held now."""

    def pids(self) -> Sequence[int]:
        """Its processes now."""

    def log_tail(self) -> Sequence[LogLine]:
        """The last lines that the process printed, oldest first."""

    @property
    def set_up_log(self) -> str:
        """The end of what it printed until it was ready, as callers may read it."""


class ProcessFactory(Protocol):
    """Makes the process of a package without starting it."""

    def __call__(self, package: Package) -> Process:
        """Return a new process object."""


class Memory(Protocol):
    """The memory that models share: a GPU's, or the machine's."""

    def measure(self, pids: Sequence[int]) -> int:
        """Return the bytes that these processes hold."""

    def budget_bytes(self, held_by_models: int) -> int:
        """Return the bytes that all models may use together, without other programs' use."""

    def most_bytes(self) -> int:
        """Return the bytes that all models could use if no other program used any."""

    async def wait_freed(self, pids: Iterable[int]) -> None:
        """Return when the driver has freed the memory of these ended processes."""
