"""Predictions on disk: what SQLite adds to the contract (tests/router/test_store_contract.py)."""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from router.errors import InsufficientStorage
from router.prediction import FileRef, Prediction
from router.storage import sqlite_store
from router.storage.prediction_rows import encode
from router.storage.sqlite_store import SqliteStore, StoreUnusableError


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    store = SqliteStore(tmp_path / "p.sqlite3")
    yield store
    await store.close()


def made(prediction_id: str, created_at: float = 1.0) -> Prediction:
    """A prediction that waits."""
    files = (FileRef("image", "/spool/x.png", "cat.png"),)
    return Prediction(prediction_id, "echo", {"n": 1, "s": "é"}, created_at, files)


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    """Another store on the same file finds what was put."""
    first = SqliteStore(tmp_path / "p.sqlite3")
    await first.put(made("a"))
    second = SqliteStore(tmp_path / "p.sqlite3")  # the first is not closed: as after kill -9
    assert await second.get("a") == made("a")
    await first.close()
    await second.close()


async def test_documents_name_the_remote_as_ever(store: SqliteStore) -> None:
    """The field is `home`, in new documents and in those of earlier versions."""
    p = replace(made("a"), remote_name="m@modal")
    assert msgspec.json.decode(encode(p))["home"] == "m@modal"
    await store.put(p)
    assert await store.get("a") == p


async def test_an_earlier_versions_rows_have_owners(tmp_path: Path) -> None:
    """A database from before predictions were listed by owner lists them so, but for a row that
    cannot be read."""
    path = tmp_path / "p.sqlite3"
    store = SqliteStore(path)
    await store.put(replace(made("a"), owner="ann"))
    await store.put(replace(made("b"), owner="bob"))
    await store.close()
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(
        "DROP INDEX predictions_owner; ALTER TABLE predictions DROP COLUMN owner;"
        "INSERT INTO predictions (id, model, status, created_at, document)"
        " VALUES ('bad', 'm', 'starting', 0.5, x'7b'); PRAGMA user_version = 2;"
    )
    old.close()
    store = SqliteStore(path)
    for owner, ids in (("ann", ["a"]), ("bob", ["b"]), ("", []), (None, ["b", "a"])):
        assert [p.id for p in await store.page(owner)] == ids
    await store.close()


async def test_a_lock_is_told_and_gets_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another program holds the file, InsufficientStorage; afterwards it works again."""
    monkeypatch.setattr("router.storage.sqlite_store.BUSY_TIMEOUT_S", 0.05)
    store = SqliteStore(tmp_path / "p.sqlite3")
    other = sqlite3.connect(tmp_path / "p.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InsufficientStorage):
        await store.put(made("a"))
    other.execute("ROLLBACK")
    await store.put(made("a"))
    assert await store.get("a") == made("a")
    other.close()
    await store.close()


async def test_a_full_disk_is_told_and_gets_over(store: SqliteStore) -> None:
    """SQLite's own page limit stands in for a full disk."""
    await store._do(lambda c: c.execute("PRAGMA max_page_count = 8"))
    with pytest.raises(InsufficientStorage):
        await store.put(replace(made("a"), logs="x" * 100_000))
    await store._do(lambda c: c.execute("PRAGMA max_page_count = 100000"))
    await store.put(replace(made("a"), logs="x" * 100_000))


LONG = {"text": "é" * 100_000}


async def test_a_long_text(store: SqliteStore) -> None:
    """Claimed once, replaced by a longer and by a shorter one, announced, deleted."""
    first = replace(made("a"), inputs=LONG)
    assert await store.claim(first)
    assert not await store.claim(replace(first, model="other"))
    assert await store.get("a") == first
    for p in (replace(first, output="x" * 300_000), made("a"), first):
        await store.put(p, announce_at=5.0)
        assert await store.get("a") == p
    assert [d.prediction_id for d in await store.deliveries()] == ["a"]
    await store.delete("a")
    assert await store.get("a") is None


