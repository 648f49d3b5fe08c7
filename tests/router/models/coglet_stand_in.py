"""A server that speaks as coglet does and misbehaves as its input says: for what a real coglet
would take minutes or hundreds of megabytes to show.

Run by `python_of`, in place of `python -m cog.server.http`. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RUNNING = threading.Event()
# What the health check says: while a prediction holds the GIL, and else ("": it is well).
SAYS = {"held": "healthcheck timed out", "else": ""}


class Coglet(BaseHTTPRequestHandler):
    """Answers /health-check, /predictions and cancels."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """UNHEALTHY while a prediction with `holds_gil_s` runs, as coglet says it."""
        if why := SAYS["held" if RUNNING.is_set() else "else"]:
            self._answer({"status": "UNHEALTHY", "user_healthcheck_error": why})
        else:
            logs = "loading\n" * (int(os.environ.get("STAND_IN_SET_UP_BYTES", "0")) // 8)
            self._answer({"setup": {"logs": logs}, "status": "READY"})

    def do_POST(self) -> None:
        """Run the input: `logs` characters of log, `output` characters of output."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.path.endswith("/predictions"):
            self._answer({})
            return
        asked = json.loads(body)["input"]
        SAYS["else"] = asked.get("health", "")
        SAYS["held"] = asked.get("health_while_held", SAYS["held"])
        if held_s := asked.get("holds_gil_s"):
            RUNNING.set()
            time.sleep(held_s)
            RUNNING.clear()
        line = 'a "quoted" line, \\ and \u00e9\n'
        self._answer(
            {
                "id": "x",
                "logs": line * (asked.get("logs", 0) // len(line)),
                "metrics": {"predict_time": 0.1},
                "output": "o" * asked.get("output", 0),
                "status": "succeeded",
            }
        )

    def log_message(self, *args: object) -> None:
        """Nothing: coglet logs no request."""

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def python_of(folder: Path) -> Path:
    """A program in `folder` that takes the place of a package's interpreter."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    program.chmod(0o700)
    return program


if __name__ == "__main__":
    # Its worker: a child that does nothing and is watched.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Coglet).serve_forever()
