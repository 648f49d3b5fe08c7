"""What the runtime needs of the world, as protocols. Adapters fulfil them; tests fake them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from router.domain.caller import Caller
from router.domain.package import Package
from router.domain.prediction import Delivery, FileRef, Job, Outcome, Prediction, Progress
from router.domain.stored_file import StoredFile

# A prediction's place in the order of creation: its time and, for those of one time, its id.
Cursor = tuple[float, str]


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


class Store(Protocol):
    """Predictions on disk. One writer; every call is one transaction."""

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """Insert or replace; with `announce_at`, also put a webhook due then into the outbox."""

    async def claim(self, prediction: Prediction) -> bool:
        """Insert it if its id is free; False, and no change, when it is taken."""

    async def get(self, prediction_id: str) -> Prediction | None:
        """The prediction, or None."""

    async def delete(self, prediction_id: str) -> None:
        """Forget it."""

    async def unfinished(self) -> Sequence[Prediction]:
        """Every prediction that has not ended, oldest first."""

    async def page(
        self,
        owner: str | None,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """At most `limit` predictions of that owner (None: of all), newest first: the newest,
        those just older than `before`, or those just newer than `after`. Fewer when they are
        large."""

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """Delete what ended before then; return the files, of inputs and of outputs, that are
        nobody's now."""

    async def ended_ids(self) -> Collection[str]:
        """The id of every prediction that has ended."""


class UploadIndex(Protocol):
    """What is known of uploaded files; their contents are in the spool."""

    async def put_file(self, file: StoredFile) -> None:
        """Insert."""

    async def get_file(self, file_id: str) -> StoredFile | None:
        """The file, or None."""

    async def list_files(self) -> Sequence[StoredFile]:
        """All of them, newest first."""

    async def delete_file(self, file_id: str) -> None:
        """Forget it."""


class Outbox(Protocol):
    """Webhooks that must arrive. `Store.put` fills it in the transaction of the result."""

    async def deliveries(self) -> Sequence[Delivery]:
        """All that have not arrived."""

    async def postpone(self, delivery: Delivery) -> None:
        """It did not arrive: the attempts so far and when the next is due."""

    async def delivered(self, prediction_id: str) -> None:
        """It has arrived, or is given up."""


class WebhookSender(Protocol):
    """Calls other people's servers."""

    def check(self, url: str) -> None:
        """Raises InvalidInput for a URL that is never called."""

    async def send(self, url: str, message_id: str, body: bytes) -> int:
        """POST, signed; the answer's status, 0 when there is none."""

    async def close(self) -> None:
        """Close every connection."""


class OpenFile(Protocol):
    """A file being written to the spool."""

    path: Path
    size_bytes: int

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. Raises InsufficientStorage."""

    def close(self) -> None:
        """No more will be written."""


class Fetcher(Protocol):
    """Gets inputs that were given as URLs."""

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Fetch into the spool for that caller; path and a name for it. Raises InvalidInput,
        PayloadTooLarge."""

    async def close(self) -> None:
        """Close every connection."""


class Files(Protocol):
    """The spool: private files of predictions."""

    def create(self, client_name: str, owner: str = "") -> OpenFile:
        """A new file; of the client's name only a harmless suffix is kept. With `owner`, a
        prediction's id, its name says whose it is."""

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete them; one that is gone already is no error."""

    def link(self, file: FileRef) -> str:
        """Another name for the content, deleted on its own; its path. Raises InvalidInput when
        it is gone, InsufficientStorage."""


class Timer(Protocol):
    """A call that is still to come."""

    def cancel(self) -> None:
        """It will not come."""


class Timers(Protocol):
    """Makes calls later. asyncio's event loops are such; tests have one they turn by hand."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` after `delay` seconds."""


@dataclass(frozen=True, slots=True)
class ModelReading:
    """One model at one moment. `states`: every state, and whether it is in it."""

    name: str
    states: Mapping[str, bool]
    queued: int
    running: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The models at one moment, and the memory that they may use together."""

    budget_bytes: int
    models: Sequence[ModelReading]


class Observer(Protocol):
    """Told of facts; decides nothing, is waited for by nobody, and must be quick."""

    def prediction_changed(self, p: Prediction) -> None:
        """It was accepted, has started, waits again, or has ended: see its status."""

    def prediction_refused(self, model: str, code: str) -> None:
        """One was not accepted; nothing of it is left."""

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """It is in another phase; a stop has a reason."""

    def load_ended(self, model: str, seconds: float, *, ready: bool) -> None:
        """A start has succeeded or failed."""

    def request_ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `route` is the template of the path."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def time(self) -> float:
        """Seconds since the epoch."""
