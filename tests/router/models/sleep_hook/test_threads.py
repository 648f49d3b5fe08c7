"""Who is at work shows in the stacks, without a change of the package."""

from __future__ import annotations

import _thread
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.models.worker_hook.callme_sleep import threads
from router.models.worker_hook.callme_sleep.threads import at_work
from tests.waiting import wait_until


def seen_from_another_thread() -> set[str]:
    """What a control thread would see."""
    found: list[str] = []
    asker = threading.Thread(target=lambda: found.extend(at_work()))
    asker.start()
    asker.join()
    return set(found)


def test_waiting_is_rest() -> None:
    """Threads that wait for work, in the library's own ways, do not count."""
    jobs: queue.Queue[int] = queue.Queue()
    event = threading.Event()
    idents: list[int] = []
    with ThreadPoolExecutor(1, initializer=lambda: idents.append(threading.get_ident())) as pool:
        pool.submit(int).result()
        waiting = [threading.Thread(target=jobs.get), threading.Thread(target=event.wait)]
        for t in waiting:
            t.start()
            idents.append(t.ident or 0)

        # Of these threads alone: what other tests of this process have left may be at work.
        def at_rest() -> bool:
            frames = sys._current_frames()
            return not any(threads.work_of(frames[ident]) for ident in idents)

        try:
            wait_until(at_rest)
        finally:
            jobs.put(1)
            event.set()


def spin(stop: list[bool]) -> None:
    """Work in Python."""
    while not stop:
        sum(range(100))


@pytest.mark.parametrize(
    "start",
    [
        lambda target, args: threading.Thread(target=target, args=args).start(),
        _thread.start_new_thread,
    ],
    ids=["python's", "foreign"],
)
def test_work_is_named(start: Callable[[object, tuple[object, ...]], object]) -> None:
    """A thread that computes is named by its place."""
    stop: list[bool] = []
    start(spin, (stop,))
    try:
        wait_until(lambda: "test_threads.py:spin" in seen_from_another_thread())
    finally:
        stop.append(True)


def test_a_run_that_waits_is_work() -> None:
    """coglet calls a run from Rust: its stack does not begin in `threading`, and waits count."""
    event = threading.Event()
    ident = _thread.start_new_thread(event.wait, ())
    try:
        frame = wait_until(lambda: sys._current_frames().get(ident))
        assert threads.work_of(frame)
    finally:
        event.set()


def test_the_hooks_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hook itself does is no work of the model."""
    stop: list[bool] = []
    monkeypatch.setattr(threads, "HOOK", __file__)
    thread = threading.Thread(target=spin, args=(stop,))
    thread.start()
    assert "test_threads.py:spin" not in seen_from_another_thread()
    stop.append(True)
    thread.join()
