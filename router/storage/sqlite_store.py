"""Predictions in SQLite: one thread owns the one connection that writes and reads.

Callers give the thread a function and await its result. So a caller that is cancelled cannot leave
a transaction half done, and the event loop never waits for the disk. It uses the standard library's
sqlite3; docs/decisions/storage.md says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, TypeVar

import orjson

from router.errors import InsufficientStorage
from router.prediction import Delivery, FileRef, Prediction
from router.storage.prediction_rows import OR_NOTHING, OR_REPLACE, decode, transaction, write
from router.storage.store import Cursor, StoredFile

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], None]

SCHEMA_VERSION = 3
SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    id           TEXT PRIMARY KEY,
    model        TEXT NOT NULL,
    status       TEXT NOT NULL,
    created_at   REAL NOT NULL,
    completed_at REAL,
    document     BLOB NOT NULL,
    owner        TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS predictions_unfinished
    ON predictions (created_at) WHERE completed_at IS NULL;
CREATE INDEX IF NOT EXISTS predictions_completed
    ON predictions (completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS predictions_created ON predictions (created_at, id);
CREATE TABLE IF NOT EXISTS files (
    id         TEXT PRIMARY KEY,
    created_at REAL NOT NULL,
    document   BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS outbox (
    prediction_id TEXT PRIMARY KEY,
    attempts      INTEGER NOT NULL,
    due_at        REAL NOT NULL
) STRICT;
"""
# Added by version 3. The index on the column can only be made after it.
ADD_OWNER = """
ALTER TABLE predictions ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE predictions SET owner = coalesce(json_extract(CAST(document AS TEXT), '$.owner'), '')
    WHERE json_valid(CAST(document AS TEXT));
"""
OWNER_INDEX = """
CREATE INDEX IF NOT EXISTS predictions_owner ON predictions (owner, created_at, id)
"""
ANNOUNCE = """
INSERT INTO outbox (prediction_id, attempts, due_at) VALUES (?, ?, ?)
ON CONFLICT (prediction_id) DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at
"""
SWEEP = "DELETE FROM predictions WHERE completed_at < ? RETURNING document"
SWEEP_OUTBOX = "DELETE FROM outbox WHERE prediction_id NOT IN (SELECT id FROM predictions)"
PAGE = "SELECT document FROM predictions"
OF_OWNER, OLDER, NEWER = "owner = ?", "(created_at, id) < (?, ?)", "(created_at, id) > (?, ?)"
NEWEST_FIRST = "ORDER BY created_at DESC, id DESC LIMIT ?"
OLDEST_FIRST = "ORDER BY created_at, id LIMIT ?"
# A page ends at this size even if it has fewer predictions than asked for: outputs may be pictures
# of some megabytes each.
PAGE_BYTES = 8 << 20
# How long a statement waits for another program's lock on the file.
BUSY_TIMEOUT_S = 5.0

# At its start the store looks for damaged pages for this long. It reads the clock after
# every CHECK_STEPS steps of SQLite's virtual machine.
CHECK_S = 10.0
CHECK_STEPS = 100_000
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class StoreUnusableError(RuntimeError):
    """The database cannot be opened. The message says what to do."""


