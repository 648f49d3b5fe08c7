"""Work that nobody waits for: all of it, in its order, when nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from router.observability.facts import Observers
from router.observability.telemetry import Afterwards, Deferred, Telemetry
from router.prediction import Prediction, Status, advance

WAITING = Prediction("a", "echo", {}, created_at=10.0)
RUNNING = advance(WAITING, Status.PROCESSING, 12.0)


class Told(Observers):
    """What was told, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: list[str] = []

    def prediction_changed(self, p: Prediction) -> None:
        """Its status."""
        self.facts.append(p.status)

    def model_changed(self, model: str, state: str, reason: str = "") -> None:
        """Its state."""
        self.facts.append(state)


async def test_not_at_once_but_in_order() -> None:
    """Nothing while it is added; with a pause or without one, all of it soon."""
    done: list[int] = []
    afterwards = Afterwards()
    for i in range(3):
        afterwards.do(lambda i=i: done.append(i))  # type: ignore[misc]
    assert done == []
    async with asyncio.timeout(5):
        while len(done) < 3:
            await asyncio.sleep(0)
    assert done == [0, 1, 2]


async def test_what_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the rest is done."""
    done: list[int] = []
    afterwards = Afterwards()
    afterwards.do(lambda: 1 // 0)
    afterwards.do(lambda: done.append(1))
    afterwards.catch_up()
    assert done == [1]
    assert "what was put off failed" in caplog.text


def test_without_an_event_loop_it_is_done_at_once() -> None:
    """Nobody would come back to it."""
    done: list[int] = []
    Afterwards().do(lambda: done.append(1))
    assert done == [1]


async def test_a_prediction_that_starts_makes_the_pause() -> None:
    """What was put off is done two turns later: the task that hands the prediction to its model,
    begun right after the fact, has its first turn before that."""
    told = Told()
    observer = Deferred(told, Afterwards())
    observer.model_changed("echo", "ready")
    await asyncio.sleep(0)
    assert told.facts == []
    observer.prediction_changed(RUNNING)

    async def hand_over() -> None:
        told.facts.append("handed over")

    task = asyncio.create_task(hand_over())
    await task
    for _ in range(2):
        await asyncio.sleep(0)
    assert told.facts == ["handed over", "ready", "processing"]


async def test_whoever_looks_sees_everything() -> None:
    """Metrics as they are read, and events from the moment of the subscription."""
    telemetry = Telemetry()
    telemetry.events.open()
    telemetry.observer.request_ended("GET", "/health", 200, 0.001)
    telemetry.observer.model_changed("echo", "starting")
    line = 'callme_http_requests_total{method="GET",route="/health",status="200"} 1.0'
    assert line in telemetry.exposition().decode()
    telemetry.observer.model_changed("echo", "ready")
    subscription = telemetry.events.subscribe()
    telemetry.observer.model_changed("echo", "stopping", "idle")
    telemetry.afterwards.catch_up()
    assert subscription.events.get_nowait() == ("model", {"model": "echo", "state": "stopping"})
    assert subscription.events.empty()
    telemetry.close()
