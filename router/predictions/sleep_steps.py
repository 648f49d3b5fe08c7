"""Performs the scheduler's effects for sleep, and reports back: stage, sleep and wake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from router.clock import Clock
from router.errors import without_paths
from router.models.process_interface import Process, Sleeper, SleepRefusedError
from router.observability.facts import Facts, MemoryMoved, SleepRefused, WakeEnded
from router.predictions.failure_details import failure_log_tail
from router.scheduling import messages as msg

log = logging.getLogger(__name__)


async def sleep_levels_of(process: Process) -> tuple[bool, bool, str]:
    """Return whether the process can sleep, whether the driver can suspend it, and why not."""
    if (sleeper := process.sleeper) is None:
        return False, False, ""
    why = await sleeper.why_not_suspended()
    return True, not why, why


class SleepSteps:
    """`processes`: by the model's name. `post` passes a report to the scheduler.

    `last`: each model's last move of each kind. `best_bytes_per_s`: the quickest wake that this
    machine has shown, 0 before the first.
    """

    def __init__(
        self,
        processes: Mapping[str, Process],
        clock: Clock,
        facts: Facts,
        post: Callable[[msg.Event], None],
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._facts = facts
        self._post = post
        self.last: dict[str, dict[str, MemoryMoved]] = {}
        self.best_bytes_per_s = 0.0

    async def stage(self, e: msg.Stage) -> None:
        """Have the memory of a process copied while it is idle."""
        process = self._processes.get(e.model)
        if process is None or process.sleeper is None:
            return  # it has been stopped meanwhile
        try:
            copied = await process.sleeper.stage(e.limit_bytes)
        except Exception as error:
            reason = self._tell_refusal(e.model, error)
            again = isinstance(error, SleepRefusedError) and error.again
            self._post(msg.SleepRefused(e.model, e.generation, reason, again, staging=True))
        else:
            self._moved(e.model, "stage", copied.copied_bytes, copied.seconds)
            self._post(msg.Staged(e.model, e.generation, copied.host_bytes, copied.freed_bytes))

    async def sleep(self, e: msg.Sleep) -> None:
        """Put an idle process to sleep: by the hook, the driver or both."""
        log.info("model falling asleep", extra={"model": e.model, "reason": e.reason})
        began = self._clock.monotonic()
        try:
            sleeper = self._sleeper(e.model)
            slept = await sleeper.sleep(e.limit_bytes, hook=e.hook, driver=e.driver)
        except SleepRefusedError as error:
            reason = self._tell_refusal(e.model, error)
            self._post(msg.SleepRefused(e.model, e.generation, reason, error.again))
        except Exception:
            log.exception("model not put to sleep", extra={"model": e.model})
            self._post(msg.SleepFailed(e.model, e.generation))
        else:
            seconds, copied = self._clock.monotonic() - began, slept.copied
            log.info("model asleep", extra={"model": e.model, "sleep_s": round(seconds, 3)})
            if e.hook:
                self._moved(e.model, "sleep", copied.freed_bytes, seconds - slept.suspend_s)
            if slept.suspended_bytes:
                self._moved(e.model, "suspend", slept.suspended_bytes, slept.suspend_s)
            if slept.suspend_refusal:
                self._tell_refusal(e.model, SleepRefusedError(slept.suspend_refusal))
            self._post(
                msg.Slept(
                    *(e.model, e.generation, slept.residue_bytes),
                    *(copied.freed_bytes, copied.host_bytes, seconds),
                    *(slept.suspended_bytes, without_paths(slept.suspend_refusal)),
                )
            )

    async def wake(self, e: msg.Wake) -> None:
        """Wake a sleeping process."""
        began = self._clock.monotonic()
        process = self._processes[e.model]
        try:
            woken = await self._sleeper(e.model).wake()
        except Exception as error:
            self._wake_ended(e.model, began, ready=False)
            log.exception("model not woken", extra={"model": e.model})
            tail = failure_log_tail(process.log_tail())
            why = without_paths(str(error)) or "it took too long"
            self._post(msg.Died(e.model, e.generation, f"it could not be woken: {why}", tail))
        else:
            wake_s = self._wake_ended(e.model, began, ready=True)
            log.info("model awake", extra={"model": e.model, "wake_s": round(wake_s, 3)})
            if woken.resumed_bytes:
                self._moved(e.model, "resume", woken.resumed_bytes, woken.resume_s)
            if woken.copied_bytes:
                self._moved(e.model, "wake", woken.copied_bytes, woken.seconds)
                rate = woken.copied_bytes / max(woken.seconds, 1e-6)
                self.best_bytes_per_s = max(self.best_bytes_per_s, rate)
            self._post(msg.Woke(e.model, e.generation, wake_s, process.footprint_bytes()))

    def _wake_ended(self, model: str, began: float, *, ready: bool) -> float:
        seconds = self._clock.monotonic() - began
        self._facts.tell(WakeEnded(model, seconds, ready, self._clock.time()))
        return seconds

    def _moved(self, model: str, move: str, size: int, seconds: float) -> None:
        fact = MemoryMoved(model, move, size, seconds)
        self.last.setdefault(model, {})[move] = fact
        self._facts.tell(fact)

    def _tell_refusal(self, model: str, error: Exception) -> str:
        reason = without_paths(str(error)) or type(error).__name__
        log.warning("model does not sleep", extra={"model": model, "reason": reason})
        self._facts.tell(SleepRefused(model, reason))
        return reason

    def _sleeper(self, model: str) -> Sleeper:
        sleeper = self._processes[model].sleeper
        assert sleeper is not None, "only such a model is put to sleep"  # noqa: S101
        return sleeper
