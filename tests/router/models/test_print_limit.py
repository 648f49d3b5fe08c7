"""What a model prints is bounded in its own process, and its last lines come all the same."""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from router.models.worker_hook import callme_print_limit
from router.models.worker_hook.callme_print_limit import (
    BURST_BYTES,
    STEADY_BYTES,
    PrintLimit,
    _SlotLogWriter,
)
from router.predictions.prediction_log import GAP, HEAD_BYTES

pytestmark = pytest.mark.slow


class Inner:
    """In place of coglet's writer."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def write(self, text: str) -> int:
        """Noted."""
        self.got.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""

    def text(self) -> str:
        """All of it."""
        return "".join(self.got)


class Worker:
    """coglet's worker: it runs functions, each in a scope of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.scope: object | None = None
        self.frame: FrameType | None = None
        self.inner = Inner()
        limit = PrintLimit(
            lambda: self.scope or object(),
            clock=lambda: self.now,
            frame_of_run=lambda: self.frame,
        )
        self.out = _SlotLogWriter(self.inner, limit)

    def run(self, work: Callable[[], None], *, seen: bool = True) -> None:
        """Run it as a prediction; `seen`: whether its frame can be found."""
        self.scope = object()
        with contextlib.suppress(RuntimeError):  # coglet too lets go of what was raised
            self._called(work, seen)
        self.scope = None

    def _called(self, work: Callable[[], None], seen: bool) -> None:
        self.frame = sys._getframe() if seen else None
        try:
            work()
        finally:
            self.frame = None

    def print_lines(self, count: int, text: str = "x" * 90) -> None:
        """As a tight loop does: no time passes."""
        for n in range(count):
            print(f"{n} {text}", file=self.out)


def test_what_is_little_passes_at_once() -> None:
    """Line by line, as it was; half a line with a flush."""
    worker = Worker()

    def work() -> None:
        print("a", "b", file=worker.out)
        assert worker.inner.got == ["a b\n"]
        print("half", end="", file=worker.out, flush=True)
        assert worker.inner.got == ["a b\n", "half"]

    worker.run(work)


def test_a_loop_that_prints() -> None:
    """A burst passes, then what a second allows; the last MiB comes with the end of the run, in
    a few pieces, and one line says what is missing."""
    worker = Worker()

    def work() -> None:
        worker.print_lines(50_000)
        burst = len(worker.inner.text())
        assert burst < BURST_BYTES
        worker.now += 1
        worker.print_lines(1)
        assert len(worker.inner.text()) - burst < 2 * STEADY_BYTES
        worker.print_lines(50_000)

    worker.run(work)
    text = worker.inner.text()
    assert len(worker.inner.got) < 50_000
    assert text.endswith(f"49999 {'x' * 90}\n")
    gaps = list(GAP.finditer(text))
    assert sum(int(gap[1]) for gap in gaps) == 100_001 - (text.count("\n") - len(gaps))
    assert len(text) - gaps[-1].end() >= 1 << 20
    assert len(text) < BURST_BYTES + (2 << 20)


def test_the_end_by_an_exception_is_an_end() -> None:
    """Its last lines are the ones that matter."""
    worker = Worker()

    def work() -> None:
        worker.print_lines(50_000)
        print("the reason", file=worker.out)
        raise RuntimeError

    worker.run(work)
    assert worker.inner.text().endswith("the reason\n")


def test_each_run_has_a_burst_of_its_own() -> None:
    """The first lines of a loud prediction come, however loud the one before it was."""
    worker = Worker()
    for _ in range(3):
        worker.inner.got.clear()
        worker.run(lambda: worker.print_lines(50_000))
        assert worker.inner.text().startswith("0 xxx")
        assert len(worker.inner.text()) > BURST_BYTES // 2


def test_the_first_lines_pass_however_short_they_are() -> None:
    """The first gap is behind what the router keeps as the head of a log."""
    worker = Worker()

    def work() -> None:
        for _ in range(1_000_000):
            worker.out.write("x\n")

    worker.run(work)
    gap = GAP.search(worker.inner.text())
    assert gap is not None
    assert gap.start() > HEAD_BYTES


def test_no_line_is_told_to_the_next_prediction() -> None:
    """Where the end of a run was not seen, since something still holds its frame, what is held
    of it goes nowhere."""
    worker = Worker()
    kept = []

    def first() -> None:
        kept.append(sys._getframe().f_back)
        worker.print_lines(50_000, "mine")

    worker.run(first)
    worker.inner.got.clear()
    worker.now += 3600
    worker.run(lambda: print("yours", file=worker.out))
    assert worker.inner.text() == "yours\n"
    kept.clear()
    assert worker.inner.text() == "yours\n"


def test_where_the_end_cannot_be_seen_all_passes() -> None:
    """An `async` run has no frame to its end: nothing is held back."""
    worker = Worker()
    worker.run(lambda: worker.print_lines(50_000), seen=False)
    assert worker.inner.text().count("\n") == 50_000


def test_the_frame_of_a_run() -> None:
    """It is the one that was called from outside of Python, however deep a print is."""
    found: list[tuple[FrameType | None, FrameType]] = []
    done = threading.Event()

    def run() -> None:
        def deeper() -> None:
            found.append((callme_print_limit.find_frame_of_run(), sys._getframe(1)))

        deeper()
        done.set()

    _thread.start_new_thread(run, ())
    assert done.wait(30)
    assert found[0][0] is found[0][1]
