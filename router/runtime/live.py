"""A prediction on its way, and the reasons for which it is ended before its model has."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from msgspec.structs import replace

from router.domain.errors import RouterError
from router.domain.prediction import (
    Failure,
    Json,
    LogText,
    Outcome,
    OutputChunk,
    Prediction,
    Progress,
    Status,
)
from router.ports import Timer

MAX_ATTEMPTS = 3
LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a prediction is withdrawn, and how it then ends: while it waits, or while it runs."""

    failure: Failure
    waiting: Status
    running: Status


CANCELED = Verdict(
    Failure("canceled", "The prediction was canceled"), Status.CANCELED, Status.CANCELED
)
# Replicate's words for `Cancel-After`: aborted before it ran, canceled while it ran.
OVERDUE = Verdict(
    Failure("deadline_exceeded", "The prediction did not end before its deadline"),
    Status.ABORTED,
    Status.CANCELED,
)


@dataclass(slots=True)
class Live:
    """A prediction on its way. `prediction` is always its present state, `done` its end."""

    prediction: Prediction
    done: asyncio.Future[None]
    verdict: Verdict | None = None  # overrides what the model says
    timer: Timer | None = None  # runs out when it has run too long
    deadline: Timer | None = None  # runs out when it has lived too long
    dropped_with: RouterError | None = None
    accepted: bool = False  # its caller has been, or is about to be, told that it will run
    _log: list[LogText] = field(default_factory=list)  # while it runs; its outcome has all
    _chunks: list[Json] = field(default_factory=list)
    _followers: set[asyncio.Future[None]] = field(default_factory=set)
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    version: int = 0  # counts every change that followers are told of

    def note(self, progress: Progress) -> None:
        """Add what it has printed or put out, and wake whoever follows it."""
        match progress:
            case LogText():
                self._log.append(progress)
            case OutputChunk(value):
                self._chunks.append(value)
        self.wake_followers()

    def restart(self) -> None:
        """It has not begun, or begins again: there is no progress yet."""
        self._log.clear()
        self._chunks.clear()

    def present(self) -> Prediction:
        """The prediction as it is now, with what it has printed and put out so far."""
        if self.prediction.status is not Status.PROCESSING or not (self._log or self._chunks):
            return self.prediction
        output = list(self._chunks) if self._chunks else None
        return replace(
            self.prediction, output=output, logs="".join(line.text for line in self._log)
        )

    def with_progress(self, outcome: Outcome) -> Outcome:
        """The outcome of a run that did not succeed, with what it had printed and put out."""
        output = outcome.output if outcome.output is not None else (list(self._chunks) or None)
        logs = outcome.logs or "".join(line.text for line in self._log)
        return replace(outcome, output=output, logs=logs)

    def progress_since(self, outputs: int, lines: int) -> tuple[list[Json], list[LogText]]:
        """What has come after so many elements of its output and so many lines of its log."""
        p = self.prediction
        if p.status.is_terminal:
            return chunks_of(p)[outputs:], [*self._log, *log_of(p)[len(self._log) :]][lines:]
        return self._chunks[outputs:], self._log[lines:]

    async def changed_since(self, version: int, timeout_s: float) -> bool:
        """Wait for progress, for another status or for the end, if there has been none since
        that version; False after so long."""
        if self.version != version or self.done.done():
            return True
        follower: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._followers.add(follower)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.wait({follower, self.done}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            return False
        finally:
            self._followers.discard(follower)
        return True

    def wake_followers(self) -> None:
        """It has changed."""
        self.version += 1
        for follower in self._followers:
            _resolve(follower)
        self._followers.clear()

    def end(self) -> None:
        """It is `done`: wake whoever waits."""
        self.done.set_result(None)
        for waiter in self._waiters:
            _resolve(waiter)

    async def wait(self, timeout_s: float) -> None:
        """Return when it has ended, or after so long. Whoever waits may leave without harm.

        A future of the waiter's own: `asyncio.wait` comes a turn of the loop later, which every
        quick prediction would pay for.
        """
        if self.done.done():
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(timeout_s, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.remove(waiter)

    def stop_timer(self) -> None:
        """It does not run now."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def stop_timers(self) -> None:
        """It has ended."""
        self.stop_timer()
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def chunks_of(p: Prediction) -> list[Json]:
    """The elements of the output of a prediction that has ended; one that is no list is one."""
    if p.output is None:
        return []
    return p.output if isinstance(p.output, list) else [p.output]


def log_of(p: Prediction) -> list[LogText]:
    """The lines of the log of a prediction that has ended; where they went is not known.

    Only LF ends a line, as for coglet: a progress bar is one line with many CRs in it.
    """
    return [LogText(line) for line in LINE.findall(p.logs)]


def hopeless(p: Prediction, now: float) -> tuple[Status, Failure] | None:
    """How a prediction that an earlier run of the router left behind ends without running."""
    running = p.status is Status.PROCESSING
    if p.deadline_at is not None and p.deadline_at <= now:
        return (OVERDUE.running if running else OVERDUE.waiting), OVERDUE.failure
    if running and p.attempts >= MAX_ATTEMPTS:
        reason = f"The server stopped during each of {p.attempts} attempts"
        return Status.FAILED, Failure("worker_died", reason)
    return None
