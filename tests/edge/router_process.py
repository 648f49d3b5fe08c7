"""The real router for tests of the functions, with a package of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from deno_server import ROOT
from postgres import free_port

START_S = 240.0
STOP_S = 30.0


@dataclass
class RouterProcess:
    """A running router."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """As if the machine had lost its power."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)


@contextmanager
def running_router(
    packages: Path,
    state: Path,
    key: str,
    env: Mapping[str, str] | None = None,
    *,
    public: bool = False,
) -> Iterator[RouterProcess]:
    """A router on a free loopback port, with one key (`id:secret`). It may reach this machine.

    `public`: it is `callme up --public`, which finds its tunnel and the platform by `env`.
    """
    state.mkdir(mode=0o700, exist_ok=True)
    port = free_port()
    log = state.with_suffix(".log")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    settings = {
        "CALLME_PACKAGES_DIR": str(packages),
        "CALLME_STATE_DIR": str(state),
        "CALLME_KEYS": key,
        "CALLME_ALLOW_PRIVATE_URLS": "true",
    }
    with log.open("ab") as out:
        command = ["router.cli", "up", "--public"] if public else ["uvicorn", "api:app"]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=ROOT,
            env={**clean, **settings, **(env or {})},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    router = RouterProcess(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(router)
        yield router
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_S)


def _wait_for(router: RouterProcess) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert router.process.poll() is None, router.log.read_text(errors="replace")
        try:
            if httpx.get(f"{router.url}/health", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(router.log.read_text(errors="replace"))
