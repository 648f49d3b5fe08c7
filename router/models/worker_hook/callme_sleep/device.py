"""The memory that sleeps: a GPU's, or the processor's for tests. Only this module calls CUDA.

Standard library at import. torch is imported by the package, never by this hook: a model without
torch has nothing that could sleep.
"""

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# A copy is cut into pieces of this size, so that several streams share one large storage.
CHUNK_BYTES = 64 << 20
STREAMS = 2
# Memory for a wake is asked for in pieces of this size. One call per storage would take longer;
# one piece for all would stay on the card when a single other tensor is put into it.
GROW_BYTES = 1 << 30
SMALL_SEGMENT_BYTES = 1 << 20  # torch's allocator has separate segments for these
# They keep addresses of torch's memory where torch does not see it.
KEEP_ADDRESSES = ("cupy", "pycuda", "tensorrt", "torch_tensorrt")
HOST_REGISTER_PORTABLE = 1
TOUCHING_THREADS = 8
ORDINARY_POOL = (0, 0)


class Device:
    """What `sleeper` asks of a memory. `torch` is the package's own module."""

    kind = ""

    def __init__(self, torch: Any) -> None:
        self.torch = torch

    def why_unfit(self) -> str:
        """Return what makes it unsafe to free storages here; "" when nothing does."""
        return ""

    def in_use_bytes(self) -> int | None:
        """Return what torch's allocator has given out; None when that is not counted."""
        return None

    def map(self, size: int) -> mmap.mmap:
        """Return `size` bytes of host memory."""
        return mmap.mmap(-1, size)

    def touch(self, memory: Any) -> None:
        """Have the kernel give all pages of host memory, a flat tensor of bytes, before `pin`."""

    def pin(self, address: int, size: int) -> None:
        """Make host memory quick to copy from. Raises RuntimeError when that fails."""

    def unpin(self, address: int) -> None:
        """Undo `pin`, before the memory is unmapped."""

    def copy(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Begin to copy from the second tensor of each pair to the first. Both are flat bytes."""
        for to, source in pairs:
            to.copy_(source)

    def synchronize(self) -> None:
        """Return when all copies and all of the package's work on the device are done."""

    def prepare(self, sizes: Iterable[tuple[Any, int]]) -> None:
        """Get memory for storages of these sizes, each with its device, in a few calls."""

    def release(self) -> None:
        """Give back what freed storages have left in caches."""

    def usage(self) -> dict[str, int]:
        """Return what this process holds on the device, in bytes, as far as that is known."""
        return {}


class Processor(Device):
    """Main memory. The copies are in memory that counts as shared, and so not as the model's."""

    kind = "cpu"

    def release(self) -> None:
        """Give freed memory back to the kernel, which the C library may not do by itself."""
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


class Cuda(Device):
    """All GPUs that this process uses."""

    kind = "cuda"

    def __init__(self, torch: Any) -> None:
        super().__init__(torch)
        self._streams: dict[int, list[Any]] = {}

    def why_unfit(self) -> str:
        """Return what keeps addresses that a wake would change; "" when nothing does."""
        cuda = self.torch.cuda
        if not cuda.is_initialized():
            return "CUDA is not used"
        if (backend := cuda.memory.get_allocator_backend()) != "native":
            return f"torch's allocator is {backend}"
        if other := next((name for name in KEEP_ADDRESSES if name in sys.modules), None):
            return f"{other} may keep addresses on the card"
        if any(
            tuple(s.get("segment_pool_id", ORDINARY_POOL)) != ORDINARY_POOL for s in self._all()
        ):
            return "CUDA graphs or memory pools need fixed addresses"
        return ""

    def _all(self) -> Any:
        snapshot = self.torch.cuda.memory_snapshot
        try:
            return snapshot(include_traces=False)
        except TypeError:  # an older torch
            return snapshot()

    def in_use_bytes(self) -> int | None:
        """Return the allocator's own counter, over all GPUs."""
        cuda = self.torch.cuda
        in_use: int = sum(cuda.memory_allocated(i) for i in range(cuda.device_count()))
        return in_use

    def map(self, size: int) -> mmap.mmap:
        """Return private memory, in large pages where the kernel offers them."""
        piece = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):
                piece.madvise(mmap.MADV_HUGEPAGE)
        return piece

    def touch(self, memory: Any) -> None:
        """Write to each page, in several threads.

        The registration would have the kernel clear the pages in one thread: 0.14 s for a GB on a
        machine with an H200, against 0.045 s for both this way.
        """
        parts = memory.chunk(min(TOUCHING_THREADS, os.cpu_count() or 1))
        with ThreadPoolExecutor(len(parts)) as threads:
            list(threads.map(lambda part: part[:: mmap.PAGESIZE].fill_(0), parts))

    def pin(self, address: int, size: int) -> None:
        """Register the memory with CUDA. torch's own pinned memory is rounded to powers of two."""
        cudart = self.torch.cuda.cudart()
        if code := int(cudart.cudaHostRegister(address, size, HOST_REGISTER_PORTABLE)):
            raise RuntimeError(f"cudaHostRegister: error {code}")

    def unpin(self, address: int) -> None:
        """Unregister it. Otherwise a later registration of the same address fails."""
        self.torch.cuda.cudart().cudaHostUnregister(address)

    def copy(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        """Begin the copies, in chunks that take turns on the streams.

        torch's streams do not wait for each other. What is copied may have just been computed or
        allocated on the current stream, and what is computed next may need the copies.
        """
        turn = 0
        begun: dict[Any, list[Any]] = {}
        for to, source in pairs:
            device = (to if to.device.type == "cuda" else source).device
            streams = self._streams_of(device)
            if device not in begun:
                begun[device] = streams
                for stream in streams:
                    stream.wait_stream(self.torch.cuda.current_stream(device))
            for at in range(0, to.numel(), CHUNK_BYTES):
                part = slice(at, at + CHUNK_BYTES)
                with self.torch.cuda.stream(streams[turn % STREAMS]):
                    to[part].copy_(source[part], non_blocking=True)
                turn += 1
        for device, streams in begun.items():
            for stream in streams:
                self.torch.cuda.current_stream(device).wait_stream(stream)

    def _streams_of(self, device: Any) -> list[Any]:
        cuda = self.torch.cuda
        if device.index not in self._streams:
            self._streams[device.index] = [cuda.Stream(device) for _ in range(STREAMS)]
        return self._streams[device.index]

    def synchronize(self) -> None:
        """Wait for every GPU in use."""
        for index in self._used():
            self.torch.cuda.synchronize(index)

    def prepare(self, sizes: Iterable[tuple[Any, int]]) -> None:
        """Get large segments. They are freed into torch's cache, which splits them up."""
        needed: dict[Any, int] = {}
        for device, size in sizes:
            if size > SMALL_SEGMENT_BYTES:
                needed[device] = needed.get(device, 0) + size
        torch, held = self.torch, []
        # Where memory is short, each storage asks for its own.
        with contextlib.suppress(torch.OutOfMemoryError):
            for device, total in needed.items():
                for at in range(0, total, GROW_BYTES):
                    size = min(GROW_BYTES, total - at)
                    held.append(torch.empty(size, dtype=torch.uint8, device=device))

    def release(self) -> None:
        """Free cuBLAS' workspaces, as far as torch offers that, and torch's cache."""
        with contextlib.suppress(AttributeError):
            self.torch._C._cuda_clearCublasWorkspaces()
        self.torch.cuda.empty_cache()

    def usage(self) -> dict[str, int]:
        """Return what torch's allocator has: in use, and in use or in its cache."""
        cuda = self.torch.cuda
        if not cuda.is_initialized():
            return {}
        used = self._used()
        return {
            "allocated_bytes": sum(cuda.memory_allocated(i) for i in used),
            "reserved_bytes": sum(cuda.memory_reserved(i) for i in used),
        }

    def _used(self) -> list[int]:
        cuda = self.torch.cuda
        return [i for i in range(cuda.device_count()) if cuda.memory_reserved(i)] or [
            cuda.current_device()
        ]


def device_of(kind: str, torch: Any) -> Device:
    """Return the device of this kind: `cuda` or `cpu`. Raises ValueError for another one."""
    for found in (Cuda, Processor):
        if found.kind == kind:
            return found(torch)
    raise ValueError(f"Cannot sleep on '{kind}': it must be cuda or cpu")


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no other Python thread run, unless this one calls something that lets go of the GIL."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
