"""Memory as it is shared. The GPU's driver is a stand-in: none was at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from router.models import memory
from router.models.memory import GpuMemory, HostMemory, detect_memory

GIB = 1 << 30


@dataclass
class Driver:
    """A card of 24 GiB: what is used, and by which pids as the driver numbers them."""

    used: int = GIB
    by_pid: dict[int, int | None] | None = None

    def info(self, device: object) -> Any:
        """nvmlDeviceGetMemoryInfo."""
        return SimpleNamespace(total=24 * GIB, used=self.used)

    def processes(self, device: object) -> list[Any]:
        """nvmlDeviceGetComputeRunningProcesses."""
        return [SimpleNamespace(pid=p, usedGpuMemory=u) for p, u in (self.by_pid or {}).items()]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver whose state the test sets."""
    driver = Driver()
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda i: i)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", driver.info)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", driver.processes)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetGraphicsRunningProcesses", lambda device: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


def test_another_programs_use_counts_against_the_budget(driver: Driver) -> None:
    """What is used and not by models is somebody else's."""
    gpu = GpuMemory(reserve_bytes=GIB)
    assert gpu.budget_bytes(0) == 22 * GIB
    driver.used, driver.by_pid = 6 * GIB, {7: 5 * GIB}
    held = gpu.measure([7, 8])
    assert held == 5 * GIB
    assert gpu.budget_bytes(held) == 22 * GIB
    driver.used = 10 * GIB  # another program takes 4 GiB
    assert gpu.budget_bytes(held) == 18 * GIB


def test_in_a_container_the_drivers_pids_are_strangers(driver: Driver) -> None:
    """Models are not taken for other programs when their pids cannot be told."""
    gpu = GpuMemory(reserve_bytes=GIB)
    driver.used, driver.by_pid = 9 * GIB, {40_001: 8 * GIB}
    assert gpu.measure([7]) == 0
    assert gpu.budget_bytes(0) == 22 * GIB


def test_memory_that_the_driver_does_not_attribute(driver: Driver) -> None:
    """usedGpuMemory may be None; that is 0, not an error."""
    gpu = GpuMemory(reserve_bytes=0)
    driver.by_pid = {7: None}
    assert gpu.measure([7]) == 0


async def test_freed_is_waited_for(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the driver lists the process no more, and no longer than the limit."""
    monkeypatch.setattr(memory, "FREED_POLL_S", 0.001)
    gpu = GpuMemory(reserve_bytes=0)
    listings = [{7: GIB}, {7: GIB}, {8: GIB}]

    def processes(device: object) -> list[Any]:
        by_pid = listings.pop(0) if len(listings) > 1 else listings[0]
        return [SimpleNamespace(pid=p, usedGpuMemory=u) for p, u in by_pid.items()]

    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)
    await gpu.wait_freed([7])
    assert listings == [{8: GIB}]
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.01)
    await gpu.wait_freed([8])


async def test_a_driver_that_does_not_answer(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is taken to be free because the driver did not list it; a list of graphics may be
    missing."""
    monkeypatch.setattr(memory, "FREED_POLL_S", 0.001)
    gpu = GpuMemory(reserve_bytes=0)
    driver.by_pid = {7: GIB, 8: None}
    assert gpu.held_by([7, 8, 9]) == {7: GIB}
    answers: list[Any] = [True, True, False]

    def processes(device: object) -> list[Any]:
        if answers and answers.pop(0):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
        return driver.processes(device)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetGraphicsRunningProcesses", processes)
    assert gpu.held_by([7]) == {7: GIB}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)
    with pytest.raises(memory.NotMeasuredError, match="does not list"):
        gpu.held_by([7])
    answers[:] = [True]
    assert gpu.measure([7]) == 0
    answers[:] = [True, True, False]
    await gpu.wait_freed([9])
    assert answers == []
    answers[:] = [True, False]
    assert await memory.wait_below(lambda: sum(gpu.held_by([7]).values()), GIB) == GIB
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.0)
    answers[:] = [True] * 9
    with pytest.raises(TimeoutError, match="does not list"):
        await memory.wait_below(lambda: sum(gpu.held_by([7]).values()), GIB)


def test_host_memory_measures_this_process() -> None:
    """Resident bytes; a pid that is gone is 0; the budget has a limit and a reserve."""
    host = HostMemory(reserve_bytes=0, limit_bytes=GIB)
    mine = host.measure([os.getpid()])
    assert 1 << 20 < mine < 4 * GIB
    assert host.measure([2**22 - 1]) == 0
    assert host.budget_bytes(0) <= GIB
    assert HostMemory(reserve_bytes=1 << 60).budget_bytes(0) == 0


def test_without_a_driver_it_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No NVML, or no device that may be used: main memory."""

    def no_driver() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert isinstance(detect_memory(0), HostMemory)


def test_a_hidden_card_is_not_used(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES empty or -1 means none; otherwise its first entry."""
    assert isinstance(detect_memory(0), GpuMemory)
    for value in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert isinstance(detect_memory(0), HostMemory)
