"""Another program that fills the card, for `bench/gpu_swap_router.py`.

It says when it has begun; then it reads how many bytes to leave free, takes the rest and says how
much that is. From then on it takes whatever gets free. It ends with its input. Without a card it
takes nothing.
"""

from __future__ import annotations

import select
import sys

import torch

LARGEST = 8 << 30  # bytes that are taken at once
LEAST = 64 << 20  # less is not worth a call
PAUSE_S = 0.001

held: list[torch.Tensor] = []


def take(leave: int) -> None:
    """Take all that is free, but `leave` bytes."""
    while torch.cuda.is_available() and (free := torch.cuda.mem_get_info()[0] - leave) > LEAST:
        try:
            held.append(torch.empty(min(free, LARGEST), dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:  # somebody else was quicker
            return


def main() -> None:
    """Take, say how much, go on."""
    if torch.cuda.is_available():
        torch.empty(1, device="cuda")
    print("ready", flush=True)
    leave = int(sys.stdin.readline())
    take(leave)
    print(sum(part.numel() for part in held), flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        take(leave)


if __name__ == "__main__":
    main()
