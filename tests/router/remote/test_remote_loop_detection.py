"""A back-end is told which boxes a request came through, and heeded when it was one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from router import loop_detection
from router.clock import SystemClock
from router.models.process_interface import StartError
from router.prediction import Job
from router.remote.backend import Guards, Kind, RemoteOptions, make_backend
from router.remote.guard import Allowance, Breaker, NotFoundWindow
from router.remote.process import RemoteProcess
from tests.router.remote.remote_stand_in import StandIn, answers, stand_in

SUCCEEDED = {"id": "p1", "status": "succeeded", "output": {"x": 1}}


@pytest.fixture
async def other() -> AsyncIterator[StandIn]:
    """A server that does as it is told."""
    async with stand_in() as server:
        yield server


async def test_the_boxes_it_came_through_are_told(other: StandIn) -> None:
    """This one too; to a probe, which is nobody's request, this one alone."""
    other.script["POST /predictions"] = [SUCCEEDED]
    other.script["GET /health-check"] = [{"status": "READY"}]
    backend = make_backend(RemoteOptions(Kind.COG, (other.url,)))
    guards = Guards(
        Allowance(None, SystemClock()),
        Breaker(SystemClock()),
        NotFoundWindow(SystemClock()),
        NotFoundWindow(SystemClock()),
    )
    process = RemoteProcess(backend, guards)
    with loop_detection.coming_through("e" * 16):  # of the request that started it
        await process.start()
        outcome = await process.predict(Job("p1", {}, via="f" * 16), lambda _: None)
    await process.stop(0.0)
    assert outcome.output == {"x": 1}
    assert [s.headers[loop_detection.HEADER] for s in other.seen] == [
        loop_detection.BOX_ID,
        f"{'f' * 16}, {loop_detection.BOX_ID}",
    ]


async def test_a_circle_is_not_tried_again(other: StandIn) -> None:
    """Where it is asked whether it lives, and what it takes."""
    told = {"error": {"code": "loop_detected", "message": "no"}}
    other.script["GET /health-check"] = [answers(508, told)]
    other.script["GET /openapi.json"] = [answers(508, told)]
    backend = make_backend(RemoteOptions(Kind.COG, (other.url,)))
    for ask in (backend.probe, backend.schema):
        with pytest.raises(StartError, match="leads back to this box"):
            await ask()
    await backend.close()
    assert len(other.seen) == 2
