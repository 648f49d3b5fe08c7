"""A thin stand-in for a Supabase project's Realtime: private channels, messages of the database.

Who may join is decided by the policies on realtime.messages, asked as the real server asks them: it
writes a row for the topic, reads it with the caller's role and takes it back. A row that the
database writes goes to everybody in the topic. It differs from the real one in this: JSON frames
only; no presence, no Postgres changes, no messages between clients; rights are judged at the join
only; and it does not need a client to connect before a message can be written.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import psycopg
from postgres import SUPERUSER, Database

# From RFC 6455, 1.3.
ACCEPT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
NOTIFY = """
create or replace function public.stand_in_tell() returns trigger language plpgsql as $$ begin
  perform pg_notify('realtime', json_build_object('topic', new.topic, 'event', new.event,
    'payload', new.payload)::text);
  return null;
end $$;
create or replace trigger stand_in_tell after insert on realtime.messages
  for each row execute function public.stand_in_tell();
"""
ClaimsOf = Callable[[str], dict[str, Any]]


@dataclass
class Realtime:
    """The running stand-in. `refuses`: no join succeeds. `loses`: no message is sent.
    `late_s`: how long each message is kept, and it is then sent twice; what is kept together
    comes in the opposite order. `joins`: each topic and whether it was allowed."""

    database: Database
    refuses: bool = False
    loses: bool = False
    late_s: float = 0
    joins: list[tuple[str, bool]] = field(default_factory=list)
    sent: int = 0
    # Postgres has a limit of connections.
    judging: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(8))
    sockets: set[_Socket] = field(default_factory=set)

    def expire(self) -> None:
        """Take everybody out of their channels, as when their tokens are no longer valid."""
        for socket in list(self.sockets):
            for topic, join_ref in list(socket.joined.items()):
                del socket.joined[topic]
                socket.send([join_ref, None, topic, "phx_close", {}])

    def cut(self) -> None:
        """End all connections, as when the network changes."""
        for socket in list(self.sockets):
            socket.end()

    def may_join(self, topic: str, claims: dict[str, Any]) -> bool:
        """Whether the policies let this role read messages of the topic."""
        settings = {
            "request.jwt.claims": json.dumps(claims),
            "realtime.topic": topic,
            "role": claims["role"],
        }
        row = "insert into realtime.messages (topic, extension, private) values (%s, %s, true)"
        with (
            self.judging,
            psycopg.connect(self.database.url(SUPERUSER)) as connection,
            connection.transaction(force_rollback=True),
        ):
            connection.execute(row, [topic, "broadcast"])
            for name, value in settings.items():
                connection.execute("select set_config(%s, %s, true)", [name, value])
            seen = connection.execute("select 1 from realtime.messages where topic = %s", [topic])
            return seen.fetchone() is not None

    def tell(self, messages: list[dict[str, Any]]) -> None:
        """Send to everybody in the topics."""
        for message in messages:
            self.sent += 1
            for socket in list(self.sockets):
                socket.broadcast(message)


class _Socket:
    """One client's connection. `joined`: the join's number by topic."""

    def __init__(self, handler: BaseHTTPRequestHandler, realtime: Realtime, claims: ClaimsOf):
        self._handler, self._realtime, self._claims = handler, realtime, claims
        self._lock = threading.Lock()
        self.joined: dict[str, str] = {}

    def run(self) -> None:
        """Until one side closes."""
        key = self._handler.headers["Sec-WebSocket-Key"] + ACCEPT
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()  # noqa: S324
        self._handler.send_response(101)
        self._handler.send_header("Upgrade", "websocket")
        self._handler.send_header("Connection", "Upgrade")
        self._handler.send_header("Sec-WebSocket-Accept", accept)
        self._handler.end_headers()
        self._handler.close_connection = True
        self._realtime.sockets.add(self)
        try:
            with contextlib.suppress(OSError, struct.error):
                while self._frame():
                    pass
        finally:
            self._realtime.sockets.discard(self)

    def end(self) -> None:
        """Without a word."""
        with contextlib.suppress(OSError):
            self._handler.connection.shutdown(2)

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send a message if this client is in its topic."""
        topic = f"realtime:{message['topic']}"
        if join_ref := self.joined.get(topic):
            said = {"type": "broadcast", "event": message["event"], "payload": message["payload"]}
            self.send([join_ref, None, topic, "broadcast", said])

    def _frame(self) -> bool:
        read = self._handler.rfile.read
        first, second = struct.unpack("!BB", read(2))
        size = second & 127
        if size >= 126:
            size = struct.unpack("!H" if size == 126 else "!Q", read(2 if size == 126 else 8))[0]
        mask = read(4)
        data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(read(size)))
        if first & 15 == TEXT:
            self._message(*json.loads(data))
        elif first & 15 == PING:
            self._write(PONG, data)
        return bool(first & 15 != CLOSE)

    def _message(self, join_ref: str, ref: str, topic: str, event: str, payload: Any) -> None:
        status = "ok"
        if event == "phx_join":
            status = "ok" if self._may_join(topic, payload) else "error"
            if status == "ok":
                self.joined[topic] = join_ref
        elif event == "phx_leave":
            self.joined.pop(topic, None)
        elif event == "access_token":
            return
        response: dict[str, Any] = (
            {"postgres_changes": []} if status == "ok" else {"reason": "Unauthorized"}
        )
        self.send([join_ref, ref, topic, "phx_reply", {"status": status, "response": response}])
        if event == "phx_leave":
            self.send([join_ref, ref, topic, "phx_close", {}])

    def _may_join(self, topic: str, payload: dict[str, Any]) -> bool:
        name = topic.removeprefix("realtime:")
        allowed = False
        if not self._realtime.refuses and payload["config"]["private"]:
            try:
                claims = self._claims(payload.get("access_token", ""))
                allowed = self._realtime.may_join(name, claims)
            except Exception:
                allowed = False  # the token is not valid
        self._realtime.joins.append((name, allowed))
        return allowed

    def send(self, message: list[Any]) -> None:
        """Send a frame. Nothing happens when the client is gone."""
        with contextlib.suppress(OSError, ValueError):
            self._write(TEXT, json.dumps(message).encode())

    def _write(self, opcode: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))
        with self._lock:
            self._handler.wfile.write(bytes([128 | opcode]) + size + data)
            self._handler.wfile.flush()


