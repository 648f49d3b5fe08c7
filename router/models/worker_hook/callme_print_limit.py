"""Limits what a model prints, in the process that prints it. Standard library only.

coglet 0.23.1 keeps every line that a prediction prints, in its worker, its server and its answer.
It takes several times as long to pass lines on as a loop takes to print them: 10 s of printing
took coglet alone 30 to 47 s and 1.4 GB. So only a burst of output passes here, and then a steady
rate. What exceeds the rate waits in a ring of the last lines, and the oldest of these are dropped.

coglet also keeps the start of a line that has not ended in one buffer for all predictions, so it
would appear in the log of whatever prediction prints next. Here each run has its own.

At the end of the run the whole ring is passed on. Nothing in Python reports that a run ends,
because coglet calls it from Rust. But its frame is then freed, and with it what is attached to it.
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

# Bytes that pass at once, and bytes that pass in each second after that. No person reads more.
BURST_BYTES = 2 << 20
STEADY_BYTES = 64 << 10
# The router keeps the first 64 KiB, so these pass in any case, however short the lines are.
FIRST_CHARS = 68 << 10
# The router keeps the last MiB, so a gap must never be within that.
RING_CHARS = (1 << 20) + (1 << 16)
# The cost of a line for coglet and the router besides its text, in bytes.
LINE_COST = 200
# Size of the lines that are passed on together.
CHUNK_CHARS = 8 << 10
# Python's library, where its own threads and event loops begin.
LIBRARY = str(Path(threading.__file__).parent)
GAP = "[callme left out %d lines, %d bytes]\n"


class _SlotLogWriter:
    """Replaces sys.stdout or sys.stderr.

    coglet recognises its own writers by this name. With another name it would put one of its own
    in front of this one.
    """

    def __init__(self, inner: Any, limit: "PrintLimit") -> None:
        self.inner = inner
        self.limit = limit
        # The start of a line that has not ended, for each run that has one. coglet's own writer
        # has one buffer for all, so it would appear in whatever prediction prints next.
        self._parts: dict[Any, str] = {}
        limit.writers.append(self)

    def write(self, text: str) -> int:
        """Pass on whole lines, as the real writer does."""
        with self.limit.lock:
            run = self.limit.current_run()
            part = self._parts.pop(run, "")
            lines, end, rest = (part + text).rpartition("\n")
            if len(rest) > CHUNK_CHARS or (rest and not self.limit.will_take_up(run)):
                lines, end, rest = lines + end + rest, "", ""
            if rest:
                self._parts[run] = rest
            if lines or end:
                self.limit.write(self, lines + end)
        return len(text)

    def flush(self) -> None:
        """Pass on a line that has not ended, too."""
        self.pass_part(self.limit.current_run())
        self.inner.flush()

    def pass_part(self, run: Any) -> None:
        """Pass on the run's line that has not ended. Called within the run."""
        with self.limit.lock:
            if part := self._parts.pop(run, ""):
                self.limit.write(self, part)

    def writelines(self, lines: Any) -> None:
        """Write each line, as every stream does."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _EndOfRun:
    """Is attached to a run's frame and is deleted with it."""

    def __init__(self, at_end: Callable[[Any], None], run: Any) -> None:
        self._at_end = at_end
        self.run = run

    def __call__(self, *args: object) -> "_EndOfRun":
        """Do nothing. An active debugger calls what is attached to a frame."""
        return self

    def __del__(self) -> None:
        self._at_end(self.run)


