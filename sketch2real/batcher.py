"""Batches requests for the one painter, and stops those that are cancelled.

The painter works in a thread of its own. Pictures of one bucket that arrived while it was busy are
painted together, in order of arrival. A single picture starts at once: none waits for a batch to
fill.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future

import torch
from errors import OutOfMemory
from memory import forget_locals
from PIL import Image
from request import OnStep, Painter, Request, Step

OnProgress = Callable[[int, int], None]
"""Called in the event loop with (steps done, steps in all) over all pictures of a request."""

OnPreview = Callable[[Image.Image], None]
"""Called in the event loop with small previews of the request's first picture."""


class _Job:
    """One picture of a request."""

    def __init__(
        self,
        request: Request,
        report: Callable[["_Job"], None],
        show: Callable[[Image.Image], None] | None,
    ) -> None:
        self.request = request
        self.result: Future[Image.Image] = Future()
        self.step = (0, 0)
        self._report, self._show = report, show
        self._latents: torch.Tensor | None = None

    def stepped(self, step: Step, latents: torch.Tensor, painter: Painter) -> None:
        """After a step of the batch; latents: (1, …), this picture's own."""
        self.step = (step.done, step.steps)
        self._report(self)
        if self._show is None or step.done == step.steps:
            return
        if self._latents is not None:
            small = painter.preview(self.request, self._latents, latents, step.done)
            if small is not None:
                self._show(small)
        self._latents = latents.clone()

    def drop_latents(self) -> None:
        """Forget the last step's latents: the attempt has ended."""
        self._latents = None


class Batcher:
    """Takes requests from an event loop and runs them on the painter's thread."""

    def __init__(self, painter: Painter) -> None:
        self.painter = painter
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="painter", daemon=True)
        self._thread.start()

    async def paint(
        self, request: Request, on_progress: OnProgress, on_preview: OnPreview | None = None
    ) -> list[Image.Image]:
        """One RGB picture per seed; picture i depends on `request.seeds[i]` alone.

        Cancelling the task cancels the request. A batch of which every request is cancelled stops
        after its current step.

        Raises OutOfMemory when even one picture does not fit (what was allocated is freed), and
        FloatingPointError when the model answers with NaN.
        """
        loop = asyncio.get_running_loop()
        # coglet assigns a printed line to the prediction of the context it is printed in; without
        # this copy, callbacks from the painter's thread would have none.
        context = contextvars.copy_context()
        jobs: list[_Job] = []
        furthest = 0

        def progressed() -> None:
            nonlocal furthest
            steps = max(job.step[1] for job in jobs)
            done = sum(job.step[0] for job in jobs)
            if done > furthest:  # a failed batch starts over, one picture at a time
                furthest = done
                on_progress(done, steps * len(jobs))

        def report(_job: _Job) -> None:
            loop.call_soon_threadsafe(progressed, context=context)

        def show(small: Image.Image) -> None:
            if on_preview is not None:
                loop.call_soon_threadsafe(on_preview, small, context=context)

        for index, one in enumerate(request.each()):
            jobs.append(_Job(one, report, show if on_preview and index == 0 else None))
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()
        try:
            return await asyncio.gather(*(asyncio.wrap_future(job.result) for job in jobs))
        finally:
            for job in jobs:  # if one was cancelled or failed, the rest are not needed
                job.result.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = self._next_batch(self.painter.together)
            self._paint(batch)

    def _next_batch(self, most: int) -> list[_Job]:
        """The oldest waiting job and those of its bucket, in order, at most `most`."""
        jobs = [job for job in self._waiting if not job.result.cancelled()]
        batch = [job for job in jobs if job.request.bucket == jobs[0].request.bucket][:most]
        self._waiting = deque(job for job in jobs if job not in batch)
        return batch

    def _paint(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return

        def on_step(step: Step) -> None:
            if all(job.result.cancelled() for job in batch):
                raise CancelledError
            for job, latents in zip(batch, torch.split(step.latents, 1), strict=True):
                job.stepped(step, latents, self.painter)

        outcome = self._attempt(batch, on_step)
        del on_step
        for job in batch:
            job.drop_latents()
        if isinstance(outcome, list):
            for job, picture in zip(batch, outcome, strict=True):
                _finish(job, picture)
        elif isinstance(outcome, OutOfMemory | FloatingPointError) and len(batch) > 1:
            del outcome
            # One at a time needs less memory, and isolates the picture that is NaN.
            for job in batch:
                if not job.result.cancelled():
                    self._paint([job])
        else:
            for job in batch:
                _finish(job, outcome)

    def _attempt(self, batch: Sequence[_Job], on_step: OnStep) -> list[Image.Image] | Exception:
        """The pictures of `batch`, or what went wrong, without a reference to any tensor.

        It must not be handled in an except block: whatever is painted there again would share the
        memory with the failed attempt.
        """
        try:
            return self.painter.paint([job.request for job in batch], on_step)
        except Exception as error:  # fails these requests; the thread must go on
            forget_locals(error)
            return error


def _finish(job: _Job, outcome: Image.Image | Exception) -> None:
    """Set the job's result, unless it was cancelled; from here on it cannot be."""
    if not job.result.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
