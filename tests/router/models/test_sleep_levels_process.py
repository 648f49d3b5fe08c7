"""A real coglet worker on both levels of sleep. The driver is a stand-in that really stops it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from router.models import memory
from router.models.driver_client import DriverClient
from router.models.process_interface import SleepRefusedError
from tests.router.models.driver_stand_in import NOT_READY, Books, argv
from tests.router.models.test_sleep_process import ROOM, answer, started, worker_of
from tests.waiting import until

pytestmark = pytest.mark.slow

HELD = 100 << 20


async def test_down_and_up(  # noqa: PLR0915 - one worker for all of it
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asleep and then suspended, both at once, and without the hook: it answers as before. Refused
    by the driver it stays where it is. Without room it is not resumed, and it can be ended."""
    books = Books(tmp_path / "books.json")
    driver = DriverClient(books.held_by, books.free_bytes, argv(books))
    async with started(tmp_path, driver=driver) as (process, sleeper):
        before = await answer(process)
        worker = worker_of(process)

        async def awake() -> None:
            assert not sleeper.asleep
            assert psutil.Process(worker).status() != psutil.STATUS_STOPPED
            assert await answer(process) == before
            assert books.held_by([worker]) == {worker: HELD}

        async def wake(hook: bool) -> None:
            await until(lambda: psutil.Process(worker).status() == psutil.STATUS_STOPPED)
            woken = await sleeper.wake()
            assert woken.resumed_bytes == HELD
            assert (woken.copied_bytes > 0) is hook
            await awake()

        with pytest.raises(SleepRefusedError, match="cannot be measured"):
            await sleeper.sleep(ROOM, hook=False, driver=True)
        books.write(held={str(worker): HELD}, free=4 * HELD)
        with pytest.raises(SleepRefusedError, match="main memory"):
            await sleeper.sleep(HELD - 1, hook=False, driver=True)
        await awake()

        # One level, and then the other.
        slept = await sleeper.sleep(ROOM)
        assert not slept.suspended_bytes
        deeper = await sleeper.sleep(ROOM, hook=False, driver=True)
        assert (deeper.suspended_bytes, deeper.residue_bytes) == (HELD, 0)
        assert deeper.copied == slept.copied
        await wake(hook=True)

        both = await sleeper.sleep(ROOM, driver=True)
        assert both.suspended_bytes == HELD
        assert both.copied.freed_bytes == slept.copied.freed_bytes
        await wake(hook=True)

        alone = await sleeper.sleep(ROOM, hook=False, driver=True)
        assert alone.copied.host_bytes == 0
        await wake(hook=False)

        # The driver refuses: as it was, or asleep by the hook.
        books.write(wrong={"Checkpoint": NOT_READY})
        with pytest.raises(SleepRefusedError, match="error 600"):
            await sleeper.sleep(ROOM, hook=False, driver=True)
        await awake()
        half = await sleeper.sleep(ROOM, driver=True)
        assert (half.suspended_bytes, half.copied.host_bytes > 0) == (0, True)
        assert "error 600" in half.suspend_refusal
        assert not sleeper.is_suspended
        await sleeper.wake()
        await awake()

        # No room.
        books.write(wrong={})
        await sleeper.sleep(ROOM, driver=True)
        books.write(free=HELD)
        monkeypatch.setattr(memory, "FREED_LIMIT_S", 0.0)
        with pytest.raises(TimeoutError, match="are needed"):
            await sleeper.wake()
        await process.stop(grace_s=1000)  # more than the test's own limit
        assert not process.pids()
    await driver.close()
