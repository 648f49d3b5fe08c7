"""Puts a process's storages to sleep in host memory, and wakes them.

Inference does not change weights. So they are copied once, in idle time (`stage`), and a sleep only
compares fingerprints, copies what has changed, and frees. A wake allocates and copies back.

Until the first storage is freed, everything can be refused with nothing touched. From then until
the end of a wake, any error ends the process: a process that has lost a part of its weights must
not answer.
"""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import Refused, storages
from .arena import Arena, Block
from .device import Device, uninterrupted
from .storages import SMALL_BYTES, Fingerprint, Slot, bytes_of, storage_of
from .threads import at_work

ALIGNMENT_BYTES = 16  # of each storage in the block of small ones
# New storages that take less together may be missed by a sleep. More than embeddings of a prompt
# take, less than anybody would miss on a card.
MISSED_BYTES = 16 << 20
EXIT_CODE = 70  # sysexits.h: an internal software error

Live = list[tuple[Slot, Any]]  # with its storage, which stays alive with the list
Answer = dict[str, Any]


def end_process(reason: str) -> NoReturn:
    """End this process at once, without a clean-up that could touch freed memory."""
    sys.__stderr__.write(f"callme: {reason}\n") if sys.__stderr__ else None
    os._exit(EXIT_CODE)


