"""What the router's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.storage.sqlite_store import SqliteStore
from tests.router.memory_store import MemoryStore

AnyStore = MemoryStore | SqliteStore


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyStore]:
    """An empty store, of each kind: whatever holds for one holds for the other."""
    store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "p.sqlite3")
    yield store
    await store.close()
