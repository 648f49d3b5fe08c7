"""A model on another machine in the form of a process, as the scheduler needs it: it starts, runs
predictions, breaks and stops. It takes no memory here.

So the rules for a local model are valid for it too: its queue, its limits, cancels, and the
back-off during which callers get 503 with a Retry-After. When the breaker opens, the process counts
as broken. The start after the back-off asks the back-end whether it is available.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from router import loop_detection, trace_context
from router.errors import WorkerDied
from router.models.process_interface import (
    LogLine,
    MayHaveBegunError,
    NotStartedError,
    Report,
    RunAgainError,
    StartError,
)
from router.prediction import Job, Outcome, Status
from router.remote.backend import Backend, Guards
from router.remote.responses import TROUBLE, canceled, failed

log = logging.getLogger(__name__)

# When the back-end is not used any more, running predictions may still succeed, so they get this
# long to end.
OPENED_GRACE_S = 10.0
# After this the router stops waiting for a back-end that does not react to a cancel.
CANCEL_GRACE_S = 4.0


class RemoteProcess:
    """A `Process` for one period in which the back-end is used.

    `guards` outlives the process: the requests that were sent, and whether the breaker is open.
    `repeatable`: what runs when the process stops may run again.
    """

    def __init__(self, backend: Backend, guards: Guards, *, repeatable: bool = False) -> None:
        self._backend = backend
        self._guards = guards
        self._repeatable = repeatable
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        self._canceled: set[str] = set()

    @property
    def sleeper(self) -> None:
        """None: there is no memory to free."""
        return None

    # ---- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Check that a request is allowed now and that the back-end is available. Raises StartError
        when not; it is no outage any more when the model has been missing for too long."""
        if (wait_s := self._guards.allowance.wait_s()) > 0:
            raise StartError(self._spent(wait_s), retry_after_s=wait_s)
        try:
            with loop_detection.coming_through(""):  # the probe is for all requests, not for one
                await self._backend.probe()
        except BaseException as error:
            await self.stop(0.0)
            if isinstance(error, StartError):
                if not error.missing:
                    self._guards.no_server.found()
                elif self._guards.no_server.record():
                    error.outage = False
            raise
        self._guards.no_server.found()

    async def stop(self, grace_s: float) -> None:
        """Wait up to `grace_s` for running predictions to end, then abandon them."""
        if self._broken.done():
            grace_s = max(grace_s, OPENED_GRACE_S)
        if self._running:
            await asyncio.wait(set(self._running.values()), timeout=grace_s)
        running = dict(self._running)
        with loop_detection.coming_through(""):
            await asyncio.gather(*(self._backend.abandon(i) for i in running))
        for task in running.values():
            task.cancel()
        if running:
            await asyncio.wait(set(running.values()))
        await self._backend.close()

    def watch_health(self, tell: Callable[[str], None]) -> None:
        """Does nothing: the health of a back-end shows in its responses."""

    async def broken(self) -> str:
        """Wait until the breaker opens or the allowance of the hour is used; returns the reason."""
        return await asyncio.shield(self._broken)

    def footprint_bytes(self) -> int:
        """0: the model takes no memory here."""
        return 0

    def pids(self) -> Sequence[int]:
        """Empty: there is no process here."""
        return ()

    def log_tail(self) -> Sequence[LogLine]:
        """Empty: only the logs of predictions are known, not those of the server."""
        return ()

    @property
    def set_up_log(self) -> str:
        """Empty: it is not known here."""
        return ""

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction at the back-end. Raises NotStartedError when it certainly did not
        begin, and MayHaveBegunError when it may run again all the same."""
        if self._broken.done():
            raise NotStartedError(self._broken.result())
        if not self._guards.allowance.take():
            reason = self._spent(self._guards.allowance.wait_s())
            self._note_broken(reason)
            raise NotStartedError(reason)
        with loop_detection.coming_through(job.via), trace_context.within(job.trace):
            task = asyncio.ensure_future(self._backend.predict(job, report))
        self._running[job.id] = task
        try:
            outcome = await asyncio.shield(task)
        except RunAgainError as error:
            self._note_broken(str(error))
            raise
        except asyncio.CancelledError:
            if not task.cancelled():
                task.cancel()  # the router itself is ending
                raise
            outcome = self._cut_off(job.id)
        finally:
            self._running.pop(job.id, None)
            self._canceled.discard(job.id)
        self._judge(outcome)
        if outcome.missing:
            if self._guards.no_model.record():
                return replace(outcome, refused=False)
        elif outcome.status is not Status.CANCELED:  # a cancel is no answer about the model
            self._guards.no_model.found()
        return outcome

    async def cancel(self, prediction_id: str) -> None:
        """Cancel it at the back-end. End it here when the back-end does not within
        CANCEL_GRACE_S."""
        task = self._running.get(prediction_id)
        if task is None:
            return
        self._canceled.add(prediction_id)
        with loop_detection.coming_through(""):
            asked = await self._backend.cancel(prediction_id)
        if asked:
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        task.cancel()

    def _cut_off(self, prediction_id: str) -> Outcome:
        """The outcome of a run that was cancelled here: by request, or by the stop of this
        process. Raises MayHaveBegunError for one that may run again: it waits in the queue."""
        if prediction_id in self._canceled:
            return canceled()
        if self._repeatable:
            raise MayHaveBegunError("the router stopped using the back-end")
        return failed(
            WorkerDied.code, "The router stopped using the back-end while it worked on this"
        )

    # ---- failures --------------------------------------------------------------------------

    def _judge(self, outcome: Outcome) -> None:
        failure = outcome.failure
        if failure is None or failure.code not in TROUBLE:
            if failure is None or failure.code != WorkerDied.code:
                self._guards.breaker.succeeded()
            return
        log.warning("back-end failed", extra={"reason": failure.message})
        self._guards.breaker.failed()
        if self._guards.breaker.is_open:
            self._note_broken(failure.message)

    def _note_broken(self, reason: str) -> None:
        if not self._broken.done():
            self._broken.set_result(reason)

    def _spent(self, wait_s: float) -> str:
        allowed = self._guards.allowance.per_hour
        return f"its {allowed} requests of this hour are used; the next in {wait_s:.0f} s"
