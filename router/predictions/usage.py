"""Counts what each key's holder uses: predictions, seconds on this machine, bytes; by day.

A listener of `router.observability.facts` adds up in memory, and a task writes the sums to disk
every FLUSH_S. So a router that is killed loses the sums of its last seconds, and no prediction
waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import orjson

from router.clock import Clock
from router.errors import RouterError
from router.observability.facts import Fact, Facts, PredictionEnded
from router.prediction import Json, Prediction, Status
from router.storage.usage_store import UsageRow, UsageStore

log = logging.getLogger(__name__)

FLUSH_S = 10.0
KEPT_DAYS = 366
# A longer string is counted without being written as JSON: it may be a picture of many megabytes.
LONG_CHARS = 1024


class Usage:
    """The sums. `runs_here`: whether a prediction ran on this machine. `local`: a time in seconds
    since the epoch as the clock on the wall shows it, which decides the day."""

    def __init__(
        self,
        store: UsageStore,
        clock: Clock,
        facts: Facts,
        *,
        runs_here: Callable[[Prediction], bool],
        local: Callable[[float], datetime] = datetime.fromtimestamp,
    ) -> None:
        self._store = store
        self._clock = clock
        self._facts = facts
        self._runs_here = runs_here
        self._local = local
        self._rows: dict[tuple[str, str, str], UsageRow] = {}
        self._writing = asyncio.Lock()
        self._write_task: asyncio.Task[RouterError | None] | None = None
        facts.add(self.note)

    def note(self, fact: Fact) -> None:
        """Count a prediction that has ended. This is a listener of `router.observability.facts`."""
        if not isinstance(fact, PredictionEnded):
            return
        p = fact.prediction
        run_s = 0.0
        if p.started_at is not None and p.completed_at is not None and self._runs_here(p):
            run_s = max(p.completed_at - p.started_at, 0.0)
        ended_at = p.completed_at or self._clock.time()
        self._add(
            UsageRow(
                day=f"{self._local(ended_at):%Y-%m-%d}",
                owner=p.owner,
                model=p.model,
                predictions=1,
                failed=int(p.status is Status.FAILED),
                canceled=int(p.status in (Status.CANCELED, Status.ABORTED)),
                run_s=run_s,
                input_bytes=fact.file_bytes + json_bytes(p.inputs),
                output_bytes=json_bytes(p.output),
            )
        )

    def _add(self, row: UsageRow) -> None:
        known = self._rows.setdefault((row.day, row.owner, row.model), row)
        if known is not row:
            known.add(row)

    async def flush(self) -> None:
        """Write what is not on disk yet. Raises InsufficientStorage; then nothing is lost."""
        self._facts.deliver()
        # In a task of its own: a caller that is cancelled while it writes must not count twice.
        self._write_task = asyncio.create_task(self._write())
        if error := await asyncio.shield(self._write_task):
            raise error

    async def _write(self) -> RouterError | None:
        async with self._writing:
            rows, self._rows = self._rows, {}
            if not rows:
                return None
            try:
                await self._store.add(list(rows.values()), self.day(KEPT_DAYS))
            except RouterError as error:
                for row in rows.values():
                    self._add(row)
                return error
            return None

    async def run(self) -> None:
        """Write regularly, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.save()

    async def save(self) -> None:
        """Write, and log when that is not possible now."""
        try:
            await self.flush()
        except RouterError as error:
            log.error("Cannot write usage: %s; trying again", error.message)

    async def close(self) -> None:
        """Write the rest, and count no more."""
        await self.save()
        self._facts.remove(self.note)

    async def read(self, since: str, owner: str | None) -> Sequence[UsageRow]:
        """The rows of that owner (None: of all) from that day on. Raises InsufficientStorage."""
        await self.flush()
        return await self._store.read(since, owner)

    def day(self, days_ago: int) -> str:
        """The day that was so many days before today."""
        return f"{self._local(self._clock.time()) - timedelta(days=days_ago):%Y-%m-%d}"


def json_bytes(value: Json) -> int:
    """The size of a value as JSON, to within the quotes of its long strings.

    >>> json_bytes({"a": [1, "b"]}), json_bytes("x" * 2000), json_bytes(None)
    (13, 2000, 0)
    """
    if value is None:
        return 0
    if isinstance(value, str) and len(value) > LONG_CHARS:
        return len(value)
    long = 0
    if isinstance(value, dict):
        found = {k: v for k, v in value.items() if not _is_long(v)}
        long = sum(len(v) for v in value.values() if _is_long(v))
        value = found
    elif isinstance(value, list):
        long = sum(len(v) for v in value if _is_long(v))
        value = [v for v in value if not _is_long(v)] if long else value
    try:
        return long + len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:  # nested deeper than orjson writes (254)
        return long


def _is_long(value: Json) -> bool:
    return isinstance(value, str) and len(value) > LONG_CHARS
