"""A server on loopback that keeps every webhook it is sent."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass
class Inbox:
    """What came, in order: headers and body."""

    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refuse: int = 0  # answer so many with 503 first

    def of(self, prediction_id: str) -> list[dict[str, Any]]:
        """The bodies that speak of that prediction."""
        bodies = [orjson.loads(body) for _, body in list(self.got)]
        return [b for b in bodies if b["id"] == prediction_id]


@contextlib.contextmanager
def webhook_receiver() -> Iterator[Inbox]:
    """Running until the end of the block."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = 503 if inbox.refuse > 0 else 200
            inbox.refuse -= 1
            inbox.got.append((dict(self.headers), body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    inbox.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield inbox
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
