"""Which jobs share a call, and that one job's error does not fail the others."""

import threading

import pytest
from batching import Batcher

LONG_S = 60


class Held:
    """Work that stops at a gate, so that the test decides what waits together."""

    def __init__(self):
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, jobs):
        self.entered.release()
        assert self.gate.acquire(timeout=LONG_S)
        self.calls.append(list(jobs))
        if "poison" in jobs:
            raise ValueError("poison")
        return [job.upper() for job in jobs]


@pytest.fixture
def work():
    return Held()


@pytest.fixture
def batcher(work):
    made = Batcher(work, most=3)
    yield made
    work.gate.release(100)
    made.close()


def hold(batcher, work):
    """Occupy the thread with a job of its own; its future."""
    first = batcher.submit("own", "first")
    assert work.entered.acquire(timeout=LONG_S)
    return first


def test_alone_a_job_runs_at_once(batcher, work):
    """It does not wait for a batch to fill."""
    work.gate.release()
    assert batcher.submit("a", "job").result(LONG_S) == "JOB"
    assert work.calls == [["job"]]


def test_what_waits_together_runs_together(batcher, work):
    """The oldest decides the key; others with it join up to the limit; the rest stay in order."""
    hold(batcher, work)
    waiting = [batcher.submit(key, key + str(n)) for n, key in enumerate("abaacaa")]
    work.gate.release(100)
    assert [future.result(LONG_S) for future in waiting] == [
        "A0", "B1", "A2", "A3", "C4", "A5", "A6",
    ]  # fmt: skip
    assert work.calls == [["first"], ["a0", "a2", "a3"], ["b1"], ["c4"], ["a5", "a6"]]


def test_one_failure_is_one_failure(batcher, work):
    """A failed batch is retried one job at a time: only the faulty job gets the error."""
    hold(batcher, work)
    good, bad = batcher.submit("a", "good"), batcher.submit("a", "poison")
    work.gate.release(100)
    assert good.result(LONG_S) == "GOOD"
    with pytest.raises(ValueError, match="poison"):
        bad.result(LONG_S)


def test_what_is_cancelled_in_time_costs_nothing(batcher, work):
    """A request cancelled while it waited is not processed."""
    hold(batcher, work)
    gone, stays = batcher.submit("a", "gone"), batcher.submit("a", "stays")
    assert gone.cancel()
    work.gate.release(100)
    assert stays.result(LONG_S) == "STAYS"
    assert ["stays"] in work.calls


def test_closing_answers_what_waits_and_takes_no_more(work):
    """Every future is done."""
    batcher = Batcher(work, most=2)
    first = hold(batcher, work)
    second = batcher.submit("a", "second")
    work.gate.release(100)
    batcher.close()
    assert (first.result(LONG_S), second.result(LONG_S)) == ("FIRST", "SECOND")
    with pytest.raises(RuntimeError):
        batcher.submit("a", "late")
