"""One painter, many requests: who waits, who is painted with whom, who changed their mind.

The painter works in a thread of its own. Whatever of one bucket has come while it was busy is
painted together, first come first; nothing waits for company.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as Withdrawn
from concurrent.futures import Future

import torch
from errors import OutOfMemory
from PIL import Image
from request import Painter, Request, Step

OnProgress = Callable[[int, int], None]
"""Called in the event loop with (steps done, steps in all) over all pictures of a request."""

OnPreview = Callable[[Image.Image], None]
"""Called in the event loop with small pictures of the request's first picture as it emerges."""


class _Job:
    """One picture of a request."""

    def __init__(
        self,
        request: Request,
        tell: Callable[["_Job"], None],
        show: Callable[[Image.Image], None] | None,
    ) -> None:
        self.request = request
        self.result: Future[Image.Image] = Future()
        self.step = (0, 0)
        self._tell, self._show = tell, show
        self._latents: torch.Tensor | None = None

    def stepped(self, step: Step, latents: torch.Tensor, painter: Painter) -> None:
        """After a step of the batch; latents: (1, …), this picture's own."""
        self.step = (step.done, step.steps)
        self._tell(self)
        if self._show is None or step.done == step.steps:
            return
        if self._latents is not None:
            small = painter.preview(self.request, self._latents, latents, step.done)
            if small is not None:
                self._show(small)
        self._latents = latents.clone()


class Batcher:
    """Takes requests from an event loop and has them painted."""

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

        Cancelling the task withdraws the request: what is painted for nobody else stops after the
        step it is in.

        Raises: OutOfMemory: even one picture did not fit; what was allocated is freed.
        FloatingPointError: the model answered with NaN.
        """
        loop = asyncio.get_running_loop()
        # A callback from another thread runs in that thread's context, and coglet files a print
        # under the prediction whose context it is printed in.
        context = contextvars.copy_context()
        jobs: list[_Job] = []
        furthest = 0

        def progressed() -> None:
            nonlocal furthest
            steps = max(job.step[1] for job in jobs)
            done = sum(job.step[0] for job in jobs)
            if done > furthest:  # a batch that is begun again, one by one, goes back
                furthest = done
                on_progress(done, steps * len(jobs))

        def tell(_job: _Job) -> None:
            loop.call_soon_threadsafe(progressed, context=context)

        def show(small: Image.Image) -> None:
            if on_preview is not None:
                loop.call_soon_threadsafe(on_preview, small, context=context)

        for index, one in enumerate(request.each()):
            jobs.append(_Job(one, tell, show if on_preview and index == 0 else None))
        with self._changed:
            self._waiting.extend(jobs)
            self._changed.notify()
        try:
            return await asyncio.gather(*(asyncio.wrap_future(job.result) for job in jobs))
        finally:
            for job in jobs:  # withdrawn, or one failed: the others are of no use
                job.result.cancel()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = self._next_batch(self.painter.together)
            self._paint(batch)

    def _next_batch(self, most: int) -> list[_Job]:
        """The first that waits and all of its bucket, in order, as many as go together."""
        jobs = [job for job in self._waiting if not job.result.cancelled()]
        batch = [job for job in jobs if job.request.bucket == jobs[0].request.bucket][:most]
        self._waiting = deque(job for job in jobs if job not in batch)
        return batch

    def _paint(self, batch: Sequence[_Job]) -> None:
        if not batch:
            return

        def on_step(step: Step) -> None:
            if all(job.result.cancelled() for job in batch):
                raise Withdrawn
            for job, latents in zip(batch, torch.split(step.latents, 1), strict=True):
                job.stepped(step, latents, self.painter)

        try:
            pictures = self.painter.paint([job.request for job in batch], on_step)
        except Withdrawn:
            return
        except (OutOfMemory, FloatingPointError) as error:
            if len(batch) == 1:
                _finish(batch[0], error)
            else:  # one by one needs less, and one's NaN is not its neighbours'
                for job in batch:
                    self._paint([job])
        except Exception as error:  # the request's, not the thread's
            for job in batch:
                _finish(job, error)
        else:
            for job, picture in zip(batch, pictures, strict=True):
                _finish(job, picture)


def _finish(job: _Job, outcome: Image.Image | Exception) -> None:
    """Unless it was withdrawn; after this it cannot be any more."""
    if not job.result.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
