"""What the router's benchmarks share: servers in sessions of their own, and requests as bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
ROUTER_PYTHON = ROOT / ".venv" / "bin" / "python"
# As long as Chrome makes it: how fast a server finds the end of a part depends on that.
BOUNDARY = "----WebKitFormBoundary0123456789abcdef"


def http_post(path: str, content_type: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def form(path: str, disposition: str, body: bytes) -> bytes:
    """A form of one part."""
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()
    whole = part + body + f"\r\n--{BOUNDARY}--\r\n".encode()
    return http_post(path, f"multipart/form-data; boundary={BOUNDARY}", whole)


class Client:
    """One blocking connection: it adds less to what is measured than any event loop."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """One request and its answer: status and body."""
        self._socket.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._read()
        head, _, body = got.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        while len(body) < length:
            body += self._read()
        return int(head[9:12]), body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self) -> bytes:
        piece = self._socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server hung up")
        return piece


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for(port: int, request: bytes, timeout_s: float = 60) -> float:
    """Seconds until the request is answered 200."""
    began = time.perf_counter()
    while time.perf_counter() - began < timeout_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
            s.settimeout(30)
            s.sendall(request)
            if s.recv(12).endswith(b"200"):
                return time.perf_counter() - began
        time.sleep(0.005)
    raise TimeoutError(f"port {port} does not answer")


@contextlib.contextmanager
def running(argv: list[str], cwd: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server in its own session, ended with everything it started."""
    log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
    child = subprocess.Popen(
        argv, cwd=cwd, env={**os.environ, **env}, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def rss_mib(pid: int) -> float:
    """Resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def coglet(stack: contextlib.ExitStack, folder: Path) -> int:
    """coglet on the echo package, with its schema."""
    port = free_port()
    bin_dir = BENCH_PYTHON.parent
    env = {
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": "run.py:Runner",
        "COG_SETUP_TIMEOUT": "60",
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
    }
    argv = [str(BENCH_PYTHON), "-m", "cog.server.http", "--host", "127.0.0.1"]
    stack.enter_context(running(argv, folder, env))
    wait_for(port, http_post("/predictions", "application/json", b'{"input":{}}'))
    return port
