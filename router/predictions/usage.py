"""Counts what each key's holder uses: predictions, seconds on this machine, bytes; by day.

A listener of `router.observability.facts` adds up in memory, and a task writes the sums to disk
every FLUSH_S. So a router that is killed loses the sums of its last seconds, and no prediction
waits for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import orjson

from router.clock import Clock
from router.errors import RouterError
from router.observability.facts import Facts, PredictionEnded
from router.prediction import Json, Prediction, Status
from router.storage.usage_store import UsageRow, UsageStore

log = logging.getLogger(__name__)

FLUSH_S = 10.0
KEPT_DAYS = 366
DEFAULT_DAYS = 30  # that are shown, unless somebody asks for another number
SHORT = 4096  # so many characters are encoded to be counted: that is quick
SIMPLE = frozenset({int, float, bool, type(None)})
MOST_LOOKED_AT = 200  # values of one input or output that are measured one by one


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
        self._last_minute = (-1, "")  # since the epoch, and its day
        self._writing = asyncio.Lock()
        self._write_task: asyncio.Task[RouterError | None] | None = None
        facts.add(self.note, PredictionEnded)

    def note(self, fact: PredictionEnded) -> None:
        """Count a prediction that has ended. This is a listener of `router.observability.facts`."""
        p = fact.prediction
        run_s = 0.0
        if p.started_at is not None and p.completed_at is not None and self._runs_here(p):
            run_s = max(p.completed_at - p.started_at, 0.0)
        ended_at = p.completed_at or self._clock.time()
        minute = int(ended_at // 60)  # a day begins with a minute, in every time zone
        if minute != self._last_minute[0]:
            self._last_minute = (minute, f"{self._local(minute * 60.0):%Y-%m-%d}")
        key = (self._last_minute[1], p.owner, p.model)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = UsageRow(*key)
        row.predictions += 1
        row.failed += p.status is Status.FAILED
        row.canceled += p.status is Status.CANCELED or p.status is Status.ABORTED
        row.run_s += run_s
        row.input_bytes += fact.file_bytes + json_bytes(p.inputs)
        row.output_bytes += json_bytes(p.output)

    def _put_back(self, row: UsageRow) -> None:
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
                    self._put_back(row)
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
    """The size of a value as JSON. Texts count by their characters, so it is exact only for ASCII.

    A text may be a file of many megabytes, so it is not encoded only to be counted.

    >>> json_bytes({"a": [1, "b"]}), json_bytes("x" * 2000), json_bytes(None)
    (13, 2002, 0)
    """
    if value is None:
        return 0
    if isinstance(value, dict) and _is_small(value):
        try:
            return len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        except TypeError:  # a number or a text that orjson refuses
            pass
    return _Measure().of(value)


def _is_small(values: dict[str, Json]) -> bool:
    """Whether it has only a few short values and no lists or objects, as inputs usually do."""
    characters = 0
    for value in values.values():
        kind = value.__class__  # of every prediction: `isinstance` takes three times as long
        if kind is str:
            if not value.isascii():  # then a character may be several bytes
                return False
            characters += len(value)
        elif kind not in SIMPLE:
            return False
    return characters < SHORT and len(values) < MOST_LOOKED_AT


class _Measure:
    """Measures the first MOST_LOOKED_AT values one by one. A longer list is encoded: its values are
    small."""

    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT

    def of(self, value: Json) -> int:
        if isinstance(value, str):
            return len(value) + 2
        if isinstance(value, dict | list) and len(value) <= self._left:
            self._left -= len(value)
            values: Iterable[Json] = value
            names = 0
            if isinstance(value, dict):
                values = value.values()
                names = sum(len(str(name)) + 3 for name in value)
            return 2 + max(len(value) - 1, 0) + names + sum(map(self.of, values))
        try:
            return len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        except TypeError:  # deeper than orjson writes (254), or with numbers or texts it refuses
            return 0
