"""What the tests of predictions' lives share."""

from __future__ import annotations

from typing import Any

import pytest

from router.observability.facts import Fact, Facts
from router.prediction import Failure, FileRef, Outcome, Prediction, Status
from tests.router.fakes import World

DIED = Outcome(Status.FAILED, failure=Failure("worker_died", "gone"))
FILES = (FileRef("file", "/spool/1", "cat.png"),)


def made(prediction_id: str, **changes: Any) -> Prediction:
    """A durable prediction."""
    fields = {"durable": True, "created_at": 1000.0, **changes}
    return Prediction(prediction_id, "echo", {"n": 1}, **fields)


def with_file(prediction_id: str, **changes: Any) -> Prediction:
    """The same with a file among its inputs."""
    return made(prediction_id, **{"files": FILES, **changes})


def hear(world: World) -> list[Fact]:
    """The facts of all predictions from now on."""
    heard: list[Fact] = []
    world.router.predictions._facts = Facts([heard.append], delay_s=0)
    return heard


def forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that overflow forgets from now on."""
    ids: list[str] = []
    forget = world.router.predictions.overflow.forget

    def note(prediction_id: str) -> None:
        ids.append(prediction_id)
        forget(prediction_id)

    monkeypatch.setattr(world.router.predictions.overflow, "forget", note)
    return ids
