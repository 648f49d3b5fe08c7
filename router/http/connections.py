"""Limits on the number of connections and on how long each may keep the server waiting.

One sweep a second checks all of them. A timer for each connection would have to be set and
canceled with every request.
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

# Shortest time between two log lines about refused or closed connections.
REPORT_S = 60.0
# When the limit is reached, waiting connections are closed, up to 1/ROOM_PARTS of the limit at
# once. To search for one connection at a time would take longer than to serve a request.
ROOM_PARTS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of connections. Times are in seconds."""

    max_connections: int = 1024
    keep_alive_s: float = 120.0  # after a response; longer than cloudflared's 90
    head_s: float = 20.0  # from the connect, or the first byte of a head, to the head's end
    drain_s: float = 30.0  # for the rest of a body whose request has already been answered
    linger_s: float = 3.0  # after a refusal, so that the client can read it
    unread_s: float = 60.0  # without progress, while the client does not read its response
    sweep_s: float = 1.0  # how often these limits are checked


class Connection(Protocol):
    """What `Connections` needs of a connection (router/http/http1_protocol.py)."""

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
        """Accept the connection if possible, and return whether it was accepted.

        At the limit, the connections that have waited longest for their client are closed to
        make room, so a service full of idle connections still serves.
        """
        loop = asyncio.get_running_loop()
        if len(self._open) >= self._limits.max_connections and not self._make_room():
            self._note("too_many_connections", loop.time())
            return False
        self._open.add(connection)
        if self._timer is None:
            self._timer = loop.call_later(self._limits.sweep_s, self._sweep)
        return True

    def forget(self, connection: Connection) -> None:
        """Remove a connection that was lost. Does nothing for one that was not admitted."""
        self._open.discard(connection)

    def note_refusal(self, error: RouterError) -> None:
        """Count a refusal for the log. With a line for each, any client could fill the disk."""
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
        """Log the first event at once and the later ones together, once in REPORT_S."""
        if now - self._reported_at < REPORT_S:
            return
        self._reported_at = now
        log.warning(
            "connections were refused or closed",
            extra={"open": len(self._open), "counts": dict(self._counts)},
        )
        self._counts.clear()