class PrintLimit:
    """One budget for both streams.

    `current_scope` is `cog.current_scope`. It returns the same object as long as one prediction
    runs, and a new object at each call outside of any prediction.
    """

    def __init__(
        self,
        current_scope: Callable[[], Any],
        *,
        clock: Callable[[], float] = time.monotonic,
        frame_of_run: Callable[[], FrameType | None] | None = None,
    ) -> None:
        self._current_scope = current_scope
        self.writers: list[_SlotLogWriter] = []
        self._clock = clock
        self._frame_of_run = frame_of_run or find_frame_of_run
        # A cancel is an exception that may be raised anywhere. `with` releases the lock even then.
        self.lock = threading.RLock()
        self._filled_at = clock()
        self._held: deque[tuple[_SlotLogWriter, str]] = deque()
        self._run: Any = None  # the scope of the prediction that printed the held lines
        self._budget = 0.0
        self._passed_chars = self._held_chars = 0
        self._left_lines = self._left_bytes = 0
        # The runs that the event loop is going to take up the start of a line of.
        self._due: set[Any] = set()
        self._begin(None)

    def write(self, out: _SlotLogWriter, text: str) -> None:
        """Pass the text on, or hold it."""
        with self.lock:
            now = self._clock()
            earned = (now - self._filled_at) * STEADY_BYTES
            self._budget = min(self._budget + earned, BURST_BYTES)
            self._filled_at = now
            if (run := self.current_run()) is not self._run:
                # If the end of the last run was not noticed, its held lines are dropped: they
                # must not appear in another prediction.
                self._begin(run)
            may_pass = self._budget > 0 or self._passed_chars < FIRST_CHARS
            if not self._held and (may_pass or not self._watch()):
                cost = len(text) + LINE_COST * text.count("\n")
                self._budget = max(self._budget - cost, -5.0 * STEADY_BYTES)
                self._passed_chars += len(text)
                _send(out, text)
                return
            self._hold(out, text)
            if self._budget > 0:
                self._pass_on(lambda: self._budget > 0)

    def end(self, run: Any) -> None:
        """Called when the run has ended. Pass on what is held of it."""
        with self.lock:
            if self._run is run and self.current_run() is run:
                for out in self.writers:
                    out.pass_part(run)
                self._pass_on(lambda: True)
                self._begin(None)

    def will_take_up(self, run: Any) -> bool:
        """Arrange that the start of a line is passed on before the run ends: at its end, or, of an
        `async` run, before anything else runs. False where that is not possible."""
        if run is None:
            return True  # it is nobody's, and may wait for the end of its line
        # Imported by the package or by coglet if a loop runs, and by nobody else for this.
        library = sys.modules.get("asyncio")
        loop = library._get_running_loop() if library else None
        if loop is not None:
            if run not in self._due:
                self._due.add(run)
                loop.call_soon(self._take_up, run)
            return True
        if run is not self._run:
            self._begin(run)
        return self._watch()

    def _take_up(self, run: Any) -> None:
        """Called in the run's own context."""
        self._due.discard(run)
        for out in self.writers:
            out.pass_part(run)

    def current_run(self) -> Any:
        """Return the scope of the prediction that runs, or None outside of any."""
        scope = self._current_scope()
        return scope if scope is self._current_scope() else None

    def _begin(self, run: Any) -> None:
        self._run = run
        self._is_watched = False
        self._budget = float(BURST_BYTES)
        self._passed_chars = 0
        self._held.clear()
        self._held_chars = self._left_lines = self._left_bytes = 0

    def _watch(self) -> bool:
        """Arrange that the end of this run is noticed.

        False where that is not possible, for example for an `async` run.
        """
        if self._is_watched:
            return True
        frame = self._frame_of_run()
        if frame is None:
            return False
        if frame.f_trace is None:
            frame.f_trace = _EndOfRun(self.end, self._run)
        self._is_watched = isinstance(frame.f_trace, _EndOfRun)  # else it is a debugger's
        return self._is_watched

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
            _send(out, "".join(chunk))


def _send(out: _SlotLogWriter, text: str) -> None:
    """Write it, and leave nothing in coglet's buffer, which all predictions share."""
    out.inner.write(text)
    if not text.endswith("\n"):
        out.inner.flush()


def find_frame_of_run() -> FrameType | None:
    """Return the frame of a set-up or a run, which coglet has called from Rust.

    None where there is none, where it is not clear which one it is, and for an `async` run, which
    has no frame that lasts until its end.
    """
    found = {}
    for ident, frame in sys._current_frames().items():
        called = frame
        # A set-up runs in the main thread, below the module that Python was started with.
        while called.f_back is not None and called.f_back.f_code.co_name != "<module>":
            called = called.f_back
        code = called.f_code
        if code.co_name != "<module>" and not code.co_filename.startswith(LIBRARY):
            found[ident] = called
    if (own := found.get(threading.get_ident())) is not None:
        return own
    return next(iter(found.values())) if len(found) == 1 else None


def install() -> None:
    """Put the limit in front of coglet's writers in its worker. Other processes have no writers."""
    if type(sys.stdout).__name__ != "_SlotLogWriter" or isinstance(sys.stdout, _SlotLogWriter):
        return
    # Without the limit everything works, only slower.
    with contextlib.suppress(ImportError, AttributeError):
        from coglet import _sdk  # noqa: PLC0415 - only a worker has it

        limit = PrintLimit(_sdk.current_scope)
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout = _SlotLogWriter(stdout, limit)
        sys.stderr = _SlotLogWriter(stderr, limit)
