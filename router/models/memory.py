"""The memory that models share: the first visible GPU's, or the machine's if it has no GPU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence

import psutil
import pynvml

from router.models.process_interface import Memory

# The driver frees memory some time after a process ends. Ollama polls in this way too.
FREED_POLL_S = 0.25
FREED_LIMIT_S = 5.0
# NVML counts in pages, and a driver keeps some of them.
SLACK_BYTES = 64 << 20
# A CUDA context alone takes more than this.
NOTICEABLE_BYTES = 128 << 20


class NotMeasuredError(Exception):
    """The memory that is held could not be read now."""


class HostMemory:
    """Main memory, for models that run on the CPU."""

    def __init__(self, reserve_bytes: int, limit_bytes: int | None = None) -> None:
        self._reserve_bytes = reserve_bytes
        self._limit_bytes = limit_bytes

    def measure(self, pids: Sequence[int]) -> int:
        """Return the resident bytes of these processes, without those shared with others."""
        total = 0
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                info = psutil.Process(pid).memory_info()
                total += max(info.rss - info.shared, 0)
        return total

    def budget_bytes(self, held_by_models: int) -> int:
        """Return the bytes that are available now and those that models hold, less the reserve."""
        free = psutil.virtual_memory().available
        budget = max(free + held_by_models - self._reserve_bytes, 0)
        return budget if self._limit_bytes is None else min(budget, self._limit_bytes)

    def most_bytes(self) -> int:
        """Return what the machine has, less the reserve."""
        most = max(psutil.virtual_memory().total - self._reserve_bytes, 0)
        return most if self._limit_bytes is None else min(most, self._limit_bytes)

    async def wait_freed(self, pids: Iterable[int]) -> None:
        """Return at once: the kernel frees a process's memory before the process is gone."""


class GpuMemory:
    """One GPU's memory, read through NVML. Raises pynvml.NVMLError when there is no driver.

    In a container with its own pids, the driver's pids match none of ours. Then no model can be
    measured, and the scheduler keeps its assumption. The use by other programs is then assumed to
    be what was in use before the first model was loaded.
    """

    def __init__(self, reserve_bytes: int, limit_bytes: int | None = None) -> None:
        self._reserve_bytes = reserve_bytes
        self._limit_bytes = limit_bytes
        pynvml.nvmlInit()
        self._device = _first_visible_device()
        self._used_before = int(pynvml.nvmlDeviceGetMemoryInfo(self._device).used)
        self._sees_pids = True

    def measure(self, pids: Sequence[int]) -> int:
        """Return the bytes that the driver attributes to these processes; 0 if it knows none, or
        does not say."""
        try:
            used_by_pid = self._used_by_pid()
        except NotMeasuredError:
            return 0
        known = [used_by_pid[pid] for pid in pids if pid in used_by_pid]
        if known:
            self._sees_pids = True
        elif pids and self._used() > self._used_before + NOTICEABLE_BYTES:
            self._sees_pids = False
        return sum(known)

    def budget_bytes(self, held_by_models: int) -> int:
        """Return the card's total, less what other programs use and the reserve."""
        info = pynvml.nvmlDeviceGetMemoryInfo(self._device)
        by_others = int(info.used) - held_by_models if self._sees_pids else self._used_before
        budget = max(int(info.total) - max(by_others, 0) - self._reserve_bytes, 0)
        return budget if self._limit_bytes is None else min(budget, self._limit_bytes)

    def free_bytes(self) -> int:
        """Return what nobody uses now."""
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._device).free)

    def most_bytes(self) -> int:
        """Return the card's total, less the reserve."""
        total = int(pynvml.nvmlDeviceGetMemoryInfo(self._device).total)
        most = max(total - self._reserve_bytes, 0)
        return most if self._limit_bytes is None else min(most, self._limit_bytes)

    def held_by(self, pids: Sequence[int]) -> dict[int, int]:
        """Return the bytes that each of these processes holds, without those that hold none.

        Raises NotMeasuredError.
        """
        used_by_pid = self._used_by_pid()
        return {pid: used for pid in pids if (used := used_by_pid.get(pid, 0)) > 0}

    def device_name(self) -> str:
        """Return the card's name from the driver, such as "NVIDIA H100 80GB HBM3"."""
        name = pynvml.nvmlDeviceGetName(self._device)
        return name.decode() if isinstance(name, bytes) else str(name)

    def _used(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._device).used)

    async def wait_freed(self, pids: Iterable[int]) -> None:
        """Wait until the driver lists none of these pids, for FREED_LIMIT_S seconds at most."""
        gone = set(pids)
        deadline = time.monotonic() + FREED_LIMIT_S
        while self._lists_any(gone) and time.monotonic() < deadline:
            await asyncio.sleep(FREED_POLL_S)

    def _lists_any(self, pids: set[int]) -> bool:
        try:
            return bool(pids & self._used_by_pid().keys())
        except NotMeasuredError:
            return True  # it is not known whether they are gone

    def _used_by_pid(self) -> dict[int, int]:
        """Raises NotMeasuredError."""
        used: dict[int, int] = {}
        try:
            listed = list(pynvml.nvmlDeviceGetComputeRunningProcesses(self._device))
        except pynvml.NVMLError as error:
            raise NotMeasuredError(f"the driver does not list its processes: {error}") from error
        with contextlib.suppress(pynvml.NVMLError):  # not every card has graphics
            listed += pynvml.nvmlDeviceGetGraphicsRunningProcesses(self._device)
        for p in listed:
            used[int(p.pid)] = max(used.get(int(p.pid), 0), int(p.usedGpuMemory or 0))
        return used


