"""The driver's level: what is asked of the driver, in which order, and what a failure leads to."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from router.models import driver_client, driver_helper, memory
from router.models.driver_client import DriverCallError, DriverClient
from router.models.process_interface import SleepRefusedError
from tests.router.models.driver_stand_in import NOT_READY, Books, Library, argv
from tests.waiting import until, wait_until

pytestmark = pytest.mark.slow

GB = 10**9


@pytest.fixture
def books(tmp_path: Path) -> Books:
    """A card with two gigabytes that are free."""
    made = Books(tmp_path / "books.json")
    made.write(free=2 * GB)
    return made


@pytest.fixture
def pids(books: Books) -> Iterator[list[int]]:
    """Two processes that hold a gigabyte each."""
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=-1)
        for _ in range(2)
    ]
    books.write(held={str(p.pid): GB for p in started})
    yield [p.pid for p in started]
    for p in started:
        p.kill()
        p.wait()
        assert p.stdin is not None
        p.stdin.close()


@pytest.fixture
async def client(books: Books) -> AsyncIterator[DriverClient]:
    """With a helper of its own."""
    made = DriverClient(books.held_by, books.free_bytes, argv(books))
    yield made
    await made.close()


def held(books: Books, *pids: int) -> dict[int, int]:
    """What they hold now."""
    return books.held_by(pids)


async def test_there_and_back(books: Books, pids: list[int], client: DriverClient) -> None:
    """Suspended, they hold nothing and stand still; resumed, they hold what they held."""
    both = held(books, *pids)
    assert await client.why_unfit() == ""
    await client.suspend(both)
    assert held(books, *pids) == {}
    assert books.free_bytes() == 4 * GB
    stopped = psutil.STATUS_STOPPED
    await until(lambda: all(psutil.Process(pid).status() == stopped for pid in pids))
    await client.resume(both)
    assert held(books, *pids) == both
    assert [name for name, _ in books.read()["calls"]] == [
        *("Lock", "Lock", "Checkpoint", "Checkpoint"),
        *("Restore", "Restore", "Unlock", "Unlock"),
    ]


async def test_two_models_at_a_time(books: Books, pids: list[int], client: DriverClient) -> None:
    """One call that takes long does not keep the others."""
    first, second = ({pid: GB} for pid in pids)
    books.write(wrong={f"Lock {pids[0]}": -1})
    hangs = asyncio.create_task(client.suspend(first))
    await until(lambda: books.read()["calls"])
    await client.suspend(second)
    assert not hangs.done()
    hangs.cancel()


@pytest.mark.parametrize(("wrong", "undone"), [("Lock", 1), ("Checkpoint", 2)])
async def test_refused_with_nothing_moved(
    wrong: str, undone: int, books: Books, pids: list[int], client: DriverClient
) -> None:
    """All that had been locked goes on, and the next try may succeed."""
    both = held(books, *pids)
    books.write(wrong={f"{wrong} {pids[undone - 2]}": NOT_READY})
    with pytest.raises(SleepRefusedError, match=f"cuCheckpointProcess{wrong}: error 600"):
        await client.suspend(both)
    assert set(books.read()["state"].values()) == {"running"}
    assert [name for name, _ in books.read()["calls"]].count("Unlock") == undone
    books.write(wrong={})
    await client.suspend(both)


async def test_failed_half_way(books: Books, pids: list[int], client: DriverClient) -> None:
    """When a part has been moved, it is no refusal: the model has to be stopped."""
    books.write(wrong={f"Checkpoint {pids[1]}": NOT_READY})
    with pytest.raises(DriverCallError):
        await client.suspend(held(books, *pids))
    assert client.unfit == ""


@pytest.mark.parametrize("code", [driver_client.NOT_PERMITTED, driver_client.NOT_SUPPORTED])
async def test_not_allowed(code: int, books: Books, pids: list[int], client: DriverClient) -> None:
    """What this user may not do to one process, he may not do to any."""
    books.write(wrong={"Lock": code})
    with pytest.raises(SleepRefusedError):
        await client.suspend({pids[0]: GB})
    assert f"error {code}" in await client.why_unfit()
    books.write(wrong={}, calls=[])
    with pytest.raises(SleepRefusedError, match=f"error {code}"):
        await client.suspend({pids[1]: GB})
    assert books.read()["calls"] == []


async def test_no_restore_without_room(
    books: Books, pids: list[int], client: DriverClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program has taken the memory: the driver is not even asked, until it is free."""
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.0)
    one = {pids[0]: GB}
    await client.suspend(one)
    books.write(free=GB)  # not enough: the driver takes a little more
    with pytest.raises(TimeoutError, match="are free"):
        await client.resume(one)
    assert "Restore" not in [name for name, _ in books.read()["calls"]]
    books.write(free=2 * GB)
    await client.resume(one)


