"""The loop around the scheduler: it calls the scheduler, performs its effects and reports back.
Nothing else calls `Scheduler.handle`.

Everything runs on one event loop, so there are no locks: `post` passes an event to the scheduler
and turns the effects into tasks. `post` awaits no effect, so a slow stop of one model never delays
a request for another.

When a worker dies, `_report_death` and `_run` report it; see `router.predictions.worker_death`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Protocol

from router.clock import Clock
from router.errors import RouterError, without_paths
from router.logs import START_FAILED
from router.models.catalog import Package
from router.models.process_interface import (
    LogLine,
    MayHaveBegunError,
    Memory,
    NotStartedError,
    Process,
    ProcessFactory,
    RunAgainError,
    StartError,
)
from router.models.tracebacks import with_location
from router.observability.facts import Facts, LoadEnded, ModelChanged
from router.prediction import Failure, Job, Outcome, Progress, Status
from router.predictions.failure_details import failure_log_tail, with_log_tail
from router.predictions.sleep_steps import SleepSteps, sleep_levels_of
from router.predictions.wake_ups import WakeUps
from router.predictions.worker_death import worker_died
from router.scheduling import messages as msg
from router.scheduling.model import COMING, GONE, LEAVING, Phase
from router.scheduling.scheduler import Scheduler
from router.scheduling.snapshot import Snapshot

log = logging.getLogger(__name__)

MEASURE_EVERY_S = 5.0
# Coglet acts on a cancel at the next bytecode boundary. If the code reaches none within this time,
# its process is killed.
CANCEL_GRACE_S = 10.0
STOP_GRACE_S = 10.0

# Reports after which a model may be in a new phase that no effect announced.
STEPS_OF_A_PROCESS = (
    *(msg.Ready, msg.HealthChanged, msg.Slept, msg.Woke, msg.StartFailed, msg.Stopped),
    msg.SleepRefused,
)


class Jobs(Protocol):
    """The owner of the predictions. The loop calls it at every step of a prediction."""

    def started(self, prediction_id: str) -> Job:
        """The prediction is about to run. Returns what to run."""

    def progressed(self, prediction_id: str, progress: Progress) -> None:
        """The prediction has printed a log text, sent a part of its output or recorded a metric."""

    def handed_back(self, prediction_id: str, *, may_have_begun: bool) -> bool:
        """The prediction did not begin, or it may have begun at its remote. True when it waits
        again, False when it has ended."""

    def finished(self, prediction_id: str, outcome: Outcome) -> float | None:
        """The prediction ended. Returns its service time in seconds, None if that does not count
        for the model's average."""

    def dropped(self, prediction_id: str, error: RouterError) -> None:
        """The prediction will not run, because of `error`."""


