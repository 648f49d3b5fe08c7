"""Cog's own server on loopback, and what must not reach it. For Modal and for Ray.

coglet 0.23.1 must not be exposed to the internet: it hands `file://` and plain paths to the runner,
joins prediction ids to paths unchecked, and runs the runner at /trainings too. `refusal` says which
requests it must not see. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
FETCHABLE = ("http://", "https://", "data:")
# A clock that jumps when a snapshot is restored may make one health reading bad.
WAKE_LIMIT_S = 30.0
# A shell in the server's process group waits for the end of a pipe that only this process holds
# open, and then kills the group. So the server ends with this process, however that ends.
# The shell ignores SIGTERM: a server whose worker has died does not end by it.
TIED = 'exec 3<&0; { trap "" TERM; read _ <&3; kill -9 0; } & exec "$@" 3<&- </dev/null'


class SetupFailedError(RuntimeError):
    """The runner's set-up failed or took too long; the message has the end of its log."""


class CogServer:
    """One coglet on loopback. Owns its process group.

    `python`: the interpreter. `env`: the environment, if it is not this process's. `tied`: the
    group ends with this process.
    """

    def __init__(
        self,
        folder: Path,
        runner: str,
        *,
        concurrency: int,
        setup_timeout_s: int,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        tied: bool = False,
    ) -> None:
        self.schema_path = folder / ".cog" / "openapi_schema.json"
        self._python = python
        self._env = os.environ if env is None else env
        self._tied = tied
        self._folder = folder
        self._runner = runner
        self._concurrency = concurrency
        self._setup_timeout_s = setup_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._reviving = threading.Lock()
        self.url = ""

    def start(self) -> None:
        """Spawn it and wait for READY. Raises SetupFailedError; then nothing is left of it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [self._python, "-m", "cog.server.http", "--host", "127.0.0.1"]
        self._process = subprocess.Popen(  # noqa: S603 - the package's own server
            ["sh", "-c", TIED, "sh", *command] if self._tied else command,
            cwd=self._folder,
            env={
                **self._env,
                # coglet spawns its worker as bare `python`.
                "PATH": f"{Path(self._python).parent}:{self._env.get('PATH', os.defpath)}",
                "PORT": str(port),
                "COG_PREDICT_TYPE_STUB": self._runner,
                "COG_SETUP_TIMEOUT": str(self._setup_timeout_s),
                "COG_MAX_CONCURRENCY": str(self._concurrency),
            },
            stdin=subprocess.PIPE if self._tied else None,
            start_new_session=True,
        )
        try:
            self._wait_ready(self._setup_timeout_s)
        except BaseException:
            self.stop()
            raise

    def ensure_ready(self) -> None:
        """After a snapshot was restored: wait for READY, or start again."""
        try:
            self._wait_ready(WAKE_LIMIT_S)
        except SetupFailedError:
            self.stop()
            self.start()

    def revive(self) -> None:
        """Start the server again if its worker has died; of several callers one does."""
        with self._reviving:
            if self.health().get("status") not in ("READY", "BUSY"):
                self.stop()
                self.start()

    def stop(self) -> None:
        """End the process group, gently for ten seconds."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    @property
    def ended(self) -> bool:
        """Whether the server's process has ended, or was never started."""
        return self._process is None or self._process.poll() is not None

    def health(self) -> dict[str, Any]:
        """The answer of /health-check, {} when there is none."""
        try:
            with urllib.request.urlopen(f"{self.url}/health-check", timeout=15) as answer:  # noqa: S310
                return dict(json.load(answer))
        except (OSError, ValueError):
            return {}

    def _wait_ready(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while True:
            health = self.health()
            if health.get("status") in ("READY", "BUSY"):
                return
            failed = health.get("status") in ("SETUP_FAILED", "DEFUNCT")
            if failed or self.ended or time.monotonic() > deadline:
                logs = str((health.get("setup") or {}).get("logs") or "")
                raise SetupFailedError(f"Set-up ended {health.get('status')}: {logs[-2000:]}")
            time.sleep(0.1)


def refusal(body: object, schema: Mapping[str, Any]) -> str:
    """Why this request must not reach coglet; "" when it may. What coglet checks itself is
    left to it."""
    if not isinstance(body, dict) or not isinstance(body.get("input", {}), dict):
        return "the body must be a JSON object with an object `input`"
    if body.get("id") is not None and not ID.fullmatch(str(body["id"])):
        return "`id` must be 1 to 128 letters, digits, '-' or '_'"
    properties = schema["components"]["schemas"]["Input"].get("properties", {})
    for name, value in body.get("input", {}).items():
        prop = properties.get(name, {})
        is_file = "uri" in (prop.get("format"), (prop.get("items") or {}).get("format"))
        for one in value if isinstance(value, list) else [value]:
            if is_file and isinstance(one, str) and not one.lower().startswith(FETCHABLE):
                return f"`{name}` must be an http(s) URL or a data: URI"
    return ""
