"""Who has used which model how much, by day, in an SQLite file of its own.

It is not in the database of predictions: that one may be moved away when it is damaged, and usage
is kept for a year. The file is opened for each call, so a file that was removed is made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from router.errors import InsufficientStorage

T = TypeVar("T")
USAGE_FILE = "usage.sqlite3"
BUSY_TIMEOUT_S = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day          TEXT NOT NULL,
    owner        TEXT NOT NULL,
    model        TEXT NOT NULL,
    predictions  INTEGER NOT NULL,
    failed       INTEGER NOT NULL,
    canceled     INTEGER NOT NULL,
    run_s        REAL NOT NULL,
    input_bytes  INTEGER NOT NULL,
    output_bytes INTEGER NOT NULL,
    PRIMARY KEY (day, owner, model)
) STRICT, WITHOUT ROWID
"""
ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, owner, model) DO UPDATE SET
    predictions = predictions + excluded.predictions, failed = failed + excluded.failed,
    canceled = canceled + excluded.canceled, run_s = run_s + excluded.run_s,
    input_bytes = input_bytes + excluded.input_bytes,
    output_bytes = output_bytes + excluded.output_bytes
"""
READ = "SELECT * FROM usage WHERE day >= ? AND (? IS NULL OR owner = ?) ORDER BY day, owner, model"


class UsageRow(Struct):
    """One day of one key's holder with one model.

    `day`: as YYYY-MM-DD. `owner`: the holder, "" for what was made without a key. `predictions`:
    those that ended, with those that failed or were canceled. `run_s`: seconds that they ran on
    this machine. `input_bytes`, `output_bytes`: of values, as JSON, and of files.
    """

    day: str
    owner: str
    model: str
    predictions: int = 0
    failed: int = 0
    canceled: int = 0
    run_s: float = 0.0
    input_bytes: int = 0
    output_bytes: int = 0

    def add(self, other: UsageRow) -> None:
        """Add the other's numbers."""
        self.predictions += other.predictions
        self.failed += other.failed
        self.canceled += other.canceled
        self.run_s += other.run_s
        self.input_bytes += other.input_bytes
        self.output_bytes += other.output_bytes

    def values(self) -> tuple[str | float, ...]:
        """All fields, in the order of the columns."""
        return tuple(getattr(self, name) for name in self.__struct_fields__)


NUMBERS = UsageRow.__struct_fields__[3:]


class UsageStore:
    """The file in the state folder. Every method raises InsufficientStorage when the file cannot be
    used."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def add(self, rows: Sequence[UsageRow], forget_before: str) -> None:
        """Add the rows to those of the same day, owner and model, all or none. Delete what is older
        than the day `forget_before`."""

        def write(c: sqlite3.Connection) -> None:
            c.execute("BEGIN IMMEDIATE")
            c.executemany(ADD, [row.values() for row in rows])
            c.execute("DELETE FROM usage WHERE day < ?", (forget_before,))
            c.execute("COMMIT")

        await self._do(write)

    async def read(self, since: str, owner: str | None) -> Sequence[UsageRow]:
        """The rows of that owner (None: of all) from the day `since` on, oldest first."""
        return await self._do(
            lambda c: [UsageRow(*row) for row in c.execute(READ, (since, owner, owner))]
        )

    async def _do(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        def work() -> T:
            with self._opened() as connection:
                return fn(connection)

        try:
            return await asyncio.to_thread(work)
        except (sqlite3.Error, OSError) as error:
            message = f"Cannot use {USAGE_FILE}: {error}"
            raise InsufficientStorage(message, retry_after_s=10) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(
            sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        ) as connection:
            self._path.chmod(0o600)
            connection.execute(SCHEMA)
            yield connection
