"""A back-end with several entries, and what is sent again: servers that misbehave on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from router.clock import SystemClock
from router.models.process_interface import MayHaveBegunError, NotStartedError
from router.prediction import Job, Outcome
from router.remote import cog, http
from router.remote.backend import Guards
from router.remote.guard import Allowance, Breaker, NotFoundWindow
from router.remote.process import RemoteProcess
from tests.router.remote.cog_backends import ASK, PREDICT, SUCCEEDED, backend_of, code, ignore
from tests.router.remote.remote_stand_in import (
    Handler,
    StandIn,
    Step,
    answers,
    hang_up,
    hang_up_midway,
    stand_in,
)
from tests.waiting import until

pytestmark = pytest.mark.slow

RUNNING = {"id": "p1", "status": "processing"}


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses."""
    monkeypatch.setattr(cog, "SEND_AGAIN_AFTER_S", 0.01)
    monkeypatch.setattr(cog, "POLL_FIRST_S", 0.01)


@pytest.fixture
async def first() -> AsyncIterator[StandIn]:
    """One entry."""
    async with stand_in() as server:
        yield server


@pytest.fixture
async def second() -> AsyncIterator[StandIn]:
    """Another one."""
    async with stand_in() as server:
        yield server


async def predict(*entries: StandIn, again: bool = True) -> Outcome:
    """One prediction, `p1`."""
    backend = backend_of(*(e.url for e in entries), again=again)
    try:
        return await backend.predict(Job("p1", {"text": "hi"}), ignore)
    finally:
        await backend.close()


def sent(*entries: StandIn) -> list[int]:
    """How often each got the prediction."""
    return [len(e.of("POST", "/predictions")) for e in entries]


async def test_an_entry_that_is_gone_begins_nothing(second: StandIn) -> None:
    """All go to the next one, whether repeatable or not, past more of them than there are tries."""
    async with stand_in() as gone:
        pass
    second.script |= {PREDICT: [SUCCEEDED], "GET /health-check": [{"status": "READY"}]}
    backend = backend_of(*[gone.url] * (http.TRIES + 1), second.url)
    await backend.probe()
    await backend.close()
    assert (await predict(*[gone] * (http.TRIES + 1), second, again=False)).output == {"x": 1}
    assert sent(second) == [1]


async def test_the_entry_that_works_is_kept(first: StandIn, second: StandIn) -> None:
    """The one that failed is not asked first each time."""
    first.script[PREDICT] = [hang_up]
    second.script[PREDICT] = [SUCCEEDED]
    backend = backend_of(first.url, second.url, again=True)
    for _ in range(3):
        assert (await backend.predict(Job("p1", {}), ignore)).output == {"x": 1}
    await backend.close()
    assert sent(first, second) == [1, 3]


@pytest.mark.parametrize("lost", [hang_up, hang_up_midway, 500, 502, 504])
async def test_what_was_cut_off_is_sent_again_under_its_id(
    first: StandIn, second: StandIn, lost: Step
) -> None:
    """To the other entry, after it was asked for; never where it is not repeatable."""
    for entry in (first, second):
        entry.script[PREDICT] = [lost, SUCCEEDED]
    assert code(await predict(first, second, again=False)) == "backend_failed"
    assert sent(first, second) == [1, 0]
    assert first.of("GET", "/predictions/p1")
    assert second.of("GET", "/predictions/p1")

    first.script[PREDICT] = [lost]
    second.script[PREDICT] = [SUCCEEDED]
    assert (await predict(first, second)).output == {"x": 1}
    assert sent(first, second) == [2, 1]
    assert second.of("POST", "/predictions")[0].json["id"] == "p1"


async def test_one_that_goes_on_is_not_sent_again(first: StandIn, second: StandIn) -> None:
    """The other entry knows it and says 404 to nothing: its result is taken."""
    first.script |= {PREDICT: [502]}
    second.script[ASK] = [RUNNING, RUNNING, SUCCEEDED]
    assert (await predict(first, second)).output == {"x": 1}
    assert sent(first, second) == [1, 0]


