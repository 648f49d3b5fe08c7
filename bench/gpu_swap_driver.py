"""The driver's level by the router's own code: what it takes to suspend a process and to resume it,
asleep by the hook before or not, and what is left on the card."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bench.gpu_rows import ROOT, Report
from bench.gpu_swap_model import bytes_of_layer
from router.models.driver_client import DriverClient
from router.models.memory import GpuMemory
from router.models.process_interface import Slept, Woken
from router.models.sleep_client import SleepClient
from router.models.sleep_levels import TwoLevelSleeper
from router.models.worker_hook.callme_sleep.control import DEVICE_NAME, PATH_NAME

GB = 10**9
SIZES_GB, CYCLES, WIDTH = (1, 8), 3, 4096
ROOM = 64 * GB
# A model with the worker hook. It reads what to answer, and is at rest while it waits for that.
CHILD = """
import os, sys
from bench.gpu_swap_model import Model, Net, randomize
from router.models.worker_hook.callme_sleep import control
net = Net(int(os.environ["LAYERS"]), int(os.environ["WIDTH"]), "cuda")
randomize(net, 0)
model = Model(net)
control.start()
print("ready", flush=True)
for line in sys.stdin:
    print(model.answer(int(line)), flush=True)
"""


def run(report: Report, out: Path | None, *, is_tiny: bool) -> None:
    """All sizes, by both levels and by the driver alone. Without a card, only why not."""
    asyncio.run(_run(report, is_tiny=is_tiny))


async def _run(report: Report, *, is_tiny: bool) -> None:
    has_card = torch.cuda.is_available()
    memory = GpuMemory(0) if has_card else None
    held_by = memory.held_by if memory else lambda pids: {}
    client = DriverClient(held_by, memory.free_bytes if memory else lambda: 0)
    why = await client.why_unfit()
    report(measure="driver", unfit=why)
    if memory is not None and not why:
        for gb in SIZES_GB:
            for hook in (True, False):
                size = int(gb * GB / (100 if is_tiny else 1))
                await cycles(report, client, memory, size, hook=hook)
    await client.close()


@contextlib.contextmanager
def started(size: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a model of that size, and its hook's socket."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "control.sock"
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, sys.path))),
            "LAYERS": str(max(1, size // bytes_of_layer(WIDTH))),
            "WIDTH": str(WIDTH),
            PATH_NAME: str(socket),
            DEVICE_NAME: "cuda",
        }
        argv = [sys.executable, "-c", CHILD]
        child = subprocess.Popen(argv, env=env, stdin=-1, stdout=-1, text=True)
        try:
            yield child, socket
        finally:
            child.kill()
            child.wait()


async def cycles(
    report: Report, client: DriverClient, memory: GpuMemory, size: int, *, hook: bool
) -> None:
    """Suspend a model of that size and resume it, a few times."""
    with started(size) as (child, socket):
        await _cycles(report, client, memory, (child, socket), hook=hook)


async def _cycles(
    report: Report,
    client: DriverClient,
    memory: GpuMemory,
    model: tuple[subprocess.Popen[str], Path],
    *,
    hook: bool,
) -> None:
    child, socket = model
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout
    assert stdout.readline() == "ready\n"

    def answer() -> str:
        stdin.write("1\n")
        stdin.flush()
        return stdout.readline()

    command_lock, pids = asyncio.Lock(), [child.pid]
    hook_client = SleepClient(socket, lambda: pids, memory.measure, command_lock)
    sleeper = TwoLevelSleeper(hook_client, client, lambda: pids, command_lock)
    before, slept, woken = answer(), list[Slept](), list[Woken]()
    held, left, same = memory.measure(pids), list[int](), list[bool]()
    if hook:
        await sleeper.stage(ROOM)
    for _ in range(CYCLES):
        slept.append(await sleeper.sleep(ROOM, hook=hook, driver=True))
        left.append(memory.measure(pids))
        if not slept[-1].suspended_bytes:
            report(measure="suspend", hook=hook, refused=slept[-1].suspend_refusal)
            return
        woken.append(await sleeper.wake())
        same.append(answer() == before)

    def middle(values: Callable[[Any], float], of: list[Any]) -> float:
        return statistics.median(values(each) for each in of)

    report(
        measure="suspend",
        hook=hook,
        held_bytes=held,
        moved_bytes=slept[-1].suspended_bytes,
        left_bytes=max(left),
        suspend_s=middle(lambda s: s.suspend_s, slept),
        sleep_s=middle(lambda s: s.copied.seconds, slept),
        resume_s=middle(lambda w: w.resume_s, woken),
        wake_s=middle(lambda w: w.seconds, woken),
        identical=all(same),
    )