class Sleeper:
    """All storages of this process on one kind of device.

    `end` must not return. `busy` returns what the process works on.
    """

    def __init__(
        self,
        device: Device,
        *,
        end: Callable[[str], NoReturn] = end_process,
        busy: Callable[[], list[str]] = at_work,
    ) -> None:
        self._device = device
        self._torch = device.torch
        self._arena = Arena(device)
        self._slots: dict[int, Slot] = {}
        self._kept: dict[int, int] = {}
        self._besides: int | None = None  # bytes in use besides the slots, by the last scan
        self._block: Block | None = None  # the copies of all small storages
        self._in_block: list[tuple[Slot, int]] = []  # which, and where in the block
        self._block_print: Fingerprint | None = None  # of the part of it that is in use
        self._end = end
        self._busy = busy
        self._seconds: dict[str, float] = {}
        self._began = 0.0
        self.asleep = False

    # ---- what the router asks ---------------------------------------------------------------

    def stage(self, limit_bytes: int | None = None) -> Answer:
        """Copy the storages to host memory while the model is idle, so that a sleep is quick.

        Raises Refused.
        """
        if self.asleep:
            raise Refused("unfit", "it is asleep")
        self._start_clock()
        self._refuse()
        live = self._look()
        copied, changed = self._copy_out(live, limit_bytes)
        if self._busy():
            self._besides = None  # a prediction may have allocated during the scan: look again
        return self._answer(live, copied_bytes=copied, changed=changed)

    def sleep(self, limit_bytes: int | None = None) -> Answer:
        """Free the storages. Raises Refused with nothing touched."""
        if self.asleep:
            raise Refused("unfit", "it is asleep already")
        self._start_clock()
        self._refuse()
        self._device.synchronize()
        live = self._look()
        self._lap("scan")
        if not live:
            raise Refused("unfit", f"it has nothing on the device '{self._device.kind}'")
        copied, changed = self._copy_out(live, limit_bytes)
        if any(slot.fingerprint is None for slot, _ in live if slot.size >= SMALL_BYTES):
            raise Refused("busy", "its memory changed while it was copied")
        freed = _total(live)
        with uninterrupted():
            if work := self._busy():
                raise Refused("busy", ", ".join(work))
            try:
                for _, storage in live:
                    storage.resize_(0)
            except BaseException as error:
                self._end(f"a sleep failed half-way: {error!r}")
            self.asleep = True
        self._lap("free")
        try:
            self._device.release()
            self._lap("release")
            return self._answer(live, freed_bytes=freed, copied_bytes=copied, changed=changed)
        except BaseException as error:
            self._end(f"a sleep failed half-way: {error!r}")

    def wake(self) -> Answer:
        """Take the memory again and fill it. Any error ends the process."""
        if not self.asleep:
            raise Refused("unfit", "it is awake")
        self._start_clock()
        try:
            live = [(slot, s) for slot, s in self._live() if not s.nbytes()]
            with self._torch.no_grad():
                self._copy_in(live)
                self._check(live)
        except BaseException as error:
            self._end(f"a wake failed: {error!r}")
        self.asleep = False
        return self._answer(live, copied_bytes=_total(live))

    def memory(self) -> Answer:
        """Return what is awake, what has been copied and what could not be freed, in bytes."""
        return {
            "asleep": self.asleep,
            "storages": len(self._slots),
            "awake_bytes": sum(storage.nbytes() for _, storage in self._live()),
            "host_bytes": self._arena.size_bytes,
            "kept_bytes": sum(self._kept.values()),
            **self._device.usage(),
        }

    def busy(self) -> Answer:
        """Return what the process works on."""
        return {"busy": self._busy()}

    # ---- finding ----------------------------------------------------------------------------

    def _refuse(self) -> None:
        if why := self._device.why_unfit():
            raise Refused("unfit", why)
        if work := self._busy():
            raise Refused("busy", ", ".join(work))

    def _look(self) -> Live:
        """Bring the slots up to date and return those whose storage lives, the largest first.

        To look for new storages takes longer than all else of a sleep. What would be missed stays
        on the device and is used there as before. So it is done only when that may be much.
        """
        resized = {id(slot) for slot, s in self._live() if s.nbytes() != slot.size}
        self._forget(lambda key, slot: id(slot) in resized)
        live = self._live()
        in_use = self._device.in_use_bytes()
        besides = None if in_use is None else in_use - _total(live)
        if besides is None or self._besides is None or besides > self._besides + MISSED_BYTES:
            self._scan()
            live = self._live()
            self._besides = None if in_use is None else in_use - _total(live)
        else:
            self._besides = min(besides, self._besides)
        return sorted(live, key=lambda pair: -pair[0].size)

    def _scan(self) -> None:
        """Find all storages, and give those that are new a slot."""
        found, kept = storages.find(self._device)
        self._kept = {a: size for a, size in kept.items() if not self._arena.holds(a)}
        self._forget(lambda key, slot: key not in found or found[key].nbytes() != slot.size)
        for key, storage in found.items():
            if key not in self._slots:
                self._slots[key] = Slot(self._weak(storage), storage.nbytes())

    def _weak(self, storage: Any) -> Any:
        from torch.multiprocessing.reductions import StorageWeakRef  # noqa: PLC0415

        return StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def _live(self) -> Live:
        """Return the slots whose storage still exists. The copies of others are given up."""
        self._forget(lambda key, slot: slot.ref.expired())
        pairs = [(slot, storage_of(self._torch, slot)) for slot in self._slots.values()]
        return [(slot, storage) for slot, storage in pairs if storage is not None]

    def _forget(self, is_gone: Callable[[int, Slot], bool]) -> None:
        for key, slot in list(self._slots.items()):
            if is_gone(key, slot):
                del self._slots[key]
                if slot.copy is not None:
                    self._arena.give(slot.copy)

    # ---- copies -----------------------------------------------------------------------------

    def _copy_out(self, live: Live, limit_bytes: int | None) -> tuple[int, int]:
        """Make all copies agree with the storages. Return the bytes copied and the number of large
        storages that had changed since their last copy."""
        large = [(slot, s) for slot, s in live if slot.size >= SMALL_BYTES]
        small = [(slot, s) for slot, s in live if slot.size < SMALL_BYTES]
        with self._torch.no_grad():
            self._make_room(large, small, limit_bytes)
            self._lap("room")
            prints = storages.fingerprints(self._torch, [s for _, s in large])
            self._lap("fingerprint")
            stale = [
                (slot, s, new)
                for (slot, s), new in zip(large, prints, strict=True)
                if slot.fingerprint != new
            ]
            changed = sum(slot.fingerprint is not None for slot, _, _ in stale)
            for slot, _, _ in stale:
                slot.fingerprint = None  # until the copy is whole
            self._device.copy((_bytes(slot), bytes_of(self._torch, s)) for slot, s, _ in stale)
            copied = self._gather(small) + sum(slot.size for slot, _, _ in stale)
            self._device.synchronize()
            # A prediction may have written while this was copied. Then the copy is not used.
            after = storages.fingerprints(self._torch, [s for _, s, _ in stale])
            for (slot, _, before), now in zip(stale, after, strict=True):
                slot.fingerprint = now if now == before else None
        self._lap("copy")
        return copied, changed

    def _make_room(self, large: Live, small: Live, limit_bytes: int | None) -> None:
        """Get a block for each storage that has none. Raises Refused with no block taken."""
        new = [slot for slot, _ in large if slot.copy is None]
        together = sum(_aligned(slot.size) for slot, _ in small)
        if self._block is not None and self._block.bytes.numel() < together:
            self._arena.give(self._block)
            self._block, self._in_block = None, []
        needs_block = together > 0 and self._block is None
        sizes = [slot.size for slot in new] + ([together] if needs_block else [])
        blocks = self._arena.take(sizes, limit_bytes)
        if needs_block:
            self._block = blocks.pop()
        for slot, block in zip(new, blocks, strict=True):
            slot.copy, slot.fingerprint = block, None

    def _gather(self, small: Live) -> int:
        """Begin to copy all small storages to their block, as one. Return the bytes."""
        self._in_block, self._block_print = [], None
        if not small or self._block is None:
            return 0
        torch = self._torch
        on = small[0][1].device
        parts, at = [], 0
        for slot, storage in small:
            self._in_block.append((slot, at))
            parts.append(bytes_of(torch, storage).to(on))
            if gap := _aligned(slot.size) - slot.size:
                parts.append(torch.zeros(gap, dtype=torch.uint8, device=on))
            at += _aligned(slot.size)
        joined = torch.cat(parts)
        self._block_print = storages.fingerprint(torch, joined)
        self._device.copy([(self._block.bytes[:at], joined)])
        self._device.synchronize()  # the joined tensor must live until it has been copied
        return at

    def _copy_in(self, live: Live) -> None:
        """Allocate the storages and fill them."""
        large = [(slot, s) for slot, s in live if slot.size >= SMALL_BYTES]
        self._device.prepare((s.device, slot.size) for slot, s in large)
        self._lap("prepare")
        for slot, storage in sorted(live, key=lambda pair: -pair[0].size):
            storage.resize_(slot.size)
        self._lap("allocate")
        self._device.copy((bytes_of(self._torch, s), _bytes(slot)) for slot, s in large)
        awake = {id(slot): storage for slot, storage in live}
        self._scatter([(awake[id(slot)], at) for slot, at in self._in_block if id(slot) in awake])
        self._device.synchronize()
        self._lap("copy")

    def _scatter(self, places: list[tuple[Any, int]]) -> None:
        """Fill the small storages: one copy of their block to each device, then one kernel.

        Raises ValueError when the block is not what it was.
        """
        if self._block is None:
            return
        torch = self._torch
        used = sum(_aligned(slot.size) for slot, _ in self._in_block)
        by_device: dict[Any, list[tuple[Any, int]]] = {}
        for storage, at in places:
            by_device.setdefault(storage.device, []).append((storage, at))
        for device, here in by_device.items():
            block = self._block.bytes[:used].to(device, non_blocking=True)
            if storages.fingerprint(torch, block) != self._block_print:
                raise ValueError(f"{used} bytes of small storages came back changed")
            targets = [bytes_of(torch, storage) for storage, _ in here]
            sources = [block[at : at + storage.nbytes()] for storage, at in here]
            torch._foreach_copy_(targets, sources)

    def _check(self, live: Live) -> None:
        """Raises ValueError when a large storage is not what it was; `_scatter` does for others."""
        large = [(slot, s) for slot, s in live if slot.size >= SMALL_BYTES]
        prints = storages.fingerprints(self._torch, [s for _, s in large])
        for (slot, _), now in zip(large, prints, strict=True):
            if slot.fingerprint != now:
                raise ValueError(f"{slot.size} bytes came back changed")
        self._lap("check")

    # ---- times ------------------------------------------------------------------------------

    def _start_clock(self) -> None:
        self._seconds = {}
        self._began = self._lap_at = time.perf_counter()

    def _lap(self, part: str) -> None:
        now = time.perf_counter()
        self._seconds[part] = now - self._lap_at
        self._lap_at = now

    def _answer(self, live: Live, **more: int) -> Answer:
        return {
            **more,
            "storages": len(live),
            "device_bytes": _total(live),
            "host_bytes": self._arena.size_bytes,
            "kept_bytes": sum(self._kept.values()),
            "seconds": time.perf_counter() - self._began,
            "parts_s": {part: round(s, 6) for part, s in self._seconds.items()},
            **self._device.usage(),
        }


def _total(live: Live) -> int:
    return sum(slot.size for slot, _ in live)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _bytes(slot: Slot) -> Any:
    assert slot.copy is not None, "it has got a block"  # noqa: S101
    return slot.copy.bytes