class SqliteStore:
    """Implements `Store`, `UploadIndex` and `Outbox` of `router.storage.store`. The constructor
    opens the file, or makes it. Raises StoreUnusableError when it cannot."""

    def __init__(self, path: Path) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._path = path
        self._damage = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusableError(
                f"Cannot start: {path.name} in the state folder cannot be used "
                f"({self._in_words(error)}); move it away to start with an empty one"
            ) from error
        self._thread = threading.Thread(target=self._work, name="sqlite", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        self._connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._path.chmod(0o600)
        self._prepare()
        self._check()
        self._identity = self._identify()
        self._damage = ""

    def _identify(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _in_words(self, error: Exception) -> str:
        if self._path.is_dir():
            return "it is a folder"
        return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)

    def _check(self) -> None:
        """Raises DatabaseError when a page is damaged. The check ends after CHECK_S, so a large
        file is checked in part."""
        until = time.monotonic() + CHECK_S
        self._connection.set_progress_handler(lambda: time.monotonic() > until, CHECK_STEPS)
        try:
            (result,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            log.info("the database is large and was checked in part")
            return
        finally:
            self._connection.set_progress_handler(None, 0)
        if result != "ok":
            raise sqlite3.DatabaseError(f"it is damaged: {' '.join(result.split())}")

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        # FULL: an acknowledged prediction survives a power cut, not only a crash.
        self._connection.execute("PRAGMA synchronous = FULL")
        # 512 KiB are enough: the operating system caches the file too.
        self._connection.execute("PRAGMA cache_size = -512")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"it is of a later version, {version}")
        self._connection.executescript(SCHEMA)
        columns = self._connection.execute("PRAGMA table_info(predictions)").fetchall()
        if "owner" not in {column[1] for column in columns}:
            self._connection.executescript(f"BEGIN IMMEDIATE;{ADD_OWNER}COMMIT;")
        self._connection.execute(OWNER_INDEX)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    async def put(self, prediction: Prediction, announce_at: float | None = None) -> None:
        """See `Store.put`."""
        # The thread encodes the rows, one at a time: a row of a megabyte takes milliseconds.
        if announce_at is None:
            await self._do(lambda c: write(c, prediction, OR_REPLACE))
            return
        due = (prediction.id, 0, announce_at)

        def both(c: sqlite3.Connection) -> None:
            with transaction(c):
                write(c, prediction, OR_REPLACE)
                c.execute(ANNOUNCE, due)

        await self._do(both)

    async def claim(self, prediction: Prediction) -> bool:
        """See `Store.claim`."""
        return await self._do(lambda c: write(c, prediction, OR_NOTHING))

    async def get(self, prediction_id: str) -> Prediction | None:
        """See `Store.get`."""
        found = await self._do(
            lambda c: c.execute(
                "SELECT document FROM predictions WHERE id = ?", (prediction_id,)
            ).fetchone()
        )
        return decode(found[0]) if found else None

    async def delete(self, prediction_id: str) -> None:
        """See `Store.delete`."""
        await self._do(
            lambda c: c.execute("DELETE FROM predictions WHERE id = ?", (prediction_id,))
        )

    async def unfinished(self) -> Sequence[Prediction]:
        """See `Store.unfinished`."""
        rows = await self._do(
            lambda c: c.execute(
                "SELECT document FROM predictions WHERE completed_at IS NULL ORDER BY created_at"
            ).fetchall()
        )
        return [p for r in rows if (p := decode(r[0]))]

    async def page(
        self,
        owner: str | None,
        *,
        before: Cursor | None = None,
        after: Cursor | None = None,
        limit: int = 100,
    ) -> Sequence[Prediction]:
        """See `Store.page`. A page ends with the prediction that makes it larger than
        PAGE_BYTES."""
        statement, values = _page_query(owner, before, after)
        values = (*values, limit)

        def read(c: sqlite3.Connection) -> list[bytes]:
            documents: list[bytes] = []
            for (document,) in c.execute(statement, values):
                documents.append(document)
                if sum(map(len, documents)) > PAGE_BYTES:
                    break
            return documents

        documents = await self._do(read)
        ordered = reversed(documents) if after else documents
        return [p for d in ordered if (p := decode(d))]

    async def sweep(self, completed_before: float) -> Sequence[FileRef]:
        """See `Store.sweep`."""

        def both(c: sqlite3.Connection) -> list[tuple[bytes]]:
            with transaction(c):
                swept = c.execute(SWEEP, (completed_before,)).fetchall()
                if swept:
                    c.execute(SWEEP_OUTBOX)
                return swept

        rows = await self._do(both)
        swept = [p for r in rows if (p := decode(r[0]))]
        return [f for p in swept for f in (*p.files, *(o.ref() for o in p.output_files))]

    async def ended_ids(self) -> Collection[str]:
        """See `Store.ended_ids`."""
        rows = await self._do(
            lambda c: c.execute(
                "SELECT id FROM predictions WHERE completed_at IS NOT NULL"
            ).fetchall()
        )
        return {r[0] for r in rows}

    async def deliveries(self) -> Sequence[Delivery]:
        """See `Outbox.deliveries`."""
        rows = await self._do(
            lambda c: c.execute("SELECT prediction_id, attempts, due_at FROM outbox").fetchall()
        )
        return [Delivery(*row) for row in rows]

    async def postpone(self, delivery: Delivery) -> None:
        """See `Outbox.postpone`."""
        await self._do(lambda c: c.execute(ANNOUNCE, astuple(delivery)))

    async def delivered(self, prediction_id: str) -> None:
        """See `Outbox.delivered`."""
        await self._do(
            lambda c: c.execute("DELETE FROM outbox WHERE prediction_id = ?", (prediction_id,))
        )

    async def put_file(self, file: StoredFile) -> None:
        """See `UploadIndex.put_file`."""
        row = (file.id, file.created_at, orjson.dumps(asdict(file)))
        await self._do(lambda c: c.execute("INSERT INTO files VALUES (?, ?, ?)", row))

    async def get_file(self, file_id: str) -> StoredFile | None:
        """See `UploadIndex.get_file`."""
        found = await self._do(
            lambda c: c.execute("SELECT document FROM files WHERE id = ?", (file_id,)).fetchone()
        )
        return StoredFile(**orjson.loads(found[0])) if found else None

    async def list_files(self) -> Sequence[StoredFile]:
        """See `UploadIndex.list_files`."""
        rows = await self._do(
            lambda c: c.execute("SELECT document FROM files ORDER BY created_at DESC").fetchall()
        )
        return [StoredFile(**orjson.loads(r[0])) for r in rows]

    async def delete_file(self, file_id: str) -> None:
        """See `UploadIndex.delete_file`."""
        await self._do(lambda c: c.execute("DELETE FROM files WHERE id = ?", (file_id,)))

    async def _do(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(set_it: Callable[..., None], value: Any) -> None:
            if not done.done():
                set_it(value)

        def work(connection: sqlite3.Connection) -> None:
            try:
                value = fn(connection)
            except sqlite3.Error as error:
                # A full disk, a read-only file, a lock that is held too long: a later try may work.
                if getattr(error, "sqlite_errorcode", None) in DAMAGED:
                    self._damage = str(error)
                failure = InsufficientStorage(f"Cannot use the database: {error}", retry_after_s=10)
                failure.__cause__ = error
                report = (done.set_exception, failure)
            except Exception as error:  # a bug must not end the thread
                report = (done.set_exception, error)  # type: ignore[assignment]
            else:
                report = (done.set_result, value)  # type: ignore[assignment]
            # RuntimeError: the event loop is closed, as the caller's program is ending.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, *report)

        self._queue.put(work)
        return await done

    async def problem(self) -> str:
        """What is wrong with the file, as a sentence; "" when no problem is known.

        A file that was removed or replaced is opened again, or made. The old connection would write
        results to a file without a name, and after a restart they would be lost.
        """
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def settle(problem: str) -> None:
            if not done.done():
                done.set_result(problem)

        def work(_: sqlite3.Connection) -> None:
            problem = self._look()
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, problem)

        self._queue.put(work)
        return await done

    def _look(self) -> str:
        name = self._path.name
        if self._identity is None or self._identify() != self._identity:
            log.error("%s was removed or replaced while the router ran; it is opened again", name)
            self._connection.close()
            self._identity = None
            try:
                self._open()
            except (sqlite3.Error, OSError) as error:
                self._connection.close()
                return f"{name} cannot be opened: {self._in_words(error)}"
        if self._damage:
            return f"{name} is damaged ({self._damage}): stop the router and move it away"
        return ""

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work(self._connection)
            del work  # it may hold a prediction with a megabyte of text


def _page_query(
    owner: str | None, before: Cursor | None, after: Cursor | None
) -> tuple[str, tuple[Any, ...]]:
    """The statement and its values, except the value of its limit. Each part of the statement is
    one of the constants above."""
    conditions: list[str] = []
    values: list[Any] = []
    if owner is not None:
        conditions.append(OF_OWNER)
        values.append(owner)
    for condition, cursor in ((OLDER, before), (NEWER, after)):
        if cursor is not None:
            conditions.append(condition)
            values += cursor
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = NEWEST_FIRST if after is None else OLDEST_FIRST
    return f"{PAGE} {where} {order}", tuple(values)