def serve_socket(handler: BaseHTTPRequestHandler, realtime: Realtime, claims: ClaimsOf) -> None:
    """Serve one client until it goes. `claims`: who has a token; raises when it is not valid."""
    _Socket(handler, realtime, claims).run()


@contextlib.contextmanager
def running_realtime(database: Database) -> Iterator[Realtime]:
    """The stand-in; its connections come through the project's own port."""
    realtime = Realtime(database)
    database.run(NOTIFY)
    stop = threading.Event()
    ready = threading.Event()
    thread = threading.Thread(target=_listen, args=(realtime, stop, ready))
    thread.start()
    try:
        assert ready.wait(30)
        yield realtime
    finally:
        stop.set()
        realtime.cut()
        thread.join()
        database.run("drop trigger stand_in_tell on realtime.messages")


def _listen(realtime: Realtime, stop: threading.Event, ready: threading.Event) -> None:
    kept: list[dict[str, Any]] = []
    kept_since = 0.0
    with psycopg.connect(realtime.database.url(SUPERUSER), autocommit=True) as connection:
        connection.execute("listen realtime")
        ready.set()
        while not stop.is_set():
            for said in connection.notifies(timeout=0.02):
                message = json.loads(said.payload)
                if realtime.loses:
                    continue
                if realtime.late_s:
                    kept_since = kept_since or time.monotonic()
                    kept.append(message)
                else:
                    realtime.tell([message])
            if kept and time.monotonic() - kept_since > realtime.late_s:
                realtime.tell([*reversed(kept), *kept])
                kept, kept_since = [], 0.0
