"""A back-end that does everything wrong at random: every prediction still has an end."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from router.clock import SystemClock
from router.models.process_interface import NotStartedError, StartError
from router.prediction import Job, Outcome
from router.remote.backend import Kind, RemoteOptions, make_backend, make_guards
from router.remote.process import RemoteProcess
from tests.router.remote.remote_stand_in import (
    StandIn,
    Step,
    answers,
    hang_up,
    hang_up_midway,
    never,
    stand_in,
)

pytestmark = pytest.mark.slow

SEED = 20
PREDICTIONS = 200
AT_ONCE = 8
GOOD: Step = {"id": "x", "status": "succeeded", "output": 1}
WRONG: list[Step] = [
    *(500, 502, 503, 409, 429, 401, 404, 422, 413, 303),
    *(b"", b"<html>", b"[1]", b'{"status": NaN}', b'{"status": "succ', b"\xff\xfe"),
    {"status": "failed", "error": None},
    {"status": "failed", "error": "InvalidInput: no"},
    {"status": "processing", "id": "x"},
    {"status": 7},
    answers(202, {"status": "starting"}),
    answers(503, None, Retry_After="nonsense"),
    answers(429, None, Retry_After="-5"),
    *(hang_up, hang_up_midway, never),
]


def shuffled(server: StandIn, dice: random.Random, path: str) -> None:
    """The next hundreds of answers to a path."""
    steps = [dice.choice(WRONG) if dice.random() < 0.7 else GOOD for _ in range(3000)]
    server.script[path] = steps


async def run_one(process: RemoteProcess, name: str) -> str:
    """How one prediction ended, as a code."""
    try:
        outcome: Outcome = await process.predict(Job(name, {}), lambda _: None)
    except NotStartedError:
        return "not_started"
    return outcome.failure.code if outcome.failure else "succeeded"


async def test_every_prediction_ends() -> None:
    """With an outcome or as never begun; nothing raises, nothing hangs, and it is of use again
    as soon as the back-end is."""
    dice = random.Random(SEED)
    ends: Counter[str] = Counter()
    async with stand_in() as server:
        shuffled(server, dice, "POST /predictions")
        server.script["GET /health-check"] = [{"status": "READY"}, 500, {"status": "READY"}]
        options = RemoteOptions(Kind.COG, (server.url,), timeout_s=0.4, start_timeout_s=1.0)
        guards = make_guards(options, SystemClock())
        for first in range(0, PREDICTIONS, AT_ONCE):
            process = RemoteProcess(make_backend(options), guards)
            try:
                await process.start()
            except StartError:
                ends["start_failed"] += 1
                continue
            names = [str(n) for n in range(first, first + AT_ONCE)]
            async with asyncio.timeout(60):
                ends.update(await asyncio.gather(*(run_one(process, n) for n in names)))
            await process.stop(0.0)
        server.script["POST /predictions"] = [GOOD]
        process = RemoteProcess(make_backend(options), guards)
        await process.start()
        assert await run_one(process, "last") == "succeeded"
        await process.stop(0.0)
    expected = {"succeeded", "backend_failed", "model_unavailable", "invalid_input"}
    assert expected <= set(ends), ends
    assert set(ends) <= {*expected, "prediction_failed", "deadline_exceeded", "not_started"}, ends
