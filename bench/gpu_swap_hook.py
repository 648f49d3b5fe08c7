"""The worker hook by itself: what stage, sleep and wake take on this card, and what stays on it."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch

from bench import gpu_swap_out_of_memory
from bench.gpu_rows import Report
from bench.gpu_swap_model import Model, Net, bytes_of_layer, randomize
from router.models.worker_hook.callme_sleep import Refused, device
from router.models.worker_hook.callme_sleep.arena import Arena
from router.models.worker_hook.callme_sleep.sleeper import EXIT_CODE, Sleeper

GB = 10**9
SIZES_GB, TINY_SIZES_GB = (1, 4, 8, 16), (1, 16)
TINY_SHARE = 400  # tiny sizes are this many times smaller
CYCLES = 3
SEEDS = (1, 2, 3)
# After this many seconds no larger model is begun.
NO_MORE_S = 80.0
PARALLEL = 8  # threads that touch memory before it is pinned


class Box:
    """The card, or main memory without one."""

    def __init__(self, *, is_tiny: bool) -> None:
        self.has_card = torch.cuda.is_available()
        self.kind = "cuda" if self.has_card else "cpu"
        self.share = TINY_SHARE if is_tiny else 1
        self.width = 512 if is_tiny else 4096
        self.began = time.perf_counter()
        self.used_before = self.used()
        if self.has_card:
            torch.empty(1, device="cuda")
        self.context_s = time.perf_counter() - self.began

    def hook(self) -> device.Device:
        """Return the hook's own device."""
        return device.device_of(self.kind, torch)

    def bytes_of(self, gb: float) -> int:
        """Return the size that stands for this many GB."""
        return int(gb * GB / self.share)

    def model(self, gb: float) -> Model:
        """Return a model of this size."""
        net = Net(max(1, self.bytes_of(gb) // bytes_of_layer(self.width)), self.width, self.kind)
        randomize(net, seed=int(gb))
        return Model(net)

    def synchronize(self) -> None:
        """Wait for the card."""
        if self.has_card:
            torch.cuda.synchronize()

    def seconds(self, do: Callable[[], object]) -> float:
        """Return how long it takes, with all that the card has to do."""
        self.synchronize()
        began = time.perf_counter()
        do()
        self.synchronize()
        return time.perf_counter() - began

    def empty_cache(self) -> None:
        """Give back all that is not used."""
        gc.collect()
        if self.has_card:
            torch.cuda.empty_cache()

    def used(self, pid: int | None = None) -> int | None:
        """Return the bytes in use on the card, by the driver's count: of all programs, or of one
        process; None where it does not tell."""
        if not self.has_card:
            return None
        import pynvml  # noqa: PLC0415 - not without a card

        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByIndex(0)
        if pid is None:
            return int(pynvml.nvmlDeviceGetMemoryInfo(card).used)
        by_pid = {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(card)}
        found = by_pid.get(pid)
        return None if found is None else int(found)

    def left(self) -> dict[str, int | None]:
        """Return what this process holds on the card, by two ways of counting."""
        now = self.used()
        since = None if now is None or self.used_before is None else now - self.used_before
        return {"process_bytes": self.used(os.getpid()), "card_bytes_since_start": since}


def run(report: Report, out: Path | None, *, is_tiny: bool) -> None:
    """All questions, the ones that matter most first."""
    if is_tiny:
        torch.set_num_threads(1)
    box = Box(is_tiny=is_tiny)
    machine(report, box)
    ceiling = copy_rates(report, box)
    for gb in TINY_SIZES_GB if is_tiny else SIZES_GB:
        if time.perf_counter() - box.began > NO_MORE_S:
            report(measure="cycles", gb=gb, skipped="out of time")
            continue
        with guarded(report, "cycles", gb=gb):
            cycles(report, box, gb, ceiling)
        box.empty_cache()
    with guarded(report, "pin"):
        pin(report, box)
    with guarded(report, "wake out of memory"):
        wake_out_of_memory(report, box, is_tiny=is_tiny)
    with guarded(report, "refusals"):
        refusals(report, box)


@contextlib.contextmanager
def guarded(report: Report, measure: str, **fields: Any) -> Iterator[None]:
    """A row in place of the end of the part."""
    try:
        yield
    except Exception as error:
        report(measure=measure, **fields, failed=f"{type(error).__name__}: {error}"[:600])


def machine(report: Report, box: Box) -> None:
    """The card, its driver, its link, and the main memory."""
    row: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_available_bytes": psutil.virtual_memory().available,
        "context_s": box.context_s,
        **box.left(),
    }
    if box.has_card:
        with guarded(report, "machine"):
            import pynvml  # noqa: PLC0415 - not without a card

            card = pynvml.nvmlDeviceGetHandleByIndex(0)
            row["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
            row["link_generation"] = pynvml.nvmlDeviceGetMaxPcieLinkGeneration(card)
            row["link_width"] = pynvml.nvmlDeviceGetMaxPcieLinkWidth(card)
            row["card_bytes"] = int(pynvml.nvmlDeviceGetMemoryInfo(card).total)
            row["pids_are_seen"] = box.used(os.getpid()) is not None
    for name in ("nvidia-ml-py", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            row[name] = importlib.metadata.version(name)
    report(measure="machine", **row)


def copy_rates(report: Report, box: Box) -> tuple[float, float]:
    """Measure how fast pinned memory is copied, and return the best: to the card, from the card,
    in bytes per second."""
    hook = box.hook()
    size = box.bytes_of(2)
    arena = Arena(hook)
    (block,) = arena.take([size])
    block.bytes.fill_(7)
    there = torch.empty(size, dtype=torch.uint8, device=box.kind)
    there.fill_(1)
    ways: dict[str, Callable[[Any, Any], object]] = {
        "one call": lambda to, source: to.copy_(source, non_blocking=True),
        "the hook": lambda to, source: hook.copy([(to, source)]),
    }
    best = {"up": 0.0, "down": 0.0}
    for way, copy in ways.items():
        for direction, to, source in (("up", there, block.bytes), ("down", block.bytes, there)):
            times = [box.seconds(lambda c=copy, t=to, s=source: c(t, s)) for _ in range(4)]
            rate = size / min(times)
            best[direction] = max(best[direction], rate)
            report(
                measure="copy_rate", way=way, direction=direction, bytes=size, gb_per_s=rate / GB
            )
    arena.give(block)
    return best["up"], best["down"]


def cycles(report: Report, box: Box, gb: float, ceiling: tuple[float, float]) -> None:
    """Stage a model, and put it to sleep several times, with predictions in between."""
    model = box.model(gb)
    # A package's own thread, as coglet's is: it has a cuBLAS workspace of its own.
    with ThreadPoolExecutor(1) as theirs:

        def answers() -> list[str]:
            return [theirs.submit(model.answer, seed).result() for seed in SEEDS]

        before, content = answers(), theirs.submit(model.all_bytes).result()
        box.empty_cache()
        awake = box.left()
        pins: list[float] = []
        sleeper = Sleeper(with_pin_times(box.hook(), pins))
        stage = sleeper.stage()
        report(
            measure="stage", gb=gb, bytes=stage["device_bytes"], storages=stage["storages"],
            seconds=stage["seconds"], host_bytes=stage["host_bytes"], pin_s=sum(pins),
            pin_s_per_gb=sum(pins) * GB / stage["host_bytes"], parts_s=stage["parts_s"],
        )  # fmt: skip
        at_once = sleeper.sleep()
        first = sleeper.wake()
        sleeps, wakes, left, same = [], [], [], []
        for _ in range(CYCLES):
            answers()
            sleeps.append(sleeper.sleep())
            left.append(box.left())
            wakes.append(sleeper.wake())
            same.append(answers() == before)
        same.append(theirs.submit(model.all_bytes).result() == content)
        wake, best = middle(wakes), min(w["seconds"] for w in wakes)
        copied = wakes[0]["copied_bytes"]
        report(
            measure="cycles", gb=gb, bytes=copied, storages=wakes[0]["storages"],
            sleep_s=middle(sleeps)["seconds"], sleep_parts_s=middle(sleeps)["parts_s"],
            sleep_copied_bytes=sleeps[-1]["copied_bytes"],
            sleep_at_once_s=at_once["seconds"], sleep_at_once_parts_s=at_once["parts_s"],
            wake_s=wake["seconds"], wake_best_s=best, first_wake_s=first["seconds"],
            wake_parts_s=wake["parts_s"], wake_gb_per_s=copied / GB / wake["seconds"],
            ceiling_gb_per_s=ceiling[0] / GB, wake_of_ceiling=wake["seconds"] * ceiling[0] / copied,
            awake=awake, asleep=left[-1], allocated_asleep_bytes=sleeps[-1].get("allocated_bytes"),
            reserved_asleep_bytes=sleeps[-1].get("reserved_bytes"), identical=all(same),
        )  # fmt: skip
        with torch.no_grad():  # as a LoRA is merged: no version counter sees it
            model.net.layers[0].linear.weight.data += 0.5
            model.net.layers[0].norm.weight.data += 0.5
        changed = answers()
        slept = sleeper.sleep()
        sleeper.wake()
        report(
            measure="written_through_data", gb=gb, noticed=slept["changed"] == 1,
            identical=answers() == changed != before, copied_bytes=slept["copied_bytes"],
        )  # fmt: skip
    for slot in sleeper._slots.values():
        if slot.copy is not None:
            sleeper._arena.give(slot.copy)
    if sleeper._block is not None:
        sleeper._arena.give(sleeper._block)


def middle(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the answer with the median time."""
    return sorted(answers, key=lambda answer: answer["seconds"])[len(answers) // 2]


def with_pin_times(hook: device.Device, seconds: list[float]) -> device.Device:
    """Have each call of `pin` timed."""
    pin_ = hook.pin

    def timed(address: int, size: int) -> None:
        began = time.perf_counter()
        pin_(address, size)
        seconds.append(time.perf_counter() - began)

    hook.pin = timed  # type: ignore[method-assign]
    return hook


def pin(report: Report, box: Box) -> None:
    """Seconds to pin a GB, as the hook does it, and when several threads have touched it before."""
    size = box.bytes_of(2)
    for touched in (False, True):
        hook = box.hook()
        memory = torch.frombuffer(hook.map(size), dtype=torch.uint8)
        began = time.perf_counter()
        if touched:
            parts = memory.chunk(PARALLEL)
            with ThreadPoolExecutor(PARALLEL) as threads:
                list(threads.map(lambda part: part[::4096].fill_(0), parts))
        touch_s = time.perf_counter() - began
        hook.pin(memory.data_ptr(), size)
        seconds = time.perf_counter() - began
        hook.unpin(memory.data_ptr())
        report(
            measure="pin", touched_before=touched, bytes=size, seconds=seconds, touch_s=touch_s,
            s_per_gb=seconds * GB / size, unpin_s=time.perf_counter() - began - seconds,
        )  # fmt: skip


def wake_out_of_memory(report: Report, box: Box, *, is_tiny: bool) -> None:
    """Another process sleeps; this one takes the memory; then that one must end in its wake."""
    size = box.bytes_of(4)
    argv = [sys.executable, gpu_swap_out_of_memory.__file__, box.kind, str(size), str(box.width)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        asleep = child.stdout.readline().strip()
        held = []
        if box.has_card:
            free = torch.cuda.mem_get_info()[0]
            held.append(torch.empty(free - size // 2, dtype=torch.uint8, device="cuda"))
        child.stdin.write("wake\n")
        child.stdin.flush()
        said = child.stdout.readline().strip()
        code = child.wait(60)
        del held
        ended = code == EXIT_CODE and not said
        report(measure="wake_out_of_memory", asleep=asleep, exit_code=code, ended=ended)
    finally:
        child.kill()
        child.wait()
        box.empty_cache()


def refusals(report: Report, box: Box) -> None:
    """What needs fixed addresses is refused, and nothing is touched."""
    if not box.has_card:
        report(measure="refused", skipped="there is no card")
        return
    model = box.model(1)
    before = model.answer(1)
    x = torch.ones(64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 2
    why = ""
    try:
        Sleeper(box.hook()).sleep()
    except Refused as error:
        why = str(error)
    graph.replay()
    report(
        measure="refused", what="a CUDA graph", why=why, refused=bool(why),
        identical=model.answer(1) == before and bool((y == 2).all()),
    )  # fmt: skip
