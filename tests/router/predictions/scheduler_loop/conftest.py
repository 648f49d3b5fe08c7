"""A world for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.router.predictions.scheduler_loop.loop_world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A fresh world, closed at the end."""
    world = World()
    yield world
    for process in world.processes:
        if not process.ready.done():
            process.ready.set_result(None)
    await world.loop.close(grace_s=0)
