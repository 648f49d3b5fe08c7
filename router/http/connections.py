"""How many connections there may be, and how long each may keep the server waiting.

One sweep a second over all of them; a timer for each would be set and canceled with every request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from router.errors import RequestTimeout, RouterError

log = logging.getLogger(__name__)

# Between two lines of the log about the same trouble.
REPORT_S = 60.0
# Of those that wait, so many parts of the limit are closed at once when it is reached: to look
# for one with every new connection would take longer than to serve it.
ROOM_PARTS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of connections. Seconds."""

    max_connections: int = 1024
    keep_alive_s: float = 120.0  # after an answer; longer than cloudflared's 90
    head_s: float = 20.0  # from the connection, or a head's first byte, to the head's end
    drain_s: float = 30.0  # for the rest of a body whose request has been answered already
    linger_s: float = 3.0  # after a refusal, for the client to read it
    unread_s: float = 60.0  # without any progress of an answer that the client does not read
    sweep_s: float = 1.0  # how often these are compared with the clock


class Connection(Protocol):
    """What is needed of a connection (router/http/protocol.py)."""

    waiting_since: float
    blocked_since: float | None
    head_open: bool
    body_open: bool
    lingering: bool
    closing: bool

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def is_new(self) -> bool: ...
    @property
    def is_busy(self) -> bool: ...
    def refuse(self, error: RouterError) -> None: ...


class Connections:
    """All connections of one server."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._counts: Counter[str] = Counter()
        self._reported_at = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more. Where there is none, those that have waited longest
        for their client make it: a service full of idle connections still serves."""
        loop = asyncio.get_running_loop()
        if len(self._open) >= self._limits.max_connections and not self._make_room():
            self._note("too_many_connections", loop.time())
            return False
        self._open.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._limits.sweep_s, self._sweep)
        return True

    def forget(self, connection: Connection) -> None:
        """The connection is lost. One that was not admitted is none."""
        self._open.discard(connection)

    def note_refusal(self, error: RouterError) -> None:
        """Count it for the log: a line for each would let anybody fill the disk."""
        self._note(error.code, asyncio.get_running_loop().time())

    def _make_room(self) -> bool:
        waiting = sorted((c for c in self._open if not c.is_busy), key=lambda c: c.waiting_since)
        for connection in waiting[: max(1, self._limits.max_connections // ROOM_PARTS)]:
            connection.transport.abort()
            self._open.discard(connection)
            self._counts["closed_for_others"] += 1
        return bool(waiting)

    def _sweep(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in self:
            self._check(connection, now)
        if self._counts:
            self._report(now)
        if self._open or self._counts:
            self._timer = loop.call_later(self._limits.sweep_s, self._sweep)

    def _check(self, connection: Connection, now: float) -> None:
        limits, transport = self._limits, connection.transport
        if transport.is_closing() and not connection.closing:
            connection.closing, connection.waiting_since = True, now
        waited = now - connection.waiting_since
        blocked = connection.blocked_since
        if connection.closing or blocked is not None:
            if waited > limits.unread_s if blocked is None else now - blocked > limits.unread_s:
                transport.abort()
        elif not connection.is_busy and waited > self._limit_of(connection):
            if connection.head_open:
                connection.refuse(RequestTimeout("Cannot read the request: its head did not end"))
            else:
                transport.close()

    def _limit_of(self, connection: Connection) -> float:
        if connection.lingering:
            return self._limits.linger_s
        if connection.body_open:
            return self._limits.drain_s
        if connection.head_open or connection.is_new:
            return self._limits.head_s
        return self._limits.keep_alive_s

    def _note(self, what: str, now: float) -> None:
        self._counts[what] += 1
        self._report(now)

    def _report(self, now: float) -> None:
        """At once for the first, then the rest together."""
        if now - self._reported_at < REPORT_S:
            return
        self._reported_at = now
        log.warning(
            "connections were refused or closed",
            extra={"open": len(self._open), "counts": dict(self._counts)},
        )
        self._counts.clear()
