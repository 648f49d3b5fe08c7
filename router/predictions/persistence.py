"""Predictions on their way to disk: steps, results, and the end of what is too old."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine

from router.clock import Clock
from router.errors import RouterError
from router.prediction import Prediction, announced
from router.predictions.webhooks import Webhooks
from router.storage.store import Files, Store

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
SETTLE_AGAIN_S = 5.0


class Persistence:
    """Writes in the background, in the order in which it is told."""

    def __init__(
        self,
        store: Store,
        files: Files,
        clock: Clock,
        webhooks: Webhooks,
        keep_results_s: float,
        *,
        link: Callable[[Prediction], Awaitable[Prediction]],
    ) -> None:
        """`link`: puts the files of a prediction's output into the spool."""
        self._store = store
        self._files = files
        self._clock = clock
        self._webhooks = webhooks
        self._keep_results_s = keep_results_s
        self._link = link
        self._writes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Sweep now and regularly."""
        self._sweeper = asyncio.create_task(self._sweep_regularly())

    async def close(self) -> None:
        """Finish every write that the disk takes within some seconds."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._writes:
            await asyncio.wait(self._writes, timeout=SETTLE_AGAIN_S)
        for task in list(self._writes):
            task.cancel()

    def note(self, p: Prediction) -> None:
        """Write a step of a durable prediction."""
        if p.durable:
            self._spawn(self._note(p))

    def settle(self, p: Prediction, then: Callable[[], object]) -> None:
        """Write a result, however long the disk is in trouble, and call `then`."""
        self._spawn(self._settle(p, then))

    async def conclude(self, p: Prediction) -> None:
        """Write a result now, and have it announced. Raises InsufficientStorage."""
        await self._store.put(p, self._clock.time() if announced(p) else None)
        self._webhooks.completed(p)

    async def _note(self, p: Prediction) -> None:
        try:
            await self._store.put(p)
        except RouterError as error:
            # No harm but an attempt that is not counted: its result is still to come.
            log.error("a step cannot be written: %s", error.message)

    async def _settle(self, p: Prediction, then: Callable[[], object]) -> None:
        while True:
            try:
                await self.conclude(await self._link(p))
            except RouterError as error:
                # The result stays in memory, where it is found, until the disk takes it.
                log.error("a result cannot be written: %s", error.message)
                await asyncio.sleep(SETTLE_AGAIN_S)
            else:
                then()
                return

    async def _sweep_regularly(self) -> None:
        while True:
            with contextlib.suppress(RouterError):
                before = self._clock.time() - self._keep_results_s
                self._files.remove(await self._store.sweep(before))
            await asyncio.sleep(SWEEP_EVERY_S)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