async def test_it_is_followed_and_canceled_where_it_is_known(
    first: StandIn, second: StandIn
) -> None:
    """Two boxes that do not know each other's predictions: 404 from one is not the end."""
    first.script |= {PREDICT: [answers(202, RUNNING)], "GET /health-check": [hang_up]}
    first.script |= {ASK: [RUNNING], f"{PREDICT}/p1/cancel": [{"status": "canceled"}]}
    second.script["GET /health-check"] = [{"status": "READY"}]
    backend = backend_of(first.url, second.url, again=True)
    task = asyncio.create_task(backend.predict(Job("p1", {}), ignore))
    await until(lambda: first.of("GET", "/predictions/p1"))
    await backend.probe()  # leaves the first entry, since it hangs up
    asked = len(first.of("GET", "/predictions/p1"))
    await until(lambda: len(first.of("GET", "/predictions/p1")) > asked)
    assert await backend.cancel("p1")
    assert first.of("POST", "/predictions/p1/cancel")
    first.script[ASK] = [SUCCEEDED]
    assert (await task).output == {"x": 1}
    assert second.of("GET", "/predictions/p1")
    assert sent(first, second) == [1, 0]
    await backend.close()


async def test_it_is_sent_three_times_at_most(first: StandIn) -> None:
    """Then its error is reported; a crash of the model is reported at once."""
    first.script[PREDICT] = [502]
    assert code(await predict(first)) == "backend_failed"
    assert sent(first) == [1 + cog.SEND_AGAIN]
    crashed = {"id": "p1", "status": "failed", "error": "x", "error_code": "worker_died"}
    first.script[PREDICT] = [crashed]
    assert code(await predict(first)) == "backend_failed"
    assert sent(first) == [2 + cog.SEND_AGAIN]


@pytest.mark.parametrize(
    ("lost", "cancels"),
    [(hang_up, 2), (answers(502), 2), (answers(202, RUNNING), 2), (answers(409), 1)],
)
async def test_what_was_canceled_is_not_sent_again(
    first: StandIn, second: StandIn, lost: Handler, cancels: int
) -> None:
    """The cancel comes while it is sent, and so before the prediction is known there. It is sent
    again if the prediction may run."""
    backend = backend_of(first.url, second.url, again=True)

    async def cut_off(request: web.Request) -> web.StreamResponse:
        await backend.cancel("p1")
        return await lost(request)

    first.script[PREDICT] = [cut_off]
    assert code(await backend.predict(Job("p1", {}), ignore)) == "canceled"
    await backend.close()
    assert sent(first, second) == [1, 0]
    assert len(first.of("POST", "/predictions/p1/cancel")) == cancels


@pytest.mark.parametrize("step", [200, 404, 500, hang_up])
async def test_a_cancel_reaches_every_entry(
    first: StandIn, second: StandIn, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another one does."""
    monkeypatch.setattr(http, "RETRY_FIRST_S", 0.01)
    first.script["POST /predictions/p1/cancel"] = [step]
    async with stand_in() as gone:
        pass
    backend = backend_of(gone.url, first.url, second.url)
    assert await backend.cancel("p1")
    await backend.close()
    assert first.of("POST", "/predictions/p1/cancel")
    assert len(second.of("POST", "/predictions/p1/cancel")) == 1


async def test_without_an_entry_it_goes_back_to_the_queue() -> None:
    """What was cut off as the last entry died may run again. The next start sends it once more,
    under its id."""
    async with stand_in() as only:

        async def dies(request: web.Request) -> web.StreamResponse:
            await only.stop_listening()
            return await hang_up(request)

        def process() -> RemoteProcess:
            return RemoteProcess(backend_of(only.url, again=True), guards, repeatable=True)

        guards = Guards(
            Allowance(None, SystemClock()),
            Breaker(SystemClock()),
            NotFoundWindow(SystemClock()),
            NotFoundWindow(SystemClock()),
        )
        only.script |= {PREDICT: [dies, SUCCEEDED], "GET /health-check": [{"status": "READY"}]}
        cut_off = process()
        await cut_off.start()
        assert not issubclass(MayHaveBegunError, NotStartedError)  # which is safe to run again
        with pytest.raises(MayHaveBegunError, match="cannot be reached"):
            await cut_off.predict(Job("p1", {}), ignore)
        assert "cannot be reached" in await cut_off.broken()
        await cut_off.stop(0.0)
        assert sent(only) == [1]

        await only.listen_again()
        again = process()
        await again.start()
        assert (await again.predict(Job("p1", {}), ignore)).output == {"x": 1}
        await again.stop(0.0)
        assert [s.json["id"] for s in only.of("POST", "/predictions")] == ["p1", "p1"]
