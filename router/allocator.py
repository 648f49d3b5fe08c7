"""How the C library's allocator is to treat a server's memory."""

from __future__ import annotations

import ctypes

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP_FREE_BYTES = 16 << 20
LARGEST_IN_HEAP_BYTES = 4 << 20


def tune_allocator() -> None:
    """Keep some freed memory for the next request, and have one heap. To be called before the
    first thread starts; without glibc it does nothing.

    By default glibc returns what a read of a socket has freed and takes it anew for the next: page
    faults were a fifth of an upload's time. And each thread gets a heap of its own, of which the
    parts that are free can serve no other: memory that seems to grow for hours.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_FREE_BYTES)
    mallopt(M_ARENA_MAX, 1)
