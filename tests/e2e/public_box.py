"""What stands around a public box in tests: cloudflared and Supabase's Management API."""

from __future__ import annotations

import contextlib
import json
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import trustme

from tests.waiting import free_port

STANDIN = Path(__file__).with_name("cloudflared_standin.py")
PROJECT = "abcdefghijklmnopqrst"
TOKEN = "sbp_" + "0" * 40  # the shape the CLI asks for, not a key


@dataclass
class Cloudflared:
    """A stand-in `cloudflared` in `folder`, to be put on PATH."""

    folder: Path

    @property
    def program(self) -> Path:
        """The executable."""
        return self.folder / "bin" / "cloudflared"

    @property
    def certificate_authority(self) -> Path:
        """What must be trusted to reach its public address."""
        return self.folder / "ca.pem"

    def behave(self, **behaviour: Any) -> None:
        """How its next starts go; see cloudflared_standin.py."""
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def open_on_localhost(self) -> str:
        """Make its next starts lead from a free port of this machine; returns the URL."""
        port = free_port()
        name = f"localhost:{port}"
        certificate = str(self.folder / "server.pem")
        self.behave(name=name, port=port, certificate=certificate)
        return f"https://{name}"

    def say(self, command: str, text: str = "") -> None:
        """`crash`, or `rename` to `text`, now."""
        part = self.folder / f".{command}"
        part.write_text(text)
        part.replace(self.folder / command)

    def starts(self) -> list[dict[str, Any]]:
        """Every start so far."""
        path = self.folder / "starts.jsonl"
        return [json.loads(s) for s in path.read_text().splitlines()] if path.exists() else []


def make_cloudflared(folder: Path) -> Cloudflared:
    """The executable, and certificates for `localhost`."""
    made = Cloudflared(folder)
    made.program.parent.mkdir(parents=True)
    made.program.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} {folder} "$@"\n')
    made.program.chmod(made.program.stat().st_mode | stat.S_IXUSR)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(made.certificate_authority)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "server.pem"
    )
    made.behave(name="words-of-a-tunnel.trycloudflare.com")
    return made


@dataclass
class Platform:
    """A stand-in for Supabase's Management API: secrets only."""

    url: str
    secrets: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; 201 when there are none."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    platform: Platform


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        platform = cast(_Server, self.server).platform
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        platform.requests.append((self.path, dict(self.headers), body))
        status = platform.answers.pop(0) if platform.answers else 201
        if status == 201:
            assert self.path == f"/v1/projects/{PROJECT}/secrets"
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            platform.secrets |= {entry["name"]: entry["value"] for entry in body}
        answer = b"" if status == 201 else b'{"message":"no"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Silent: a test prints what it needs."""


@contextlib.contextmanager
def running_platform() -> Iterator[Platform]:
    """The stand-in on a free loopback port."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.platform = Platform(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
