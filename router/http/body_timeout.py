"""How long a body may keep the server waiting, and that stopping waits for none.

uvicorn has no limit: a client that sends half a body and stays would hold its request for
ever, and with it the end of the server.
"""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from router.errors import MalformedRequest, ShuttingDown
from router.shutdown import Shutdown

# Between two pieces of a body. A phone that has lost its network comes back within this or not.
IDLE_LIMIT_S = 30.0
# Within each limit: a read may wait longer by one part in so many.
CHECKS = 8


class BodyReads:
    """The reads of bodies under way. One object for the whole application."""

    def __init__(self, shutdown: Shutdown, idle_limit_s: float = IDLE_LIMIT_S) -> None:
        self._shutdown = shutdown
        shutdown.on_begin(self._end)
        self._idle_limit_s = idle_limit_s
        self._since: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, receive: Receive) -> Receive:
        """`receive`, which raises MalformedRequest when a body stops coming and ShuttingDown
        when the server stops. After the body's end it is as it was: then it tells only of a
        client's leaving, which may take as long as it likes."""
        ended = False

        async def patient() -> Message:
            nonlocal ended
            if ended:
                return await receive()
            message = await self._next(receive)
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return patient

    def _end(self) -> None:
        """End every read that waits: the server stops."""
        now = asyncio.get_running_loop().time()
        for timeout in list(self._since):
            timeout.reschedule(now)

    async def _next(self, receive: Receive) -> Message:
        timeout = asyncio.timeout(0.0 if self._shutdown.begun else None)
        try:
            async with timeout:
                self._watch(timeout)
                return await receive()
        except TimeoutError as error:
            if self._shutdown.begun:
                raise ShuttingDown("Cannot read the body: the server is stopping") from error
            raise MalformedRequest("Cannot read the body: it stopped coming") from error
        finally:
            self._since.pop(timeout, None)

    def _watch(self, timeout: asyncio.Timeout) -> None:
        """One timer for all: nearly every piece is there already, and a timer of its own would
        take longer than the piece."""
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
            del self._since[timeout]  # one that has run out cannot be set again
            timeout.reschedule(now)
        self._timer = loop.call_later(self._idle_limit_s / CHECKS, self._check)
