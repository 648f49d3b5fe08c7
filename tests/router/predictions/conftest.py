"""A router on each kind of store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.router.conftest import AnyStore
from tests.router.fakes import World


@pytest.fixture
async def world(any_store: AnyStore) -> AsyncIterator[World]:
    """A router that has just been started on an empty store."""
    world = World(any_store)
    await world.open()
    yield world
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
