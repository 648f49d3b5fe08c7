"""Batches the jobs of several threads, without a thread of its own and without a timer.

A thread that finds the model free runs all jobs that wait by then, its own and others'. Jobs that
arrive meanwhile form the next batch. None waits for a batch to fill: alone, a job starts at once.
"""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Batcher(Generic[Job, Result]):
    """Calls `work` with what several threads submit; never from two threads at once."""

    def __init__(
        self, work: Callable[[list[Job]], list[Result]], size: Callable[[Job], int], limit: int
    ) -> None:
        """work: results in the order of its jobs; a batch's sizes add up to at most `limit`.

        A job larger than the limit runs alone.
        """
        self._work, self._size, self._limit = work, size, limit
        self._waiting: deque[tuple[Job, Future[Result]]] = deque()
        self._waiting_guard = threading.Lock()
        self._turn = threading.Lock()

    def submit(self, job: Job) -> Result:
        """The job's result, when it is there. Raises what `work` raises for it."""
        mine: Future[Result] = Future()
        with self._waiting_guard:
            self._waiting.append((job, mine))
        with self._turn:
            while not mine.done():  # first come, first served: earlier jobs may have to run first
                self._do(self._next())
        return mine.result()

    def _next(self) -> list[tuple[Job, Future[Result]]]:
        """The longest run from the front of the queue that fits, at least one."""
        with self._waiting_guard:
            batch = [self._waiting.popleft()]
            total = self._size(batch[0][0])
            while self._waiting:
                total += self._size(self._waiting[0][0])
                if total > self._limit:
                    break
                batch.append(self._waiting.popleft())
        return batch

    def _do(self, batch: list[tuple[Job, Future[Result]]]) -> None:
        try:
            results = self._work([job for job, _ in batch])
        except Exception as problem:
            forget_locals(problem)
            if len(batch) == 1:
                batch[0][1].set_exception(problem)
                return
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)
            return
        # Outside the except block, so that nothing of the failed call is alive in the retry. One
        # job's error, or too little memory for all at once, must not fail the others.
        for one in batch:
            self._do([one])


def forget_locals(error: BaseException) -> None:
    """Clear the local variables of the functions that an exception went through, those of its
    causes included: they hold the tensors of a failed batch for as long as the exception lives."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            traceback.clear_frames(one.__traceback__)
            waiting += [one.__cause__, one.__context__]
