"""What the scheduler knows of one model's sleep: what its process can do, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass

# The last three observations have half of the weight in an estimate (0.8 ** 3 = 0.51).
SMOOTHING = 0.2
# Assumed of a wake before the first was measured: half of what a PCIe 3.0 link with 16 lanes
# carries.
WAKE_BYTES_PER_S = 6 << 30
# Assumed of the driver before it was measured: what it does on an H200
# (docs/gpu-sharing/figures.md).
SUSPEND_BYTES_PER_S = 1 << 30
RESUME_BYTES_PER_S = 3 << 30
# A process that refuses so often in a row, because it is at work, is stopped instead.
MOST_REFUSALS = 3


@dataclass(slots=True, eq=False, kw_only=True)
class SleepRecord:
    """The part of `router.scheduling.model.Model` that is about sleep.

    There are two levels: the worker hook puts the process to sleep (`can_sleep`), and the driver
    suspends it (`can_suspend`), asleep or not. A level that fails is not tried again on this
    process.
    """

    can_sleep: bool = False
    sleep_refusal: str = ""  # why its process did not sleep when it was last asked
    refusals: int = 0  # in a row
    staged: bool = False
    host_bytes: int = 0  # main memory that the copies of its process take
    host_limit_bytes: int | None = None  # what they may take while a copy is under way
    stage_after: float = 0.0
    residue_bytes: int | None = None  # what the hook's sleep leaves, by the last measurement
    freed_bytes: int | None = None  # what a sleep frees, by the last copy
    wake_s: float | None = None
    sleep_s: float | None = None
    can_suspend: bool = False
    suspend_refusal: str = ""  # why the driver cannot suspend it
    to_suspend: bool = False  # the driver is to suspend it, in the sleep that is under way
    suspended: bool = False  # it holds no memory of the card
    suspended_bytes: int = 0  # main memory to which the driver has moved the rest
    suspend_s: float | None = None
    resume_s: float | None = None  # all of a wake from there

    def forget_process(self) -> None:
        """Forget what was known of a process that is gone. Its residue is remembered: the next
        process will leave about as much."""
        self.can_sleep = self.staged = self.can_suspend = False
        self.host_bytes = self.refusals = 0
        self.host_limit_bytes = None
        self._leave_driver()

    def _leave_driver(self) -> None:
        self.to_suspend = self.suspended = False
        self.suspended_bytes = 0

    @property
    def held_host_bytes(self) -> int:
        """Main memory that counts as taken for its sleep: what it takes now, or the limit of the
        copy that is under way."""
        return max(self.host_bytes + self.suspended_bytes, self.host_limit_bytes or 0)

    def note_copies(self, host_bytes: int, freed_bytes: int) -> None:
        """Remember what its copies take and what a sleep frees."""
        self.staged = True
        self.host_bytes, self.freed_bytes = host_bytes, freed_bytes
        self.refusals, self.sleep_refusal = 0, ""

    def note_sleep(self, residue_bytes: int | None, seconds: float) -> None:
        """Remember what it holds asleep, and update the average time to fall asleep."""
        self.residue_bytes = residue_bytes
        self.sleep_s = smooth(self.sleep_s, seconds)

    def note_suspension(self, size: int, seconds: float) -> None:
        """Remember that the driver has moved `size` bytes away, and how long that took."""
        self.to_suspend, self.suspended, self.suspended_bytes = False, True, size
        self.suspend_s = smooth(self.suspend_s, seconds)
        if self.can_sleep:
            self.residue_bytes = size

    def note_no_suspension(self, reason: str) -> None:
        """The driver has not suspended it and is not asked again."""
        self.to_suspend = self.can_suspend = False
        self.suspend_refusal = reason

    def note_wake(self, seconds: float) -> None:
        """Update the average time of a wake: from a suspension, or from a sleep."""
        if self.suspended:
            self.resume_s = smooth(self.resume_s, seconds)
        else:
            self.wake_s = smooth(self.wake_s, seconds)
        self._leave_driver()

    def note_refusal(self, reason: str, stage_after: float, *, again: bool) -> None:
        """Remember that its process would not sleep, or not let its memory be copied."""
        self.sleep_refusal = reason
        self.refusals += 1
        self.stage_after = stage_after
        self.can_sleep = self.can_sleep and again and self.refusals < MOST_REFUSALS

    @property
    def expected_wake_s(self) -> float | None:
        """Seconds that a wake takes after the hook's sleep: measured, or by the bytes to copy; None
        if neither is known."""
        if self.wake_s is not None or not self.host_bytes:
            return self.wake_s
        return self.host_bytes / WAKE_BYTES_PER_S

    def expected_resume_s(self, size: int) -> float:
        """Seconds that a wake takes after the driver has suspended `size` bytes."""
        if self.resume_s is not None:
            return self.resume_s
        return (self.expected_wake_s or 0.0) + size / RESUME_BYTES_PER_S

    def suspension_s(self, size: int) -> float:
        """Seconds that it takes to suspend `size` bytes and to wake from there."""
        down_s = size / SUSPEND_BYTES_PER_S if self.suspend_s is None else self.suspend_s
        return down_s + self.expected_resume_s(size)


def smooth(old: float | None, new: float) -> float:
    """The average of what was seen, in which the latest counts most."""
    return new if old is None else old + SMOOTHING * (new - old)
