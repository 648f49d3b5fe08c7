"""A model on another machine, as the scheduler knows models: something that starts, runs
predictions, breaks and stops. It takes no memory here.

So everything that holds for a local model holds for it: its queue, its limits, cancels, and
the back-off in which callers are told 503 with a Retry-After. A breaker that opens is a
process that broke; the start after the back-off asks the back-end whether it is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from router import loop_detection
from router.errors import WorkerDied
from router.models.process import LogLine, NotStartedError, Report, StartError
from router.prediction import Job, Outcome
from router.remote.backend import Backend, Guards
from router.remote.responses import TROUBLE, canceled, failed

log = logging.getLogger(__name__)

# What runs when a breaker opens may still end well; it is not cut off at once.
OPENED_GRACE_S = 10.0
# A back-end that does not heed a cancel is left: the caller has been told that it is over.
CANCEL_GRACE_S = 4.0


class RemoteProcess:
    """Fulfils `router.models.process.Process` for one period in which the back-end is in use.

    `guards` outlives it: what has been spent, and whether the breaker had opened.
    """

    def __init__(self, backend: Backend, guards: Guards) -> None:
        self._backend = backend
        self._guards = guards
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        self._canceled: set[str] = set()

    @property
    def sleeper(self) -> None:
        """There is no memory to have back."""
        return None

    # ---- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """See that the back-end is there, and may be asked. Raises StartError."""
        if (wait_s := self._guards.allowance.wait_s()) > 0:
            raise StartError(self._spent(wait_s), retry_after_s=wait_s)
        try:
            with loop_detection.coming_through(""):  # or one request's way would decide for all
                await self._backend.probe()
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, grace_s: float) -> None:
        """Let what runs end for so long, then give it up."""
        if self._guards.breaker.is_open:
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
        """One that is not well is seen by its answers."""

    async def broken(self) -> str:
        """The reason, once the breaker has opened or the hour's allowance is spent."""
        return await asyncio.shield(self._broken)

    def footprint_bytes(self) -> int:
        """None of it is here."""
        return 0

    def pids(self) -> Sequence[int]:
        """None."""
        return ()

    def log_tail(self) -> Sequence[LogLine]:
        """Each prediction has its own logs; the server's are elsewhere."""
        return ()

    @property
    def set_up_log(self) -> str:
        """It is elsewhere."""
        return ""

    # ---- predictions -----------------------------------------------------------------------

    async def predict(self, job: Job, report: Report) -> Outcome:
        """Run one prediction there. Raises NotStartedError when it certainly never began."""
        if self._broken.done():
            raise NotStartedError(self._broken.result())
        if not self._guards.allowance.take():
            reason = self._spent(self._guards.allowance.wait_s())
            self._note_broken(reason)
            raise NotStartedError(reason)
        with loop_detection.coming_through(job.via):
            task = asyncio.ensure_future(self._backend.predict(job, report))
        self._running[job.id] = task
        try:
            outcome = await asyncio.shield(task)
        except NotStartedError as error:
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
        return outcome

    async def cancel(self, prediction_id: str) -> None:
        """Cancel it there; end it here when the back-end does not within some seconds."""
        task = self._running.get(prediction_id)
        if task is None:
            return
        self._canceled.add(prediction_id)
        with loop_detection.coming_through(""):
            is_told = await self._backend.cancel(prediction_id)
        if is_told:
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
        task.cancel()

    def _cut_off(self, prediction_id: str) -> Outcome:
        """It was cancelled here: by request, or because this process was stopped."""
        if prediction_id in self._canceled:
            return canceled()
        return failed(WorkerDied.code, "The back-end was given up while it worked on this")

    # ---- trouble ---------------------------------------------------------------------------

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
