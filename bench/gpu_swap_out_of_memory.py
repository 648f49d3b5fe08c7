"""A process of `bench/gpu_swap_hook.py` that sleeps and then cannot wake: its memory is taken.

    python bench/gpu_swap_out_of_memory.py cuda|cpu BYTES WIDTH

It says when it is asleep, and wakes at the next line. It must not live to say more.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch  # noqa: E402

from bench.gpu_swap_model import Model, Net, bytes_of_layer, randomize  # noqa: E402
from router.models.worker_hook.callme_sleep.device import device_of  # noqa: E402
from router.models.worker_hook.callme_sleep.sleeper import Sleeper  # noqa: E402

MMAP_THRESHOLD = -3  # malloc.h


def main() -> None:
    """Sleep, say so, wait for a word, wake."""
    kind, size, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "cpu":
        # By default the C library keeps freed memory for later, by sizes that it adapts. Then a
        # wake would find it there.
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 64 << 10)
    net = Net(max(1, size // bytes_of_layer(width)), width, kind)
    randomize(net, 0)
    model = Model(net)
    model.answer(1)
    sleeper = Sleeper(device_of(kind, torch))
    sleeper.stage()
    print(f"asleep, {sleeper.sleep()['freed_bytes']} bytes are free", flush=True)
    sys.stdin.readline()
    if kind == "cpu":  # nobody can take all main memory, so this process gets no more
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        held = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held, held))
    sleeper.wake()
    print("awake:", model.answer(1), flush=True)


if __name__ == "__main__":
    main()
