"""How quickly do models give a GPU to each other? One command, no hub, no network.

    python bench/gpu_swap.py [--part hook router driver] [--tiny] [--out FILE]

`hook` measures the worker hook by itself: the rate of pinned copies, and stage, sleep and wake of 1
to 16 GB. `router` measures three models that do not fit on the card together, through the router:
asleep and restarted, with a card that is full and a worker that is killed. `driver` measures how
the driver suspends a process, asleep or not. Each part runs in a
process of its own with a time limit, and prints one JSON row per figure as soon as it has it. The
rows are appended to --out (bench/results/gpu_swap.jsonl). `--tiny` runs the same code with tiny
weights, also on a processor: the rehearsal.
"""

from __future__ import annotations

import argparse
import importlib
import secrets
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # else bench/router.py would be found in place of the router

from bench.gpu_rows import reporter, run_parts  # noqa: E402
from router.models.worker_hook.callme_descendants import find, kill_all  # noqa: E402

OUT = ROOT / "bench" / "results" / "gpu_swap.jsonl"
MARK_NAME = "GPU_SWAP_RUN"  # in the environment of all that this starts
# Name of a part: its module, and the most seconds that it may take.
PARTS = {
    "hook": ("bench.gpu_swap_hook", 130.0),
    "router": ("bench.gpu_swap_router", 180.0),
    "driver": ("bench.gpu_swap_driver", 120.0),
}
TINY_S = 560.0  # of a part, on a busy processor


def main() -> None:
    """Run the parts, one after the other, and end what they have left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="*", default=[], choices=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="tiny weights, without a GPU too")
    parser.add_argument("--out", type=Path, help="append to this file")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out or (None if options.tiny else OUT)
    if options.here:
        run_here(options.part[0], out, is_tiny=options.tiny)
        return
    parts = {
        part: TINY_S if options.tiny else PARTS[part][1] for part in options.part or list(PARTS)
    }
    token = secrets.token_hex(8)
    mark = f"{MARK_NAME}={token}"
    try:
        run_parts(__file__, parts, out, is_tiny=options.tiny, env={MARK_NAME: token})
    finally:
        if left := find(mark):
            print(f"{len(left)} processes were left and are ended", file=sys.stderr)
            kill_all(mark)


def run_here(part: str, out: Path | None, *, is_tiny: bool) -> None:
    """Run one part in this process. At its time limit it is ended with what it has made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("It takes too long"))
    report = reporter("gpu_swap", part, out, is_tiny=is_tiny)
    if not is_tiny:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            sys.exit("There is no GPU. --tiny runs without one")
    began = time.perf_counter()
    importlib.import_module(PARTS[part][0]).run(report, out, is_tiny=is_tiny)
    report(measure="part_s", value=time.perf_counter() - began)


if __name__ == "__main__":
    main()
