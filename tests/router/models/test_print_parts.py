"""The start of a line that has not ended stays in its own prediction's log, and is in it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextvars import ContextVar
from functools import partial

import pytest

from router.models.worker_hook.callme_print_limit import PrintLimit, _SlotLogWriter
from tests.router.models.test_print_limit import Worker

SCOPE: ContextVar[str | None] = ContextVar("SCOPE", default=None)


class Shared:
    """coglet's writer: one buffer for all predictions; what leaves it goes to the log of the one
    that runs then."""

    def __init__(self) -> None:
        self.buffer = ""
        self.logs: dict[str | None, str] = defaultdict(str)

    def write(self, text: str) -> int:
        """Whole lines leave the buffer."""
        lines, end, self.buffer = (self.buffer + text).rpartition("\n")
        self.logs[SCOPE.get()] += lines + end
        return len(text)

    def flush(self) -> None:
        """All leaves it."""
        self.logs[SCOPE.get()] += self.buffer
        self.buffer = ""


async def test_runs_that_take_turns() -> None:
    """Each line has a wait in it, in which the other runs print; the last one does not end."""
    shared = Shared()
    out = _SlotLogWriter(shared, PrintLimit(lambda: SCOPE.get() or object()))

    async def run(name: str) -> None:
        SCOPE.set(name)
        for n in range(100):
            print(name, n, end=" ", file=out)
            await asyncio.sleep(0)
            print("of", name, file=out)
        print("last of", name, end="", file=out)

    names = ["anna", "berta", "clara"]
    await asyncio.gather(*map(run, names))
    await asyncio.sleep(0)  # coglet hears of a run's end no sooner
    for name in names:
        lines = "".join(f"{name} {n} of {name}\n" for n in range(100))
        assert shared.logs[name] == f"{lines}last of {name}"
    assert set(shared.logs) == set(names)
    assert out._parts == {}


@pytest.mark.parametrize("seen", [True, False])
def test_runs_one_after_the_other(seen: bool) -> None:
    """The end of a run is the end of its last line, whether the end can be seen or not."""
    worker = Worker()
    ends = []
    for name in ("one", "two", "three"):
        worker.run(partial(worker.out.write, name), seen=seen)  # type: ignore[arg-type]
        ends.append(worker.inner.text())
    assert ends == ["one", "onetwo", "onetwothree"]
    assert worker.out._parts == {}


def test_behind_much_that_was_printed() -> None:
    """Also what is held back ends with it."""
    worker = Worker()

    def work() -> None:
        worker.print_lines(50_000)
        worker.out.write("the end")

    worker.run(work)
    assert worker.inner.text().endswith("\nthe end")
    worker.run(lambda: worker.print_lines(1))
    assert worker.inner.text().endswith("the end0 " + "x" * 90 + "\n")
    worker.scope = None
    worker.out.write("outside of any ")
    assert worker.inner.text().endswith("x\n")
    worker.out.write("prediction\n")
    assert worker.inner.text().endswith("x\noutside of any prediction\n")


async def test_a_line_in_many_parts_is_one_piece() -> None:
    """Several words of one print are not told one by one."""
    shared = Shared()
    out = _SlotLogWriter(shared, PrintLimit(lambda: SCOPE.get() or object()))
    SCOPE.set("anna")
    told: list[str] = []
    shared.write = told.append  # type: ignore[assignment, method-assign]
    print("a", "b", "c", file=out)
    assert told == ["a b c\n"]