async def test_memory_that_was_not_seen_free(
    books: Books, pids: list[int], client: DriverClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no suspension."""
    monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.0)
    monkeypatch.setattr(client, "held_by", lambda pids: {pids[0]: GB})
    with pytest.raises(TimeoutError, match="still held"):
        await client.suspend({pids[0]: GB})


async def test_a_call_that_never_returns(
    books: Books, pids: list[int], client: DriverClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a time limit, and the driver is not used any more."""
    assert await client.why_unfit() == ""
    monkeypatch.setattr(driver_client, "SHORTEST_LIMIT_S", 0.1)
    monkeypatch.setattr(driver_client, "PATIENCE", 0.0)
    books.write(wrong={"Lock": -1})
    with pytest.raises(TimeoutError, match="did not return from 'lock'"):
        await client.suspend({pids[0]: GB})
    with pytest.raises(SleepRefusedError, match="did not return"):
        await client.suspend({pids[1]: GB})


async def test_a_helper_that_ends(books: Books, pids: list[int], client: DriverClient) -> None:
    """What it was asked fails; the next call gets another helper."""
    await client.why_unfit()
    assert client._helper is not None
    books.write(wrong={"Lock": -1})
    asked = asyncio.create_task(client.suspend({pids[0]: GB}))
    await until(lambda: books.read()["calls"])
    client._helper.kill()
    with pytest.raises(ConnectionError, match="helper ended"):
        await asked
    books.write(wrong={})
    await client.suspend({pids[0]: GB})


@pytest.mark.parametrize(
    ("version", "missing", "why"),
    [
        (12070, "", "12080 is needed"),
        (13000, "cuCheckpointProcessRestore", "Restore"),
        (13000, "", None),
    ],
)
def test_what_the_driver_must_have(
    version: int, missing: str, why: str | None, books: Books
) -> None:
    """Its version and its symbols; without them nothing is tried."""
    library = Library(books)
    library.version = version
    if missing:
        library = type("Old", (), {"cuCheckpointProcessLock": None})()
    said = driver_helper.answer(driver_helper.Driver(library), {"id": 7, "do": "probe"})
    assert said["id"] == 7
    assert (why is None) == ("error" not in said)
    assert why is None or "no checkpoints" in said["error"]


def test_what_the_helper_says(books: Books, pids: list[int]) -> None:
    """Each answer has its request's number, and a failure where the process is now."""
    library = Library(books)
    driver = driver_helper.Driver(library)

    def say(step: str) -> dict[str, object]:
        return driver_helper.answer(driver, {"id": 7, "do": step, "pid": pids[0]})

    for step in ("probe", "lock", "checkpoint", "restore", "unlock"):
        assert say(step) == {"id": 7}, step
    error = "cuCheckpointProcessRestore: error 401"
    for state in ("running", "locked", "failed"):
        books.write(state={str(pids[0]): state})
        assert say("restore") == {"id": 7, "error": error, "code": 401, "state": state}
    for code, value in ((1, 0), (0, -1), (0, len(driver_helper.STATES))):
        get_state = SimpleNamespace(code=code, value=value)

        def told(pid: object, found: Any, said: SimpleNamespace = get_state) -> int:
            found._obj.value = said.value
            return int(said.code)

        setattr(library, "cuCheckpointProcessGetState", told)  # noqa: B010 - its type differs
        assert say("restore")["state"] == "unknown"
    library.version = 12070
    why = "the driver has no checkpoints: its version is 12070, 12080 is needed"
    assert say("probe") == {"id": 7, "error": why, "code": 0}
    driver = driver_helper.Driver(None)
    why = "the driver has no checkpoints: libcuda.so.1 cannot be loaded"
    assert say("probe") == {"id": 7, "error": why, "code": 0}


def test_the_helper_answers_each_line(books: Books) -> None:
    """By one line, whenever it is done."""
    said: list[str] = []
    lines = [f'{{"id": {number}, "do": "probe"}}\n' for number in range(3)]
    driver_helper.serve(driver_helper.Driver(Library(books)), lines, said.append)
    wait_until(lambda: len(said) == 3)
    assert sorted(said) == [f'{{"id": {number}}}\n' for number in range(3)]


async def test_this_machine() -> None:
    """The real helper says whether it can, and does not fail for want of a driver."""
    client = DriverClient(lambda pids: {}, lambda: 0)
    why = await client.why_unfit()
    await client.close()
    with contextlib.suppress(OSError):
        ctypes.CDLL(driver_helper.LIBRARY)
        return
    assert why == "the driver has no checkpoints: libcuda.so.1 cannot be loaded"