async def wait_below(measure: Callable[[], int], limit_bytes: int) -> int:
    """Wait until no more than `limit_bytes` are measured, and return what is. `measure` may raise
    NotMeasuredError, which is no reason to believe that anything is free. Raises TimeoutError after
    FREED_LIMIT_S seconds."""
    deadline = time.monotonic() + FREED_LIMIT_S
    while True:
        try:
            if (held := measure()) <= limit_bytes:
                return held
            why = f"{held >> 20} MiB are still held, expected {limit_bytes >> 20} MiB"
        except NotMeasuredError as error:
            why = str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(why)
        await asyncio.sleep(FREED_POLL_S)


async def wait_until_free(free_bytes: Callable[[], int], needed_bytes: int) -> None:
    """Wait until so much is free. Raises TimeoutError after FREED_LIMIT_S seconds."""
    deadline = time.monotonic() + FREED_LIMIT_S
    while (free := free_bytes()) < needed_bytes:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{free >> 20} MiB are free, {needed_bytes >> 20} MiB are needed")
        await asyncio.sleep(FREED_POLL_S)


def _first_visible_device() -> object:
    """Return the device of CUDA_VISIBLE_DEVICES' first entry, an index or a UUID, or device 0."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "0"
    if first.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(first))
    return pynvml.nvmlDeviceGetHandleByUUID(first)


def hardware_name(memory: Memory) -> str:
    """Return what the models run on: the GPU's name, or "CPU"."""
    return memory.device_name() if isinstance(memory, GpuMemory) else "CPU"


def copies_budget_bytes(held_by_copies: int, limit_bytes: int | None = None) -> int:
    """Return the main memory that the copies of sleeping models may take together: half of what is
    free or held by copies now, or `limit_bytes` when that is less.

    Copies for a GPU are pinned: the kernel can neither swap nor move them, so half is left.
    """
    half = (psutil.virtual_memory().available + held_by_copies) // 2
    return half if limit_bytes is None else min(half, limit_bytes)


def detect_memory(reserve_bytes: int, limit_bytes: int | None = None) -> GpuMemory | HostMemory:
    """Return the GPU's memory when NVML finds a GPU that may be used, else the machine's."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() not in ("", "-1"):
        with contextlib.suppress(pynvml.NVMLError):
            return GpuMemory(reserve_bytes, limit_bytes)
    return HostMemory(reserve_bytes, limit_bytes)
