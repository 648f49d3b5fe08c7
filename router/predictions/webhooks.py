"""Webhooks: which events are sent, when, and how often they are tried again.

The events before the end (`start`, `output`, `logs`, `progress`) are sent once and not tried
again. `output` and `logs` together are sent at most once in 500 ms, as Cog and Replicate do, and
`progress` once a second. `completed` is in the outbox from the moment when the result is on disk.
It stays there, also over restarts, until it has been delivered or tried for a day, as long as a
result is kept. So it is delivered at least once, always with the same `webhook-id`. The result
itself is kept, also when its webhook cannot be delivered. `files` is a part of the delivery of
`completed`, before it (`webhook_files.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
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
    OutputFile,
    Prediction,
    WebhookEvent,
    announced,
    new_id,
)
from router.predictions.webhook_bodies import compact, is_compact
from router.predictions.webhook_files import (
    NOT_SENT,
    FileSender,
    LocalCopy,
    send_files,
    wants_files,
)
from router.storage.store import Outbox, Store


class WebhookSender(FileSender, Protocol):
    """Sends webhooks to other servers."""

    def check(self, url: str) -> None:
        """Raises InvalidInput when `url` must not be called."""

    async def send(self, url: str, message_id: str, body: bytes) -> int:
        """POST the signed body. Returns the response's status, 0 when there is none."""

    async def close(self) -> None:
        """Close every connection."""


log = logging.getLogger(__name__)

# Events of one group are throttled together. Each `progress` costs its receiver a call of a
# function, a write and a broadcast, and a person cannot read quicker.
OUTPUT_GROUP, PROGRESS_GROUP = "output", "progress"
GROUPS = {
    WebhookEvent.OUTPUT: OUTPUT_GROUP,
    WebhookEvent.LOGS: OUTPUT_GROUP,
    WebhookEvent.PROGRESS: PROGRESS_GROUP,
}
THROTTLE_S = {OUTPUT_GROUP: 0.5, PROGRESS_GROUP: 1.0}
# A receiver may be down for hours. When it is back, a quarter of an hour is the longest wait.
RETRY_DELAYS_S = (1.0, 4.0, 16.0, 60.0, 300.0, *(900.0,) * 95)
GONE = 410  # Standard Webhooks: a receiver that answers this wants no more webhooks
AT_ONCE_PER_HOST = 8
AT_ONCE_PER_OWNER = 16
AT_ONCE = 48
# In a larger body `output` is null: few receivers take more, and they can fetch the prediction.
MAX_BODY_BYTES = 32 << 20


