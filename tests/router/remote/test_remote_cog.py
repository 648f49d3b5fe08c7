"""Back-ends that speak Cog: real coglet servers, and servers that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from router.models.process_interface import MayHaveBegunError, NotStartedError, StartError
from router.prediction import Job, LogText, Outcome, Progress
from router.remote import cog, http
from router.remote.backend import Kind
from tests.router.remote.cog_backends import ASK, KEY, PREDICT, SUCCEEDED, backend_of, code, ignore
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


# ---- misbehaving ones ---------------------------------------------------------------------


@pytest.fixture
async def other() -> AsyncIterator[StandIn]:
    """A server that does as it is told."""
    async with stand_in() as server:
        yield server


async def run(server: StandIn, *steps: Step, timeout_s: float = 60.0) -> Outcome:
    """One prediction, `p1`, answered with these steps."""
    server.script[PREDICT] = list(steps)
    backend = backend_of(server.url, timeout_s=timeout_s)
    try:
        return await backend.predict(Job("p1", {"text": "hi"}), ignore)
    finally:
        await backend.close()


async def test_id_and_key_are_sent(other: StandIn) -> None:
    """The prediction keeps its id there; the key is a bearer key."""
    outcome = await run(other, SUCCEEDED)
    assert (outcome.output, outcome.predict_time_s) == ({"x": 1}, 2.0)
    (seen,) = other.of("POST", "/predictions")
    assert seen.json == {"id": "p1", "input": {"text": "hi"}}
    assert seen.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (508, "loop_detected"),
        (500, "backend_failed"),
        (502, "backend_failed"),
        (504, "backend_failed"),
        (524, "backend_failed"),
        (301, "backend_failed"),
        (401, "model_unavailable"),
        (403, "model_unavailable"),
        (404, "model_unavailable"),
        (402, "model_unavailable"),
        (413, "invalid_input"),
        (422, "invalid_input"),
        (b"<html>It works!</html>", "backend_failed"),
        (b"", "backend_failed"),
        (b"[]", "backend_failed"),
        (b'{"status": "succeeded", "output": NaN}', "backend_failed"),
        (b'{"output": 1}', "backend_failed"),
        (b'{"status": "weird"}', "backend_failed"),
        ({"status": "failed", "error": "Prediction failed: boom"}, "prediction_failed"),
        ({"status": "canceled"}, "canceled"),
        (hang_up, "backend_failed"),
        (hang_up_midway, "backend_failed"),
    ],
)
async def test_no_answer_raises(other: StandIn, step: Step, expected: str) -> None:
    """Whatever comes is an outcome with a code, and is sent once: it may have begun."""
    outcome = await run(other, step)
    assert code(outcome) == expected
    assert len(other.of("POST", "/predictions")) == 1


async def test_one_that_never_answers(other: StandIn) -> None:
    """Ends with the time limit, and is cancelled there."""
    outcome = await run(other, never, timeout_s=0.3)
    assert code(outcome) == "deadline_exceeded"
    assert other.of("POST", "/predictions/p1/cancel")


async def test_nobody_there() -> None:
    """A refused connection is the one failure that is certainly safe: it may wait again."""
    async with stand_in() as server:
        url = server.url
    backend = backend_of(url)
    with pytest.raises(NotStartedError, match="cannot be reached") as told:
        await backend.predict(Job("p1", {}), ignore)
    assert "127.0.0.1" not in str(told.value)
    assert "refused" in str(told.value)
    assert isinstance(told.value.__cause__, http.NotSentError)
    with pytest.raises(StartError, match="cannot be reached"):
        await backend.probe()
    await backend.close()


@pytest.mark.parametrize("status", [404, 409, 429, 503])
async def test_a_refusal_is_told_from_a_failure(other: StandIn, status: int) -> None:
    """Nothing has begun, so who has time may wait. After a cut-off something may have."""
    refused = answers(status, {"error": {"code": "id_conflict", "message": "no"}})
    outcome = await run(other, refused)
    assert (code(outcome), outcome.refused) == ("model_unavailable", True)
    other.script["GET /predictions/p1"] = [answers(404, None)]
    other.script["POST /predictions"] = [answers(502, None), refused]
    backend = backend_of(other.url, again=True)
    with pytest.raises(MayHaveBegunError):
        await backend.predict(Job("p1", {}), ignore)
    await backend.close()


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_what_waiting_cannot_help_is_a_failure(other: StandIn, status: int) -> None:
    """A key that is not accepted, or that has not paid."""
    assert not (await run(other, answers(status, None))).refused


@pytest.mark.parametrize("status", [429, 503])
async def test_not_now_is_tried_again(other: StandIn, status: int) -> None:
    """As often as is decent; what is still refused then is 503 with its own words."""
    not_now = answers(status, {"error": {"code": "queue_full", "message": "full up"}})
    assert (await run(other, not_now, not_now, SUCCEEDED)).output == {"x": 1}
    outcome = await run(other, not_now)
    assert code(outcome) == "model_unavailable"
    assert outcome.failure is not None
    assert "full up" in outcome.failure.message
    assert len(other.of("POST", "/predictions")) == 3 + http.TRIES


async def test_retry_after_is_heeded(other: StandIn) -> None:
    """In a caller's name for some seconds; who is to wait longer than that, or than it has time
    for, is told so at once."""
    for asked_s, timeout_s in ((3600, 60.0), (20, 10.0)):
        before = len(other.of("POST", "/predictions"))
        later = answers(503, None, Retry_After=str(asked_s))
        outcome = await run(other, later, timeout_s=timeout_s)
        assert code(outcome) == "model_unavailable"
        assert outcome.failure is not None
        assert outcome.failure.retry_after_s == asked_s
        assert len(other.of("POST", "/predictions")) == before + 1
    soon = answers(503, None, Retry_After="0.1")
    assert (await run(other, soon, SUCCEEDED)).output == {"x": 1}


async def test_a_boxs_own_back_end_says_when(other: StandIn) -> None:
    """Cog's API answers 200 with a prediction that failed, Retry-After beside it."""
    failed = {"id": "p1", "status": "failed", "error": "x", "error_code": "model_unavailable"}
    outcome = await run(other, answers(200, failed, Retry_After="90"))
    assert outcome.failure is not None
    assert outcome.failure.retry_after_s == 90


