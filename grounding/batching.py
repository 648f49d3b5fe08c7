"""Requests that wait together are answered together.

One thread owns the model. While it works, requests collect; when it is free it takes the oldest
and every other that can share its pass. Nobody waits for company: alone, a request runs at once.
"""

import threading
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
        """work: answers jobs in their order; called by one thread only."""
        self._work = work
        self._most = most
        self._waiting: list[_Waiting[Job, Answer]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, job: Job) -> Future[Answer]:
        """Queue a job; jobs of one key may share a call. Cancelling the future withdraws it as
        long as its call has not begun.

        Raises: RuntimeError after close().
        """
        answer: Future[Answer] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(_Waiting(key, job, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answer what waits, then end the thread."""
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
        """The oldest and its companions; nothing once closed and empty."""
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
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            # One picture's failure, or memory for one pass but not for eight, is not its
            # neighbours' failure.
            for item in batch:
                self._answer([item])
            return
        for item, answer in zip(batch, answers, strict=True):
            item.answer.set_result(answer)