async def test_a_long_text_on_a_full_disk(store: SqliteStore) -> None:
    """The row is as it was, with its text."""
    before = replace(made("a"), inputs=LONG)
    await store.put(before)
    await store._do(lambda c: c.execute("PRAGMA max_page_count = 1"))
    for announce_at in (None, 5.0):
        with pytest.raises(InsufficientStorage):
            await store.put(replace(before, output="x" * 300_000), announce_at)
    with pytest.raises(InsufficientStorage):
        await store.claim(replace(before, id="b"))
    assert await store.get("a") == before
    assert await store.get("b") is None
    assert not await store.deliveries()


async def test_what_was_written_is_let_go(store: SqliteStore) -> None:
    """The thread that waits for the next statement holds nothing of the last: a text may be
    a megabyte."""

    class Inputs(dict[str, str]):
        """A dict that can be referred to weakly."""

    inputs = Inputs(text="x")
    held = weakref.ref(inputs)
    await store.put(replace(made("a"), inputs=inputs))
    del inputs
    for _ in range(200):
        if held() is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is still held")


async def test_a_cancelled_caller_breaks_nothing(store: SqliteStore) -> None:
    """The transaction is done all the same, and the next caller is served."""
    task = asyncio.create_task(store.put(made("a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.put(made("b"))
    assert await store.get("b") == made("b")


async def test_a_page_of_large_results_is_cut(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page holds some PAGE_BYTES, but always one prediction."""
    monkeypatch.setattr("router.storage.sqlite_store.PAGE_BYTES", 5000)
    for i in range(5):
        await store.put(replace(made(f"p{i}", float(i)), output="x" * 3000))
    assert [p.id for p in await store.page(None)] == ["p4", "p3"]
    await store.put(replace(made("p9", 9.0), output="x" * 9000))
    assert [p.id for p in await store.page(None)] == ["p9"]


async def test_one_row_that_cannot_be_read_costs_no_other(store: SqliteStore) -> None:
    """It is left out of everything, and said in the log."""
    await store.put(made("good"))
    await store._do(
        lambda c: c.execute(
            "INSERT INTO predictions (id, model, status, created_at, document)"
            " VALUES ('bad', 'm', 'starting', 0.5, x'7b7d')"
        )
    )
    assert [p.id for p in await store.unfinished()] == ["good"]
    assert await store.get("bad") is None


async def test_a_large_file_is_looked_at_for_some_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start does not take minutes: what is seen in time decides."""
    monkeypatch.setattr(sqlite_store, "CHECK_S", -1.0, raising=False)
    monkeypatch.setattr(sqlite_store, "CHECK_STEPS", 1, raising=False)
    store = SqliteStore(tmp_path / "p.sqlite3")
    assert await store.problem() == ""
    await store.close()


async def test_a_file_that_is_removed_is_begun_again(tmp_path: Path) -> None:
    """A connection to a file without a name would take what nobody finds later."""
    path = tmp_path / "p.sqlite3"
    store = SqliteStore(path)
    for file in tmp_path.glob("p.sqlite3*"):
        file.unlink()
    assert await store.problem() == ""
    await store.put(Prediction("a", "echo", {}, created_at=1.0))
    await store.close()
    again = SqliteStore(path)
    assert await again.get("a") is not None
    await again.close()


@pytest.mark.slow
async def test_damage_is_told_when_it_is_met(tmp_path: Path) -> None:
    """Each call that meets it fails, and the problem names the file and what to do."""
    path = tmp_path / "p.sqlite3"
    store = SqliteStore(path)
    for n in range(200):
        await store.put(Prediction(f"p{n}", "echo", {"x": "x" * 30_000}, created_at=float(n)))
    await store.close()
    store = SqliteStore(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(InsufficientStorage):
        await store.unfinished()
    problem = await store.problem()
    assert "p.sqlite3 is damaged" in problem
    assert "move it away" in problem
    await store.close()
    with pytest.raises(StoreUnusableError, match="move it away"):
        SqliteStore(path)