class Webhooks:
    """Sends webhooks. Those of one prediction are sent in order."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        sender: WebhookSender,
        clock: Clock,
        render: Callable[[Prediction], Awaitable[Json]],
        *,
        local: LocalCopy,
        timers: Timers | None = None,
    ) -> None:
        """`local` gives files to send. `render` may raise ResultStoreFailed."""
        self._store = store
        self._local = local
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._render = render
        self._timers = timers
        self._sending: dict[str, asyncio.Task[None]] = {}
        # By prediction and group: when an event was last sent; and the event, with its time, that
        # is sent after the webhook that is being sent now.
        self._last_sent_s: dict[str, dict[str, float]] = {}
        self._newest: dict[str, dict[str, tuple[Prediction, float]]] = {}
        # Limits by host, so that a host that does not answer delays no other host's webhooks; and
        # by owner, as one owner may use any number of hosts.
        self._slots: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._all = asyncio.Semaphore(AT_ONCE)

    # ---- life ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Schedule what an earlier run of the router had not delivered."""
        for delivery in await self._outbox.deliveries():
            self._schedule(delivery)

    async def close(self) -> None:
        """Stop sending. The next run sends what was not delivered."""
        self._newest.clear()
        for task in list(self._sending.values()):
            task.cancel()
        await self._sender.close()

    # ---- public ----------------------------------------------------------------------------

    def check(self, url: str) -> None:
        """Raises InvalidInput when `url` must not be called."""
        self._sender.check(url)

    def notify(self, p: Prediction, event: WebhookEvent, *, last: bool = False) -> None:
        """Send an event before the end, if the client asked for it and the last one was not too
        recent. `last`: no other event of its kind follows, so it is always sent.

        While a receiver is slow, a new event replaces the one that waits: the receiver gets the
        present state, not an old one.
        """
        if not self._is_wanted(p, event) or not (last or self.wants(p, event)):
            return
        at = self._clock.time()
        if group := GROUPS.get(event):
            self._last_sent_s.setdefault(p.id, {})[group] = self._clock.monotonic()
            if p.id in self._sending:
                self._newest.setdefault(p.id, {})[group] = p, at
                return
        self._send_once(p, at)

    def wants(self, p: Prediction, event: WebhookEvent) -> bool:
        """Whether `notify` would send anything now. Ask first when the prediction is expensive to
        gather."""
        if not self._is_wanted(p, event):
            return False
        if (group := GROUPS.get(event)) is None:
            return True
        last_sent_s = self._last_sent_s.get(p.id, {}).get(group, -math.inf)
        return self._clock.monotonic() - last_sent_s >= THROTTLE_S[group]

    def completed(self, p: Prediction) -> None:
        """Send `completed`. The result is on disk and the delivery in the outbox."""
        self._last_sent_s.pop(p.id, None)
        if announced(p):
            self._newest.pop(p.id, None)  # `completed` contains all that it would
            delivery = Delivery(p.id, 0, self._clock.time())
            self._follow(p.id, lambda: self._deliver(delivery, p))

    # ---- internal ------------------------------------------------------------------------

    def _is_wanted(self, p: Prediction, event: WebhookEvent) -> bool:
        return p.callback is not None and event in p.callback.events

    def _send_once(self, p: Prediction, at: float) -> None:
        async def send() -> None:
            await self._send(p, f"msg_{new_id()}", at)

        self._follow(p.id, send)

    async def _send(self, p: Prediction, message_id: str, at: float) -> int:
        if p.callback is None:
            return GONE
        async with self._slot(p, p.callback.url):
            body = await self._body(p, at)
            return await self._sender.send(p.callback.url, message_id, body)

    @contextlib.asynccontextmanager
    async def _slot(self, p: Prediction, url: str) -> AsyncIterator[None]:
        """Wait until one more webhook may be sent to this receiver."""
        host = _receiver(url)
        of_host = self._slots.setdefault(f"host {host}", asyncio.Semaphore(AT_ONCE_PER_HOST))
        of_owner = self._slots.setdefault(f"owner {p.owner}", asyncio.Semaphore(AT_ONCE_PER_OWNER))
        # The order matters: what waits for a slow host holds no slot that others could use.
        async with of_host, of_owner, self._all:
            yield

    async def _body(self, p: Prediction, at: float) -> bytes:
        body = orjson.dumps(await self._view(p, at))
        if len(body) <= MAX_BODY_BYTES:
            return body
        brief = msgspec.structs.replace(p, output=None, output_files=())
        return orjson.dumps(await self._view(brief, at))

    async def _view(self, p: Prediction, at: float) -> Json:
        if not is_compact(p):
            return await self._render(p)
        files: tuple[OutputFile, ...] = ()
        if wants_files(p):  # it has them by now; otherwise they would be data: URIs or URLs
            files, p = p.output_files, msgspec.structs.replace(p, output_files=())
        return compact(await self._render(p), p, at, files)

    async def _deliver(self, delivery: Delivery, p: Prediction) -> None:
        # One id for all attempts, so that a receiver can recognize a repetition.
        try:
            status, p = await self._send_files(p)
            if 200 <= status < 300:
                at = p.completed_at or self._clock.time()
                status = await self._send(p, f"msg_{p.id}_completed", at)
        except RouterError:  # a file cannot be read now, or has no room on the disk
            status = NOT_SENT
        if 200 <= status < 300 or status == GONE:
            await self._outbox.delivered(p.id)
            return
        if delivery.attempts >= len(RETRY_DELAYS_S):
            log.warning("webhook delivery given up", extra={"prediction": p.id, "status": status})
            await self._outbox.delivered(p.id)
            return
        due_at = self._clock.time() + RETRY_DELAYS_S[delivery.attempts]
        later = Delivery(p.id, delivery.attempts + 1, due_at)
        self._schedule(later)
        await self._outbox.postpone(later)

    async def _send_files(self, p: Prediction) -> tuple[int, Prediction]:
        """Send the output files, if the receiver wants them. Returns a status, 2xx when that is
        done, and the prediction without the files that could not be sent."""
        if p.callback is None or not wants_files(p):
            return 200, p
        async with self._slot(p, p.callback.url):
            status, sent = await send_files(p, self._sender, self._local)
        if 200 <= status < 300:
            return status, msgspec.structs.replace(p, output_files=sent)
        return status, p

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
        """Do the work after the webhook that is being sent now for this prediction."""
        before = self._sending.get(prediction_id)

        async def in_turn() -> None:
            if before is not None:
                await asyncio.wait({before})
            try:
                await work()
            except RouterError as error:
                # The outbox then still holds the webhook, and a restart sends it once more.
                log.error("Cannot write the state of a webhook: %s", error.message)

        task = asyncio.create_task(in_turn())
        self._sending[prediction_id] = task
        task.add_done_callback(lambda t: self._ended(prediction_id, t))

    def _ended(self, prediction_id: str, task: asyncio.Task[None]) -> None:
        if self._sending.get(prediction_id) is task:
            del self._sending[prediction_id]
            for newest in self._newest.pop(prediction_id, {}).values():
                self._send_once(*newest)
        if not task.cancelled() and (error := task.exception()):
            log.error("an unexpected error while sending a webhook", exc_info=error)


def _receiver(url: str) -> str:
    """The URL's host and port in one form: the same receiver always gives the same text."""
    try:
        parts = URL(url)
    except ValueError:  # stored by an earlier version, which accepted other URLs
        return url
    return f"{(parts.raw_host or '').rstrip('.')}:{parts.port}"
