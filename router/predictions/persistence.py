"""Writes predictions to disk, their steps and results, and deletes what is too old."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine

from router.clock import Clock
from router.errors import RouterError
from router.prediction import Prediction, announced
from router.predictions.output_links import Links
from router.predictions.webhooks import Webhooks
from router.storage.store import Store

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
WRITE_AGAIN_S = 5.0


class Persistence:
    """Writes in the background, in the order of the calls."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        webhooks: Webhooks,
        keep_results_s: float,
        *,
        links: Links,
    ) -> None:
        """`links` moves the files of a prediction's output to the spool. `keep_results_s`: seconds
        from a prediction's end to its deletion."""
        self._store = store
        self._clock = clock
        self._webhooks = webhooks
        self._keep_results_s = keep_results_s
        self._links = links
        self._writes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Delete old results now and regularly."""
        self._sweeper = asyncio.create_task(self._sweep_regularly())

    async def close(self) -> None:
        """Wait for writes to finish, at most WRITE_AGAIN_S; then cancel the others."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._writes:
            await asyncio.wait(self._writes, timeout=WRITE_AGAIN_S)
        for task in list(self._writes):
            task.cancel()

    def note(self, p: Prediction) -> None:
        """Write a step of a prediction, if it is durable."""
        if p.durable:
            self._spawn(self._note(p))

    def write_result(self, p: Prediction, then: Callable[[], object]) -> None:
        """Write a result, retrying until the disk takes it, and then call `then`."""
        self._spawn(self._write_result(p, then))

    async def conclude(self, p: Prediction) -> None:
        """Write a result now, and send its webhook. Raises InsufficientStorage when the disk is
        full or fails."""
        await self._store.put(p, self._clock.time() if announced(p) else None)
        self._webhooks.completed(p)

    async def _note(self, p: Prediction) -> None:
        try:
            await self._store.put(p)
        except RouterError as error:
            # Only the count of attempts is wrong then: the result is written later.
            log.error("Cannot write a step of a prediction: %s", error.message)

    async def _write_result(self, p: Prediction, then: Callable[[], object]) -> None:
        while True:
            try:
                stored = await self._links.with_output_files(p)
                await self.conclude(stored)
            except RouterError as error:
                # The result stays in memory, where callers find it, until the disk takes it.
                log.error("Cannot write a result: %s; trying again", error.message)
                await asyncio.sleep(WRITE_AGAIN_S)
            else:
                then()
                self._links.note_written(stored)
                return

    async def _sweep_regularly(self) -> None:
        while True:
            with contextlib.suppress(RouterError):
                before = self._clock.time() - self._keep_results_s
                self._links.remove(await self._store.sweep(before))
            await asyncio.sleep(SWEEP_EVERY_S)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
