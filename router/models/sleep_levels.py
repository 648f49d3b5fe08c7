"""The two levels of sleep of a process: asleep by the worker hook, and suspended by the driver.
Both free memory on the card while the process lives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from router.models.driver_client import DriverClient
from router.models.memory import NotMeasuredError
from router.models.process_interface import Copied, SleepRefusedError, Slept, Woken
from router.models.sleep_client import SleepClient

NO_DRIVER = "models do not sleep on a GPU here"
NO_COPIES = Copied(0, 0, 0, 0.0)


class TwoLevelSleeper:
    """Implements `router.models.process_interface.Sleeper`.

    `hook`: in the worker. `driver`: None when the driver suspends nothing here. `pids` and
    `command_lock` are those of the `SleepClient`.
    """

    def __init__(
        self,
        hook: SleepClient,
        driver: DriverClient | None,
        pids: Callable[[], Sequence[int]],
        command_lock: asyncio.Lock,
    ) -> None:
        self.hook = hook
        self._driver = driver
        self._pids = pids
        self._command_lock = command_lock
        self._copied = NO_COPIES  # by the hook's present sleep
        # Bytes by pid, of the processes that the driver has suspended or may have.
        self._suspended: dict[int, int] = {}

    @property
    def asleep(self) -> bool:
        """Whether it must not be asked to do anything now."""
        return self.hook.asleep or self.is_suspended

    @property
    def is_suspended(self) -> bool:
        """Whether the driver has suspended it, or may have. Only SIGKILL ends it then."""
        return bool(self._suspended)

    async def why_not_suspended(self) -> str:
        """See `router.models.process_interface.Sleeper`."""
        return NO_DRIVER if self._driver is None else await self._driver.why_unfit()

    async def stage(self, limit_bytes: int) -> Copied:
        """See `router.models.process_interface.Sleeper`."""
        return await self.hook.stage(limit_bytes)

    async def sleep(self, limit_bytes: int, *, hook: bool = True, driver: bool = False) -> Slept:
        """See `router.models.process_interface.Sleeper`."""
        slept = Slept(self._copied, None)
        if hook:
            slept = await self.hook.sleep(limit_bytes)
            self._copied = slept.copied
        if not driver:
            return slept
        began = time.monotonic()
        try:
            size = await self._suspend(limit_bytes - self.hook.host_bytes)
        except SleepRefusedError as error:
            if not hook:
                raise
            return replace(slept, suspend_refusal=str(error))
        seconds = time.monotonic() - began
        return replace(slept, residue_bytes=0, suspended_bytes=size, suspend_s=seconds)

    async def _suspend(self, limit_bytes: int) -> int:
        """Have the driver suspend all of its processes that hold memory. Return the bytes."""
        if self._driver is None:
            raise SleepRefusedError(NO_DRIVER)
        async with self._command_lock:
            held = self._held()
            size = sum(held.values())
            if size > limit_bytes:
                raise SleepRefusedError("main memory has no room for what it holds on the card")
            self._suspended = held
            try:
                await self._driver.suspend(held)
            except SleepRefusedError:
                self._suspended = {}
                raise
            return size

    def _held(self) -> dict[int, int]:
        """What its processes hold on the card, by pid. Raises SleepRefusedError when that is not
        known: then it cannot be checked either whether there is room to resume them."""
        assert self._driver is not None  # noqa: S101
        held: dict[int, int] = {}
        with contextlib.suppress(NotMeasuredError):
            held = dict(self._driver.held_by(self._pids()))
        if not held:
            raise SleepRefusedError("what its processes hold on the card cannot be measured")
        return held

    async def wake(self) -> Woken:
        """See `router.models.process_interface.Sleeper`."""
        resumed, resume_s = sum(self._suspended.values()), 0.0
        if self._suspended:
            assert self._driver is not None, "it has suspended it"  # noqa: S101
            began = time.monotonic()
            async with self._command_lock:
                await self._driver.resume(self._suspended)
                self._suspended = {}
            resume_s = time.monotonic() - began
        self._copied = NO_COPIES
        woken = await self.hook.wake() if self.hook.asleep else Woken(0, 0.0)
        return replace(woken, resumed_bytes=resumed, resume_s=resume_s)
