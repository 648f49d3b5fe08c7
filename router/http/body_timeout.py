"""Limits the wait for a request body, and ends every such wait when the server stops.

uvicorn has no limit. A client that sends half a body and stays connected would hold its request
indefinitely, and the server could not stop.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

from starlette.types import Message, Receive

from router.errors import MalformedRequest, ShuttingDown
from router.shutdown import Shutdown

# Longest wait between two pieces of a body. A phone that has lost its network usually has it
# back within this time, or not at all.
IDLE_LIMIT_S = 30.0
# Checks within each limit. So a read may wait longer than the limit by 1/CHECKS of it.
CHECKS = 8


class BodyReads:
    """Tracks all reads of bodies. There is one object for the whole application."""

    def __init__(self, shutdown: Shutdown, idle_limit_s: float = IDLE_LIMIT_S) -> None:
        self._shutdown = shutdown
        shutdown.on_begin(self._end)
        self._idle_limit_s = idle_limit_s
        self._since: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive) -> Receive:
        """Return `receive` with a time limit for the body.

        The returned function raises MalformedRequest when a body stops arriving, and
        ShuttingDown when the server stops. After the end of the body it has no limit: then it
        reports only that the client has disconnected, which may happen at any time.
        """
        ended = False

        async def receive_in_time() -> Message:
            nonlocal ended
            if ended:
                return await receive()
            receiving: Coroutine[Any, Any, Message] = receive()  # type: ignore[assignment]
            try:
                waits_for = receiving.send(None)
            except StopIteration as arrived:  # as nearly every piece has, and needs no timeout
                message: Message = arrived.value
            else:
                message = await self._next(receiving, waits_for)
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return receive_in_time

    def _end(self) -> None:
        """End every read that waits, because the server stops."""
        now = asyncio.get_running_loop().time()
        for timeout in list(self._since):
            timeout.reschedule(now)

    async def _next(self, receiving: Coroutine[Any, Any, Message], waits_for: Any) -> Message:
        timeout = asyncio.timeout(0.0 if self._shutdown.begun else None)
        try:
            async with timeout:
                self._watch(timeout)
                return await _rest_of(receiving, waits_for)
        except TimeoutError as error:
            if self._shutdown.begun:
                raise ShuttingDown("Cannot read the body: the server is stopping") from error
            raise MalformedRequest("Cannot read the body: it stopped coming") from error
        finally:
            self._since.pop(timeout, None)

    def _watch(self, timeout: asyncio.Timeout) -> None:
        """Use one timer for all reads: to set one for each takes longer than to read a piece."""
        loop = asyncio.get_running_loop()
        self._since[timeout] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._idle_limit_s / CHECKS, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._since:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for timeout in [t for t, since in self._since.items() if now - since >= self._idle_limit_s]:
            del self._since[timeout]  # a timeout that has expired cannot be rescheduled
            timeout.reschedule(now)
        self._timer = loop.call_later(self._idle_limit_s / CHECKS, self._check)


@types.coroutine
def _rest_of(begun: Coroutine[Any, Any, Message], waits_for: Any) -> Generator[Any, Any, Message]:
    """Go on with a coroutine that has begun, and that waits for this, up to its result."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(sent)
    except StopIteration as end:
        message: Message = end.value
        return message
