"""Starts, watches and ends one coglet server and its worker. No other code does.

It handles this behaviour of coglet 0.23.1 (docs/architecture/coglet.md says how it was found):
- coglet answers 409 for some milliseconds after a prediction. The router tries again, see
  coglet_client.py.
- Its worker may die while the server lives on and answers 409 indefinitely. The worker's pid is
  watched, and its death is reported by `broken`. The whole group is then replaced. What becomes of
  the predictions is in `router.predictions.worker_death`.
- It leaves files in the temp folder. Each start has a private folder, swept after predictions.
- On SIGTERM during set-up the worker survives the server. The whole group is always killed.
- It raises a cancel as an exception in the thread of the prediction. If that thread is starting
  another one at this moment, Python 3.11 raises it there, and the first thread waits forever. The
  scheduler loop replaces a process whose run does not stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from router.errors import PredictionFailed, WorkerDied
from router.models.catalog import Package
from router.models.coglet_client import CogClient, request_body
from router.models.coglet_responses import (
    MAX_BODY_BYTES,
    OWN_CHECK_TIMED_OUT,
    BodyTooLargeError,
    own_problem,
    read_outcome,
    set_up_log,
    start_error,
)
from router.models.loopback_http import ConnectionLostError
from router.models.process_group import ProcessGroup
from router.models.process_interface import LogLine, NotStartedError, Report, StartError
from router.models.process_log import ProcessLog
from router.models.process_options import (
    TRACEBACK,
    ProcessOptions,
    control_socket,
    environment,
    runnable,
)
from router.models.schemas import why_not_spawned
from router.models.sleep_client import SleepClient
from router.models.sleep_levels import TwoLevelSleeper
from router.models.temp_folder import LeftBehind, TempFolder
from router.prediction import Failure, Job, Json, Outcome, Status

POLL_FIRST_S = 0.02
POLL_MAX_S = 0.25
# Without a worker, for example with no `python` on its PATH, coglet would stay STARTING
# indefinitely.
NO_WORKER_LIMIT_S = 20.0
REASON_WAIT_S = 0.5
UNKNOWN_AGAIN_S = 0.02
CANCEL_AGAIN_S = 1.0
HEALTH_EVERY_S = 5.0
# A worker that holds the GIL for 10 s reads as UNHEALTHY too. So one reading is not enough, and
# none counts while a prediction runs; the prediction's own time limit decides then.
UNHEALTHY_READINGS = 6
WORKER_GONE = "channel closed"
# Predictions wait for a process that is unhealthy, so it is checked more often.
UNHEALTHY_EVERY_S = 1.0


class CogProcess:
    """Implements `router.models.process_interface.Process` for one start of one package."""

    def __init__(self, package: Package, options: ProcessOptions) -> None:
        self._package = package
        self._options = options
        self._tmp = TempFolder(options.tmp_dir / f"{package.name}-{os.urandom(4).hex()}")
        self._group: ProcessGroup | None = None
        self._client: CogClient | None = None
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._broken_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker_fd: int | None = None
        self._running = 0
        self._left_behind = LeftBehind(self._at_rest)
        self._last_run_at = 0.0
        self._log = ProcessLog()
        self._problem = ""
        self._on_health: Callable[[str], None] | None = None
        self._command_lock = asyncio.Lock()
        self._sleeper: TwoLevelSleeper | None = None
        if options.sleep_device:
            socket_path = control_socket(self._tmp.path)
            hook = SleepClient(socket_path, self.pids, options.measure, self._command_lock)
            self._sleeper = TwoLevelSleeper(hook, options.driver, self.pids, self._command_lock)

    # ---- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Spawn the process and wait for READY.

        Raises StartError when it does not get READY; then no process of it is left.
        """
        try:
            self._group = await self._spawn()
            self._watch(self._watch_exit(self._group))
            log = await self._wait_ready()
        except BaseException:
            await self.stop(grace_s=0)
            raise
        self._log.end_set_up(log)
        self._tmp.keep_present()
        self._watch(self._watch_health())

    async def stop(self, grace_s: float) -> None:
        """End the group, gently for `grace_s` seconds, and remove what it left behind."""
        if self._sleeper is not None and self._sleeper.is_suspended:
            grace_s = 0.0  # it could not end by itself
        self._forget_worker()
        for task in list(self._tasks):
            task.cancel()
        if self._group is not None:
            await self._group.end(grace_s)
        if self._client is not None:
            await self._client.close()
        await asyncio.to_thread(self._tmp.remove)
        await self._left_behind.close()

    @property
    def sleeper(self) -> TwoLevelSleeper | None:
        """How it sleeps; None when models do not sleep here."""
        return self._sleeper

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """See `router.models.process_interface.Process`."""
        self._on_health = tell
        if self._problem:
            tell(self._problem)

    async def broken(self) -> str:
        """Return the reason when the process is dead or cannot recover."""
        return await asyncio.shield(self._broken)

    def footprint_bytes(self) -> int:
        """Memory held by the process group now."""
        return self._options.measure(self.pids())

    def pids(self) -> list[int]:
        """The server, its worker, and all that the worker has started."""
        return self._group.pids() if self._group else []

    def log_tail(self) -> Sequence[LogLine]:
        """The last lines that it printed, coglet's own included, oldest first."""
        if self._group is None:
            return []
        return list(self._log.told_apart(self._group.lines))

    @property
    def set_up_log(self) -> str:
        """The lines of the set-up, coglet's own and the model's, without paths."""
        return self._log.of_set_up

    # ---- predictions ---------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction. Raises NotStartedError when it has certainly not begun."""
        assert self._client is not None, "predict() before start()"  # noqa: S101
        body = request_body(job)
        on_progress = report if self._package.streams else None
        self._tmp.ensure_exists()
        self._running += 1
        self._log.reports[job.id] = report
        try:
            answer = await self._client.predict(body, self._broken.done, on_progress, job.trace)
            outcome = read_outcome(*answer)
        except NotStartedError as error:
            self._note_broken(str(error))
            raise
        except ConnectionLostError:
            self._note_broken("the connection to its server was lost")
            failure = Failure(WorkerDied.code, "The model's process ended while it worked on this")
            outcome = Outcome(Status.FAILED, failure=failure)
        except BodyTooLargeError:
            failure = Failure(
                PredictionFailed.code,
                f"The model's output is larger than {MAX_BODY_BYTES >> 20} MiB",
            )
            outcome = Outcome(Status.FAILED, failure=failure)
        finally:
            self._running -= 1
            del self._log.reports[job.id]
            self._last_run_at = time.monotonic()
            self._left_behind.add(job.id)
        if outcome.failure is not None and outcome.failure.code == WorkerDied.code:
            self._note_broken("the worker died")
        elif self._running == 0:
            self._tmp.sweep_if_due()
        return outcome

    def _at_rest(self) -> None:
        """No prediction has ended for a while. One may still run."""
        if self._running == 0:
            self._tmp.sweep()

    async def cancel(self, prediction_id: str) -> None:
        """Ask coglet to cancel. It acts at the runner's next bytecode boundary.

        It is asked again until the prediction has ended. A cancel may arrive before its
        prediction, and coglet forgets one that comes before its worker has begun.
        """
        while prediction_id in self._log.reports and self._client is not None:
            is_known = await self._client.cancel(prediction_id)
            await asyncio.sleep(CANCEL_AGAIN_S if is_known else UNKNOWN_AGAIN_S)

    # ---- starting ------------------------------------------------------------------------

    async def _spawn(self) -> ProcessGroup:
        self._package = runnable(self._package)
        port = _free_port()
        try:
            self._tmp.make()
        except OSError as error:
            raise StartError(f"its temporary folder cannot be made: {error.strerror}") from error
        self._client = CogClient(port)
        argv = (str(self._package.python), "-m", "cog.server.http", "--host", "127.0.0.1")
        try:
            return await ProcessGroup.spawn(
                argv,
                cwd=self._package.folder,
                env=environment(self._package, self._options, self._tmp.path, port),
                on_line=self._log.read_line,
            )
        except OSError as error:
            raise StartError(why_not_spawned(self._package, error)) from error

    async def _wait_ready(self) -> str:
        """Wait until it is READY. Return the log of its set-up. Raises StartError."""
        assert self._client is not None  # noqa: S101
        began = time.monotonic()
        poll_s = POLL_FIRST_S
        while True:
            # Watched from its start: when it dies during set-up, coglet stays STARTING.
            self._watch_worker()
            health = await self._client.health()
            is_ready = health.get("status") in ("READY", "BUSY") and not self._broken.done()
            self._problem = own_problem(health)  # if there is one, the set-up has succeeded
            if is_ready or self._problem:
                return set_up_log(health)
            if reason := self._why_it_failed(health, time.monotonic() - began):
                raise self._start_error(reason, health)
            if self._broken.done():
                await asyncio.sleep(poll_s)
            else:
                await asyncio.wait({self._broken}, timeout=poll_s)
            poll_s = min(poll_s * 1.5, POLL_MAX_S)

    def _why_it_failed(self, health: Mapping[str, Json], waited_s: float) -> str | None:
        """Return why this start has failed, or None while it may still succeed."""
        if health.get("status") in ("SETUP_FAILED", "DEFUNCT"):
            return "its set-up failed"
        # When a set-up raises, the worker ends some moments before coglet reports the reason.
        if self._broken.done() and time.monotonic() - self._broken_at > REASON_WAIT_S:
            return "its process ended during set-up"
        if waited_s > self._options.setup_timeout_s:
            return f"its set-up took longer than {self._options.setup_timeout_s:.0f} s"
        if self._worker_fd is None and waited_s > NO_WORKER_LIMIT_S:
            return "its worker does not start"
        return None

    def _start_error(self, reason: str, health: Mapping[str, Json]) -> StartError:
        printed = [line.text for line in self.log_tail()]
        raised = self._tmp.read(TRACEBACK).decode(errors="replace").splitlines()
        lost = [line for line in raised if line not in printed]
        if self._group is not None:
            self._group.add_lines(f"{line}\n".encode() for line in lost)
        return start_error(reason, [*printed, *lost], health)

    # ---- watching ------------------------------------------------------------------------

    def _watch_worker(self) -> None:
        """Notice at once when the worker dies. coglet reports it only with its next answer."""
        if self._group is None or self._worker_fd is not None or self._broken.done():
            return
        for pid in self._group.child_pids()[:1]:
            with contextlib.suppress(OSError):
                self._worker_fd = os.pidfd_open(pid)
                loop = asyncio.get_running_loop()
                loop.add_reader(self._worker_fd, self._worker_exited)

    def _worker_exited(self) -> None:
        self._forget_worker()
        self._note_broken("the worker died")

    def _forget_worker(self) -> None:
        if self._worker_fd is not None:
            asyncio.get_running_loop().remove_reader(self._worker_fd)
            os.close(self._worker_fd)
            self._worker_fd = None

    async def _watch_exit(self, group: ProcessGroup) -> None:
        self._note_broken(f"its server ended with {await group.wait()}")

    async def _watch_health(self) -> None:
        assert self._client is not None  # noqa: S101
        bad = 0
        while True:
            await asyncio.sleep(UNHEALTHY_EVERY_S if self._problem else HEALTH_EVERY_S)
            asked_at, running = time.monotonic(), self._running
            async with self._command_lock:
                # The runner's own check may use memory that a sleeper does not have.
                if self._sleeper is not None and self._sleeper.asleep:
                    continue
                health = await self._client.health()
            # Whether a prediction may have delayed the health check.
            running = running or self._running or self._last_run_at >= asked_at
            if problem := own_problem(health):
                bad = 0
                if not (running and problem.startswith(OWN_CHECK_TIMED_OUT)):
                    self._note_health(problem)
                continue
            if health.get("status") in ("READY", "BUSY", "STARTING"):
                bad = 0
                self._note_health("")
                continue
            bad = 0 if running else bad + 1
            why = str(health.get("user_healthcheck_error", ""))
            if WORKER_GONE in why or bad >= UNHEALTHY_READINGS:
                self._note_broken(why or "it does not answer")
                return

    def _note_health(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            if self._on_health is not None:
                self._on_health(problem)

    def _watch(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note_broken(self, reason: str) -> None:
        if not self._broken.done():
            self._broken_at = time.monotonic()
            self._broken.set_result(reason)


def _free_port() -> int:
    """Return a port that was free a moment ago. If another program takes it, the start fails."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
