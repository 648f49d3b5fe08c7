"""A model's process as the rest of the router sees it: here, or on another machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router.models.catalog import Package
from router.prediction import Job, Outcome, Progress


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a model's process printed: the prediction that it was printed for, or ""
    where that is not known, and whether that printed it to `stdout` or `stderr`. `in_set_up`:
    before any prediction ran, so it is about nobody's."""

    text: str
    prediction_id: str = ""
    source: str = "stdout"
    in_set_up: bool = False


# Called with each piece of progress, in order, until the outcome is there.
Report = Callable[[Progress], None]


class StartError(Exception):
    """A model's process could not be brought to READY. The message is for a person.
    `retry_after_s`: seconds before which another try is of no use, None where nobody knows."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotStartedError(Exception):
    """A prediction was not begun, because the process was found dead: it is safe to run it
    again elsewhere."""


class Sleeper(Protocol):
    """A way to have a process's memory back without ending it."""

    async def sleep(self) -> None:
        """Give up the shared memory; return when it has been seen to be free. Raises when it
        cannot be: the process is then stopped."""

    async def wake(self) -> None:
        """Take the memory again and be ready. Raises when it cannot: the process is then
        stopped. The caller has seen to it that there is room."""


class Process(Protocol):
    """One start of one model. Everything about the child process is behind this."""

    @property
    def sleeper(self) -> Sleeper | None:
        """How it sleeps; None when its memory comes back with its end only."""

    async def start(self) -> None:
        """Spawn and wait until ready. Raises StartError; the process is then gone."""

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction, and tell of what it prints and puts out meanwhile. Raises
        NotStartedError when it certainly never began."""

    async def cancel(self, prediction_id: str) -> None:
        """Ask a running prediction to stop; it still returns an outcome."""

    async def stop(self, grace_s: float) -> None:
        """End the whole process group and see it gone. Safe to call at any time."""

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """Call `tell` at each change of what the runner's own health check says: with "" when it
        is well, else with why not. Called at once if it is not well now."""

    async def broken(self) -> str:
        """Return, with the reason, when the process is dead or beyond repair."""

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
    """Makes the process of a package, not yet started."""

    def __call__(self, package: Package) -> Process:
        """A new process object."""


class Memory(Protocol):
    """The memory that models share: a GPU's, or the machine's."""

    def measure(self, pids: Sequence[int]) -> int:
        """Bytes held by these processes."""

    def budget_bytes(self, held_by_models: int) -> int:
        """What models may use together, other programs' use taken off."""

    async def wait_freed(self, pids: Iterable[int]) -> None:
        """Return when the driver has given back the memory of these ended processes."""