async def test_not_even_there_yet(other: StandIn) -> None:
    """A start that fails says when another is worth it."""
    backend = backend_of(other.url)
    for path, ask in (("/health-check", backend.probe), ("/openapi.json", backend.schema)):
        other.script[f"GET {path}"] = [answers(503, None, Retry_After="90")]
        with pytest.raises(StartError) as refusal:
            await ask()
        assert refusal.value.retry_after_s == 90
    for status, is_away in ((503, True), (404, True), (401, False), (508, False)):
        other.script["GET /health-check"] = [answers(status, None)]
        with pytest.raises(StartError) as refusal:
            await backend.probe()
        assert refusal.value.outage is is_away
    await backend.close()


async def test_busy_is_waited_for(other: StandIn) -> None:
    """409: its slot is somebody else's, or not yet freed."""
    assert (await run(other, *[409] * 5, SUCCEEDED)).output == {"x": 1}


async def test_an_id_that_is_taken_is_not_waited_for(other: StandIn) -> None:
    """Another box of ours says 409 for that too, and would go on saying it."""
    conflict = answers(409, {"error": {"code": "id_conflict", "message": "taken"}})
    assert code(await run(other, conflict)) == "model_unavailable"
    assert len(other.of("POST", "/predictions")) == 1


async def test_accepted_is_followed(other: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """202, as another box of ours says after 85 s: asked for until it has ended, its log told
    as it grows."""
    monkeypatch.setattr(cog, "POLL_FIRST_S", 0.01)
    running = {"id": "p1", "status": "processing"}
    other.script[ASK] = [{**running, "logs": "a\n"}, {**running, "logs": "a\nb\n"}, SUCCEEDED]
    other.script[PREDICT] = [answers(202, running)]
    told: list[Progress] = []
    backend = backend_of(other.url)
    outcome = await backend.predict(Job("p1", {}), told.append)
    await backend.close()
    assert outcome.output == {"x": 1}
    assert told == [LogText("a\n"), LogText("b\n")]


async def test_a_lost_connection_is_taken_up_again(other: StandIn) -> None:
    """A box that knows the id is asked what became of it; nothing is sent twice."""
    other.script[ASK] = [hang_up, SUCCEEDED]
    outcome = await run(other, hang_up_midway)
    assert outcome.output == {"x": 1}
    assert len(other.of("POST", "/predictions")) == 1


async def test_modals_redirect_is_followed(other: StandIn) -> None:
    """After 150 s Modal sends the client elsewhere on the same host, several times."""
    there = answers(303, None, Location="/predictions?__modal_function_call_id=fc-1")
    other.script["GET /predictions"] = [there, SUCCEEDED]
    other.script[PREDICT] = [there]
    backend = backend_of(other.url, kind=Kind.MODAL, key="wk-1:ws-1")
    outcome = await backend.predict(Job("p1", {}), ignore)
    await backend.close()
    assert outcome.output == {"x": 1}
    assert {s.headers["Modal-Key"] for s in other.seen} == {"wk-1"}
    assert {s.headers["Modal-Secret"] for s in other.seen} == {"ws-1"}


async def test_the_key_goes_nowhere_else(other: StandIn) -> None:
    """A redirect to another host is not followed."""
    async with stand_in() as elsewhere:
        elsewhere.script["GET /x"] = [SUCCEEDED]
        outcome = await run(other, answers(303, None, Location=f"{elsewhere.url}/x"))
        assert elsewhere.seen == []
    assert code(outcome) == "backend_failed"


async def test_modal_is_asked_for_predictions_only(other: StandIn) -> None:
    """Its health, or a cancel, would start a container when the others are busy."""
    backend = backend_of(other.url, kind=Kind.MODAL)
    await backend.probe()
    assert not await backend.cancel("p1")
    await backend.close()
    assert other.seen == []


async def test_a_server_that_sets_itself_up_is_waited_for(
    other: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one whose set-up failed is not."""
    monkeypatch.setattr(cog, "PROBE_EVERY_S", 0.01)
    starting: Step = {"status": "STARTING"}
    other.script["GET /health-check"] = [starting, starting, starting, {"status": "READY"}]
    backend = backend_of(other.url)
    await backend.probe()
    assert len(other.seen) == 4
    refusals: list[tuple[Step, str]] = [
        ({"status": "SETUP_FAILED"}, "SETUP_FAILED"),
        (b"<html>", "not a Cog server"),
        (401, "does not accept the router's key"),
        (404, "no such model"),
    ]
    for step, told in refusals:
        other.script["GET /health-check"] = [step]
        with pytest.raises(StartError, match=told):
            await backend.probe()
    await backend.close()


async def test_an_answer_without_end(other: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is cut off, not kept in memory."""
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1 << 20)

    async def pours(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * (1 << 16))
        return response

    assert code(await run(other, pours)) == "backend_failed"


async def test_metrics_and_context(other: StandIn) -> None:
    """The runner there gets the context of the request, and what it records comes back."""
    metrics = {"predict_time": 2, "tokens": 3, "timing": {"load": 0.1}}
    other.script[PREDICT] = [{**SUCCEEDED, "metrics": metrics}]
    backend = backend_of(other.url)
    try:
        outcome = await backend.predict(Job("p1", {}, context={"region": "eu"}), ignore)
        assert outcome.metrics == {"tokens": 3, "timing": {"load": 0.1}}
        assert outcome.predict_time_s == 2
        await backend.predict(Job("p1", {}), ignore)
    finally:
        await backend.close()
    with_context, without = other.of("POST", "/predictions")
    assert with_context.json["context"] == {"region": "eu"}
    assert "context" not in without.json
