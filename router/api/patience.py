"""How long a body may keep the server waiting, and that stopping waits for none.

uvicorn has no limit: a client that sends half a body and stays would hold its request for
ever, and with it the end of the server.
"""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive

from router.domain.errors import MalformedRequest, ShuttingDown

# Between two pieces of a body. A phone that has lost its network comes back within this or not.
IDLE_LIMIT_S = 30.0


class BodyReads:
    """The reads of bodies under way. One object for the whole application."""

    def __init__(self, idle_limit_s: float = IDLE_LIMIT_S) -> None:
        self._idle_limit_s = idle_limit_s
        self._waiting: set[asyncio.Timeout] = set()
        self._closed = False

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

    def close(self) -> None:
        """End every read that waits, and every later one that would have to."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for timeout in list(self._waiting):
            timeout.reschedule(now)

    async def _next(self, receive: Receive) -> Message:
        timeout = asyncio.timeout(0.0 if self._closed else self._idle_limit_s)
        try:
            async with timeout:
                self._waiting.add(timeout)
                return await receive()
        except TimeoutError as error:
            if self._closed:
                raise ShuttingDown("Cannot read the body: the server is stopping") from error
            raise MalformedRequest("Cannot read the body: it stopped coming") from error
        finally:
            self._waiting.discard(timeout)