class SchedulerLoop:
    """Owns the scheduler and one process object for each model that has one."""

    def __init__(
        self,
        scheduler: Scheduler,
        packages: Mapping[str, Package],
        make_process: ProcessFactory,
        memory: Memory,
        clock: Clock,
        *,
        jobs: Jobs,
        facts: Facts | None = None,
        copies_budget: Callable[[int], int] | None = None,
    ) -> None:
        """copies_budget: returns the main memory that copies may take, from what they take now."""
        self.scheduler = scheduler
        self._owner = jobs
        self._packages = packages
        self._make_process = make_process
        self._memory = memory
        self._clock = clock
        self._facts = facts or Facts()
        self._copies_budget = copies_budget
        self._processes: dict[str, Process] = {}
        self.sleep_steps = SleepSteps(self._processes, clock, self._facts, self.post)
        self._changing: dict[str, asyncio.Task[None]] = {}  # by model: its start, sleep or wake
        self._last_logs: dict[str, Sequence[LogLine]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._events: deque[msg.Event] = deque()
        self._handling = False
        self._wake_ups = WakeUps(clock, scheduler.next_wakeup, lambda: self.post(msg.Tick()))
        self._changed = asyncio.Event()

    # ---- life ----------------------------------------------------------------------------

    def open(self) -> None:
        """Measure memory now and regularly."""
        self._measure()
        self._spawn(self._measure_regularly())

    async def close(self, grace_s: float) -> None:
        """Drop waiting predictions, give running ones `grace_s` seconds, then stop every
        process."""
        self.post(msg.RouterStopping())
        try:
            async with asyncio.timeout(grace_s):
                await self._all_stopped()
        except TimeoutError:
            self.post(msg.RouterStopping(force=True))
            await self._all_stopped()
        for task in list(self._tasks):
            task.cancel()
        self._wake_ups.close()

    async def _all_stopped(self) -> None:
        while any(m.phase not in GONE or m.running for m in self.scheduler.models.values()):
            self._changed.clear()
            await self._changed.wait()

    # ---- events in, effects out ----------------------------------------------------------

    def post(self, event: msg.Event) -> None:
        """Pass an event to the scheduler and perform its effects. Never blocks.

        An effect may post another event (a drop may lead to a withdrawal). Such an event is queued,
        so the scheduler is never entered twice.
        """
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                effects = self.scheduler.handle(event, self._clock.monotonic())
                if isinstance(event, STEPS_OF_A_PROCESS):
                    self._report_phase(event.model)
                for effect in effects:
                    self._perform(effect)
        finally:
            self._handling = False
        self._changed.set()
        self._wake_ups.look()

    def _report_phase(self, model: str) -> None:
        """Report the phase that a process has reached. The phases in COMING and LEAVING were
        reported with their effect."""
        m = self.scheduler.models[model]
        if m.phase not in COMING and m.phase not in LEAVING:
            state = m.state if m.problem else m.phase
            self._facts.tell(ModelChanged(model, state, m.problem))

    def _perform(self, effect: msg.Effect) -> None:
        match effect:
            case msg.Run():
                # Marked as started here, not in the task: a cancel that comes before the task runs
                # must find the prediction running.
                self._spawn(self._run(effect, self._owner.started(effect.id)))
            case msg.Drop():
                self._owner.dropped(effect.id, effect.error)
            case msg.Start():
                self._facts.tell(ModelChanged(effect.model, Phase.STARTING))
                self._follow(effect.model, self._start(effect))
            case msg.Stop():
                self._facts.tell(ModelChanged(effect.model, Phase.STOPPING, effect.reason))
                self._spawn(self._stop(effect))
            case msg.Stage():
                self._spawn(self.sleep_steps.stage(effect))
            case msg.Sleep():
                self._facts.tell(ModelChanged(effect.model, Phase.FALLING_ASLEEP, effect.reason))
                self._follow(effect.model, self._then_measure(self.sleep_steps.sleep(effect)))
            case msg.Wake():
                self._facts.tell(ModelChanged(effect.model, Phase.WAKING))
                self._follow(effect.model, self._then_measure(self.sleep_steps.wake(effect)))
            case msg.Interrupt():
                self._spawn(self._interrupt(effect))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _follow(self, model: str, work: Coroutine[None, None, None]) -> None:
        """Run work in a task that a stop of the model cancels and waits for."""
        task = self._changing[model] = self._spawn(work)

        def ended(task: asyncio.Task[None]) -> None:
            if self._changing.get(model) is task:
                del self._changing[model]

        task.add_done_callback(ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("an effect failed", exc_info=error)

    # ---- effects -------------------------------------------------------------------------

    async def _start(self, e: msg.Start) -> None:
        began = self._clock.monotonic()
        log.info("model starting", extra={"model": e.model})
        process = self._make_process(self._packages[e.model])
        self._processes[e.model] = process
        try:
            await process.start()
        except Exception as error:
            known = isinstance(error, StartError)
            reason = without_paths(str(error)) if known else "the server failed"
            location = error.location if isinstance(error, StartError) else ""
            self._last_logs[e.model] = process.log_tail()
            del self._processes[e.model]
            log.error(
                START_FAILED,
                exc_info=not known,
                extra={"model": e.model, "reason": with_location(reason, location)},
            )
            failed_s, now = self._clock.monotonic() - began, self._clock.time()
            self._facts.tell(LoadEnded(e.model, failed_s, ready=False, ended_at=now))
            tail = failure_log_tail(process.log_tail())
            asked_s = error.retry_after_s or 0.0 if isinstance(error, StartError) else 0.0
            outage = isinstance(error, StartError) and error.outage
            self.post(
                msg.StartFailed(e.model, e.generation, reason, tail, asked_s, location, outage)
            )
            return
        load_s, now = self._clock.monotonic() - began, self._clock.time()
        footprint = process.footprint_bytes()
        log.info(
            "model ready",
            extra={"model": e.model, "load_s": round(load_s, 2), "mib": footprint >> 20},
        )
        self._facts.tell(LoadEnded(e.model, load_s, ready=True, ended_at=now))
        process.watch_health(partial(self._health_changed, e))
        levels = await sleep_levels_of(process)
        self.post(msg.Ready(e.model, e.generation, load_s, footprint, *levels))
        self._measure()
        self._spawn(self._report_death(process, e))

    def _health_changed(self, e: msg.Start, problem: str) -> None:
        fields = {"model": e.model, **({"reason": problem} if problem else {})}
        log.warning("model unhealthy" if problem else "model healthy again", extra=fields)
        self.post(msg.HealthChanged(e.model, e.generation, problem))

    async def _report_death(self, process: Process, e: msg.Start) -> None:
        reason = await process.broken()
        if self._processes.get(e.model) is process:
            tail = failure_log_tail(process.log_tail())
            self.post(msg.Died(e.model, e.generation, reason, tail))

    async def _then_measure(self, step: Coroutine[None, None, None]) -> None:
        await step
        self._measure()

    async def _stop(self, e: msg.Stop) -> None:
        log.info("model stopping", extra={"model": e.model, "reason": e.reason})
        if changing := self._changing.pop(e.model, None):
            # A cancelled `start` cleans up after itself. A process that still runs is stopped
            # below.
            changing.cancel()
            await asyncio.wait({changing})
        process = self._processes.pop(e.model, None)
        if process is not None:
            self._last_logs[e.model] = process.log_tail()
            pids = list(process.pids())
            at_once = e.reason in ("crashed", "unhealthy", "forced")
            try:
                await process.stop(0.0 if at_once else STOP_GRACE_S)
                await self._memory.wait_freed(pids)
            except Exception:
                # It is still reported as stopped, so that the model can start again.
                log.exception("process not stopped cleanly", extra={"model": e.model})
        self.post(msg.Stopped(e.model, e.generation))
        self._measure()

    async def _run(self, e: msg.Run, job: Job) -> None:
        process = self._processes.get(e.model)
        try:
            if process is None:
                raise NotStartedError("the process was stopped before the run began")
            outcome = await process.predict(job, partial(self._owner.progressed, e.id))
        except RunAgainError as error:
            began = isinstance(error, MayHaveBegunError)
            waits = self._owner.handed_back(e.id, may_have_begun=began)
            self.post(msg.Died(e.model, e.generation, str(error)))
            run = (e.id, e.model, e.generation)
            self.post(msg.Requeued(*run) if waits else msg.Finished(*run))
            return
        except Exception:
            # A bug of the router. The slot must still become free, and the caller needs an answer.
            log.exception("a run failed in the router itself", extra={"model": e.model})
            outcome = Outcome(Status.FAILED, failure=Failure(RouterError.code, "The server failed"))
        died = worker_died(outcome)
        if died and process is not None:
            outcome = with_log_tail(outcome, process.log_tail(), e.id)
        service_s = self._owner.finished(e.id, outcome)
        if died:
            # Posted before the slot is free; otherwise the next prediction would be sent to it.
            self.post(msg.Died(e.model, e.generation, "the worker died"))
        elif not self.scheduler.models[e.model].waiting:
            # No prediction waits for the slot, but a caller may wait for this result: send that
            # first.
            await asyncio.sleep(0)
        self.post(msg.Finished(e.id, e.model, e.generation, service_s))

    async def _interrupt(self, e: msg.Interrupt) -> None:
        model = self.scheduler.models[e.model]
        process = self._processes.get(e.model)
        if process is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_GRACE_S):
                await process.cancel(e.id)
                await asyncio.sleep(CANCEL_GRACE_S)
        run = model.running.get(e.id)
        if run is not None and run.generation == e.generation:
            self.post(msg.Died(e.model, e.generation, "it did not stop its run after a cancel"))

    # ---- memory --------------------------------------------------------------------------

    async def _measure_regularly(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_EVERY_S)
            self._measure()

    def _measure(self) -> None:
        ready = {
            name: process.footprint_bytes()
            for name, process in self._processes.items()
            if self.scheduler.models[name].phase is Phase.READY
        }
        held = sum(process.footprint_bytes() for process in self._processes.values())
        host_budget = None
        models = self.scheduler.models.values()
        # While copies are made, it is not known how much of the used memory they take.
        if self._copies_budget is not None and all(m.host_limit_bytes is None for m in models):
            host_budget = self._copies_budget(sum(m.held_host_bytes for m in models))
        self.post(msg.Measured(self._memory.budget_bytes(held), ready, host_budget))

    # ---- what callers may ask ------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Every model, its queue and its memory now."""
        return self.scheduler.snapshot(self._clock.monotonic())

    def set_up_log(self, model: str) -> str:
        """The end of what the model's process printed until it was ready."""
        process = self._processes.get(model)
        return process.set_up_log if process else ""

    def log_tail(self, model: str, prediction_id: str = "") -> Sequence[str]:
        """The last lines that the model's process printed; those of its last process if it has none
        now. With an id, only the lines of that prediction."""
        process = self._processes.get(model)
        lines = process.log_tail() if process else self._last_logs.get(model, ())
        return [line.text for line in lines if prediction_id in ("", line.prediction_id)]
