"""Batches requests for the model.

One thread owns the model. While it works, requests queue up; when it is free it takes the oldest
and all others that can share its pass. None waits for a batch to fill: alone, a request runs at
once.
"""

import threading
import traceback
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class _Waiting(NamedTuple, Generic[Job, Answer]):
    key: Hashable
    job: Job
    answer: Future[Answer]


class Batcher(Generic[Job, Answer]):
    """A thread that calls `work` with up to `most` jobs of one key."""

    def __init__(self, work: Callable[[list[Job]], Sequence[Answer]], most: int) -> None:
        """work: returns answers in the order of its jobs; called by one thread only."""
        self._work = work
        self._most = most
        self._waiting: list[_Waiting[Job, Answer]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, job: Job) -> Future[Answer]:
        """Queue a job; jobs of one key may share a call. Cancelling the future removes the job
        until its call begins.

        Raises RuntimeError when the batcher is closed.
        """
        answer: Future[Answer] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(_Waiting(key, job, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answer the waiting jobs, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next():
            running = [item for item in batch if item.answer.set_running_or_notify_cancel()]
            if running:
                self._answer(running)

    def _next(self) -> list[_Waiting[Job, Answer]]:
        """The oldest job and those that share its call; nothing once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return []
            key = self._waiting[0].key
            batch = [item for item in self._waiting if item.key == key][: self._most]
            chosen = {id(item.answer) for item in batch}
            self._waiting = [item for item in self._waiting if id(item.answer) not in chosen]
            return batch

    def _answer(self, batch: list[_Waiting[Job, Answer]]) -> None:
        try:
            answers = self._work([item.job for item in batch])
        except Exception as error:
            forget_locals(error)
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
        else:
            for item, answer in zip(batch, answers, strict=True):
                item.answer.set_result(answer)
            return
        # Outside the except block, so that nothing of the failed call is alive in the retry. One
        # picture's error, or too little memory for all at once, must not fail the others.
        middle = len(batch) // 2
        self._answer(batch[:middle])
        self._answer(batch[middle:])


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
