"""What a model prints, bounded where it is printed. Standard library only.

coglet 0.23.1 keeps every line that a prediction prints, in its worker, its server and its answer,
and takes several times as long to pass lines on as a loop takes to print them: 10 s of printing
took coglet alone 30 to 47 s and 1.4 GB. So here a burst passes, then a steady trickle; what is too
much for that waits in a ring of the last lines, and the first of those give way.

At the end of the run the ring is passed on whole. Nothing in Python says that a run ends, since
coglet calls it from Rust; but its frame is then let go, and with it what is attached to it.
"""

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

# In bytes: at once, and each second after that. Nobody reads more.
BURST_BYTES = 2 << 20
STEADY_BYTES = 64 << 10
# The router keeps the first 64 KiB: these pass in any case, however short the lines are.
FIRST_CHARS = 68 << 10
# The router keeps the last MiB; a gap must never be within that.
RING_CHARS = (1 << 20) + (1 << 16)
# What a line costs coglet and the router, beside its text.
LINE_COST = 200
# Of lines that are passed on together.
CHUNK_CHARS = 8 << 10
# Where threads and event loops of Python's own begin.
LIBRARY = str(Path(threading.__file__).parent)
GAP = "[callme left out %d lines, %d bytes]\n"


class _SlotLogWriter:
    """In place of sys.stdout or sys.stderr. coglet knows its own writers by this name, and would
    otherwise put one of its own in front of this."""

    def __init__(self, inner: Any, limit: "PrintLimit") -> None:
        self.inner = inner
        self.limit = limit
        self._part = ""  # of a line that has not ended

    def write(self, text: str) -> int:
        """As the real one does: whole lines are passed on."""
        if "\n" not in text and len(self._part) < CHUNK_CHARS:
            self._part += text
            return len(text)
        lines, end, self._part = (self._part + text).rpartition("\n")
        if not end:
            lines, self._part = self._part, ""
        self.limit.write(self, lines + end)
        return len(text)

    def flush(self) -> None:
        """What has no end yet too."""
        part, self._part = self._part, ""
        if part:
            self.limit.write(self, part)
        self.inner.flush()

    def writelines(self, lines: Any) -> None:
        """As of any stream."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _EndOfRun:
    """Attached to a run's frame; gone with it."""

    def __init__(self, at_end: Callable[[Any], None], run: Any) -> None:
        self._at_end = at_end
        self.run = run

    def __call__(self, *args: object) -> "_EndOfRun":
        """Where a debugger is at work it calls what is attached here."""
        return self

    def __del__(self) -> None:
        self._at_end(self.run)


class PrintLimit:
    """One budget for both streams. `current_scope`: what `cog.current_scope` gives: the same
    object as long as one prediction runs, a new one each time outside of any."""

    def __init__(
        self,
        current_scope: Callable[[], Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        frame_of_run: Callable[[], FrameType | None] | None = None,
    ) -> None:
        self._current_scope = current_scope
        self._clock = clock
        self._frame_of_run = frame_of_run or find_frame_of_run
        # A cancel is an exception that may come anywhere; `with` lets the lock go all the same.
        self._lock = threading.RLock()
        self._filled_at = clock()
        self._held: deque[tuple[_SlotLogWriter, str]] = deque()
        self._run: Any = None  # the scope of the prediction that the held lines are of
        self._budget = 0.0
        self._passed_chars = self._held_chars = 0
        self._left_lines = self._left_bytes = 0
        self._begin(None)

    def write(self, out: _SlotLogWriter, text: str) -> None:
        """Pass it on, or hold it."""
        with self._lock:
            now = self._clock()
            earned = (now - self._filled_at) * STEADY_BYTES
            self._budget = min(self._budget + earned, BURST_BYTES)
            self._filled_at = now
            if (run := self._current_run()) is not self._run:
                # Where the end of the one before was not seen, what is held of it goes nowhere:
                # its lines are no other prediction's.
                self._begin(run)
            may_pass = self._budget > 0 or self._passed_chars < FIRST_CHARS
            if not self._held and (may_pass or not self._watch()):
                cost = len(text) + LINE_COST * text.count("\n")
                self._budget = max(self._budget - cost, -5.0 * STEADY_BYTES)
                self._passed_chars += len(text)
                out.inner.write(text)
                return
            self._hold(out, text)
            if self._budget > 0:
                self._pass_on(lambda: self._budget > 0)

    def end(self, run: Any) -> None:
        """The run has ended: pass on what is held of it."""
        with self._lock:
            if self._run is run and self._current_run() is run:
                self._pass_on(lambda: True)
                self._begin(None)

    def _current_run(self) -> Any:
        """The scope of the prediction that runs, None outside of any."""
        scope = self._current_scope()
        return scope if scope is self._current_scope() else None

    def _begin(self, run: Any) -> None:
        self._run = run
        self._budget = float(BURST_BYTES)
        self._passed_chars = 0
        self._held.clear()
        self._held_chars = self._left_lines = self._left_bytes = 0

    def _watch(self) -> bool:
        """Have the end of this run noticed. False where that cannot be: of an `async`
        one, say."""
        frame = self._frame_of_run()
        if frame is None:
            return False
        if frame.f_trace is None:
            frame.f_trace = _EndOfRun(self.end, self._run)
        return isinstance(frame.f_trace, _EndOfRun)  # else it is a debugger's

    def _hold(self, out: _SlotLogWriter, text: str) -> None:
        text = text[-RING_CHARS:]
        self._held.append((out, text))
        self._held_chars += len(text)
        while self._held_chars > RING_CHARS:
            _, gone = self._held.popleft()
            self._held_chars -= len(gone)
            self._left_lines += gone.count("\n") or 1
            self._left_bytes += len(gone.encode(errors="replace"))

    def _pass_on(self, may: Callable[[], bool]) -> None:
        while self._held and may():
            out = self._held[0][0]
            chunk = []
            if self._left_lines:
                chunk.append(GAP % (self._left_lines, self._left_bytes))
                self._left_lines = self._left_bytes = 0
            size = 0
            while self._held and self._held[0][0] is out and size < CHUNK_CHARS:
                text = self._held.popleft()[1]
                self._held_chars -= len(text)
                size += len(text)
                chunk.append(text)
            self._budget -= size + LINE_COST
            out.inner.write("".join(chunk))


def find_frame_of_run() -> FrameType | None:
    """The frame of a set-up or a run, which coglet has called from Rust; None where there is none,
    where it is not clear which, and for an `async` one, which has no frame to its end."""
    found = {}
    for ident, frame in sys._current_frames().items():
        called = frame
        # A set-up runs in the main thread, below what Python was started with.
        while called.f_back is not None and called.f_back.f_code.co_name != "<module>":
            called = called.f_back
        code = called.f_code
        if code.co_name != "<module>" and not code.co_filename.startswith(LIBRARY):
            found[ident] = called
    if (own := found.get(threading.get_ident())) is not None:
        return own
    return next(iter(found.values())) if len(found) == 1 else None


def install() -> None:
    """Put the limit before coglet's writers, in its worker; elsewhere there are none."""
    if type(sys.stdout).__name__ != "_SlotLogWriter" or isinstance(sys.stdout, _SlotLogWriter):
        return
    # Without it everything works, only slower.
    with contextlib.suppress(ImportError, AttributeError):
        from coglet import _sdk  # noqa: PLC0415 - only a worker has it

        limit = PrintLimit(_sdk.current_scope)
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout = _SlotLogWriter(stdout, limit)
        sys.stderr = _SlotLogWriter(stderr, limit)
