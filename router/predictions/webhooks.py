"""Webhooks: who is told of what, when, and again until it has arrived.

Events on the way (`start`, `output`, `logs`) are sent once and best effort; `output` and `logs`
together at most once in 500 ms, as Cog and Replicate do. `completed` is in the outbox from the
moment the result is on disk, and stays there until it has arrived or been tried for some three
hours, over restarts: at least once, always under the same `webhook-id`. The result itself stays,
whatever becomes of its webhook.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec
import orjson
from yarl import URL

from router.clock import Clock, Timers
from router.errors import RouterError
from router.prediction import (
    Delivery,
    Json,
    Prediction,
    WebhookEvent,
    announced,
    new_id,
)
from router.storage.store import Outbox, Store


class WebhookSender(Protocol):
    """Calls other people's servers."""

    def check(self, url: str) -> None:
        """Raises InvalidInput for a URL that is never called."""

    async def send(self, url: str, message_id: str, body: bytes) -> int:
        """POST, signed; the answer's status, 0 when there is none."""

    async def close(self) -> None:
        """Close every connection."""


log = logging.getLogger(__name__)

THROTTLED = frozenset({WebhookEvent.OUTPUT, WebhookEvent.LOGS})
THROTTLE_S = 0.5
RETRY_DELAYS_S = (1.0, 4.0, 16.0, 60.0, 300.0, 900.0, 3600.0, 7200.0)
GONE = 410  # Standard Webhooks: whoever answers this wants no more
AT_ONCE_PER_HOST = 8
AT_ONCE_PER_OWNER = 16
AT_ONCE = 48
# A receiver seldom takes more, and the whole is there to be fetched: beyond this `output` is null.
MAX_BODY_BYTES = 32 << 20


class Webhooks:
    """Sends webhooks. What is sent for one prediction is sent in order."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sender: WebhookSender,
        clock: Clock,
        render: Callable[[Prediction], Awaitable[Json]],
        *,
        timers: Timers | None = None,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._render = render
        self._timers = timers
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._last_sent_s: dict[str, float] = {}
        self._newest: dict[str, Prediction] = {}  # to be sent when what is being sent has been
        # By host, so that one that does not answer holds up nobody else's; by owner, since one
        # may name as many hosts as it likes.
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._all = asyncio.Semaphore(AT_ONCE)

    # ---- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up what an earlier run of the router had not delivered."""
        for delivery in await self._outbox.deliveries():
            self._schedule(delivery)

    async def close(self) -> None:
        """Stop sending; what has not arrived is taken up by the next run."""
        self._newest.clear()
        for task in list(self._sending.values()):
            task.cancel()
        await self._sender.close()

    # ---- what others call ----------------------------------------------------------------

    def check(self, url: str) -> None:
        """Raises InvalidInput for a URL that is never called."""
        self._sender.check(url)

    def notify(self, p: Prediction, event: WebhookEvent, *, last: bool = False) -> None:
        """Tell of something on the way, if that is wanted and not too soon. `last`: nothing of
        its kind comes after it, so it is never too soon.

        While a receiver takes its time what is new replaces what waits: it is told how things
        are, not how they were.
        """
        if not self._is_wanted(p, event) or not (last or self.wants(p, event)):
            return
        if event in THROTTLED:
            self._last_sent_s[p.id] = self._clock.monotonic()
            if p.id in self._sending:
                self._newest[p.id] = p
                return
        self._send_once(p)

    def wants(self, p: Prediction, event: WebhookEvent) -> bool:
        """Whether `notify` would send anything now: to gather what it sends may cost much."""
        if not self._is_wanted(p, event):
            return False
        last_sent_s = self._last_sent_s.get(p.id, -math.inf)
        return event not in THROTTLED or self._clock.monotonic() - last_sent_s >= THROTTLE_S

    def completed(self, p: Prediction) -> None:
        """Its end is on disk, and the announcement in the outbox."""
        self._last_sent_s.pop(p.id, None)
        if announced(p):
            self._newest.pop(p.id, None)  # the end says all that it would
            delivery = Delivery(p.id, 0, self._clock.time())
            self._follow(p.id, lambda: self._deliver(delivery, p))

    # ---- within --------------------------------------------------------------------------

    def _is_wanted(self, p: Prediction, event: WebhookEvent) -> bool:
        return p.callback is not None and event in p.callback.events

    def _send_once(self, p: Prediction) -> None:
        async def send() -> None:
            await self._send(p, f"msg_{new_id()}")

        self._follow(p.id, send)

    async def _send(self, p: Prediction, message_id: str) -> int:
        if p.callback is None:
            return GONE
        host = _receiver(p.callback.url)
        of_host = self._slots.setdefault(f"host {host}", asyncio.Semaphore(AT_ONCE_PER_HOST))
        of_owner = self._slots.setdefault(f"owner {p.owner}", asyncio.Semaphore(AT_ONCE_PER_OWNER))
        # In this order: who waits for a slow host holds no slot that others could use.
        async with of_host, of_owner, self._all:
            body = orjson.dumps(await self._render(p))
            if len(body) > MAX_BODY_BYTES:
                brief = msgspec.structs.replace(p, output=None, output_files=())
                body = orjson.dumps(await self._render(brief))
            return await self._sender.send(p.callback.url, message_id, body)

    async def _deliver(self, delivery: Delivery, p: Prediction) -> None:
        # One id for all attempts, so that a receiver can tell a repetition.
        status = await self._send(p, f"msg_{p.id}_completed")
        if 200 <= status < 300 or status == GONE:
            await self._outbox.delivered(p.id)
            return
        if delivery.attempts >= len(RETRY_DELAYS_S):
            log.warning("webhook given up", extra={"prediction": p.id, "status": status})
            await self._outbox.delivered(p.id)
            return
        due_at = self._clock.time() + RETRY_DELAYS_S[delivery.attempts]
        later = Delivery(p.id, delivery.attempts + 1, due_at)
        self._schedule(later)
        await self._outbox.postpone(later)

    async def _deliver_again(self, delivery: Delivery) -> None:
        p = await self._store.get(delivery.prediction_id)
        if p is None:
            await self._outbox.delivered(delivery.prediction_id)
        else:
            await self._deliver(delivery, p)

    def _schedule(self, delivery: Delivery) -> None:
        timers: Timers = self._timers or asyncio.get_running_loop()
        left_s = max(delivery.due_at - self._clock.time(), 0.0)
        timers.call_later(
            left_s,
            self._follow,
            delivery.prediction_id,
            lambda: self._deliver_again(delivery),
        )

    def _follow(self, prediction_id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work when what is being sent for this prediction has been."""
        before = self._sending.get(prediction_id)

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait({before})
            try:
                await work()
            except RouterError as error:
                # The outbox may be behind: it is sent once more after a restart.
                log.error("a webhook's state cannot be written: %s", error.message)

        task = asyncio.create_task(in_turn())
        self._sending[prediction_id] = task
        task.add_done_callback(lambda t: self._ended(prediction_id, t))

    def _ended(self, prediction_id: str, task: asyncio.Task[None]) -> None:
        if self._sending.get(prediction_id) is task:
            del self._sending[prediction_id]
            if newest := self._newest.pop(prediction_id, None):
                self._send_once(newest)
        if not task.cancelled() and (error := task.exception()):
            log.error("a webhook failed", exc_info=error)


def _receiver(url: str) -> str:
    """Host and port, one spelling for all of a URL's."""
    try:
        parts = URL(url)
    except ValueError:  # of an earlier version, which read URLs otherwise
        return url
    return f"{(parts.raw_host or '').rstrip('.')}:{parts.port}"
