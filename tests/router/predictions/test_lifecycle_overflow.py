"""A model that overflows: a prediction's steps at its remote, and after a restart."""

from __future__ import annotations

from typing import Any

from router.prediction import Prediction, Status
from router.predictions.overflow import OverflowRule
from tests.router.conftest import AnyStore
from tests.router.fakes import GOOD, World
from tests.waiting import until

REMOTE = "echo@there"
AFTER_S = 200.0


def made(prediction_id: str, **changes: Any) -> Prediction:
    """A durable prediction."""
    return Prediction(prediction_id, "echo", {"n": 1}, created_at=1000.0, durable=True, **changes)


async def test_where_each_runs(any_store: AnyStore) -> None:
    """One that has waited too long runs at the remote. The row says where it began, and after a
    restart it goes there again, though this machine is free. The counts name the place."""
    world = World(any_store, OverflowRule(REMOTE, AFTER_S))
    await world.open()
    await world.router.predictions.create(made("here"))
    await world.running("here")
    await world.router.predictions.create(made("there"))
    world.clock.advance(AFTER_S - 0.1)
    assert world.router.remote.jobs == []
    world.clock.advance(0.1)
    await until(lambda: "there" in world.router.remote.answers)
    stored = [await world.stored(name, Status.PROCESSING) for name in ("here", "there")]
    assert [p.remote_name for p in stored] == ["", REMOTE]
    world.answer("here")
    await world.stored("here", Status.SUCCEEDED)
    await world.kill_and_restart()
    await until(lambda: "there" in world.router.remote.answers)
    assert (await world.stored("there", Status.PROCESSING)).attempts == 2
    world.router.remote.answers["there"].set_result(GOOD)
    await world.stored("there", Status.SUCCEEDED)
    overflow = world.router.predictions.overflow
    assert [overflow.record(place) for place in ("echo", REMOTE)] == [(0, []), (1, ["there"])]
