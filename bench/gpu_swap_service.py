"""The router in a process of its own, for `bench/gpu_swap_router.py`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.gpu_rows import ROOT

READY_WITHIN_S = 120.0
ANSWER_WITHIN_S = 120.0
ENDS_WITHIN_S = 30.0
POLL_S = 0.005
WORKER = "coglet.server._run_worker"  # in a worker's command line


class Service:
    """A running router. Every wait has a limit and raises TimeoutError."""

    def __init__(self, child: subprocess.Popen[bytes], url: str, state: Path, log: Path) -> None:
        self._child = child
        self._state = state
        self._log = log
        self._http = httpx.Client(base_url=url, timeout=ANSWER_WITHIN_S)

    def ask(self, name: str) -> tuple[float, str]:
        """Return the seconds until the answer, and the answer. Raises RuntimeError when refused."""
        status, seconds, answer = self.try_ask(name)
        if status != 200:
            raise RuntimeError(f"{name}: {status} {answer}\n{self.log_tail()}")
        return seconds, answer

    def try_ask(self, name: str) -> tuple[int, float, str]:
        """Return the status, the seconds until the answer, and the answer."""
        began = time.perf_counter()
        answer = self._http.post(f"/{name}", files={"seed": (None, "1")})
        seconds = time.perf_counter() - began
        text = str(answer.json()) if answer.status_code == 200 else answer.text
        return answer.status_code, seconds, text

    def ask_again(self, name: str, within_s: float) -> tuple[list[int], float, str]:
        """Ask until there is an answer. Return the refusals, the seconds and the answer."""
        began, refused = time.perf_counter(), list[int]()
        while True:
            status, _, answer = self.try_ask(name)
            seconds = time.perf_counter() - began
            if status == 200:
                return refused, seconds, answer
            refused.append(status)
            if seconds > within_s:
                return refused, seconds, ""
            time.sleep(0.5)

    def model(self, name: str) -> dict[str, Any]:
        """What /status says of a model."""
        local = {"Authorization": f"Bearer {(self._state / 'local_key').read_text()}"}
        view: dict[str, Any] = self._http.get("/status", headers=local).json()["models"][name]
        view.setdefault("sleep", {})
        return view

    def sleep_of(self, name: str) -> dict[str, Any]:
        """What /status says of its sleep."""
        view: dict[str, Any] = self.model(name)["sleep"]
        return view

    def brief(self, name: str) -> dict[str, Any]:
        """The part of /status that is about memory and loads."""
        view = self.model(name)
        return {
            key: view[key] for key in ("state", "memory_bytes", "held_bytes", "load_s", "loads")
        }

    def worker(self, name: str) -> psutil.Process:
        """The worker of a model, which runs in the folder of its package."""
        for process in psutil.Process(self._child.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(WORKER in part for part in process.cmdline()) and (
                    Path(process.cwd()).name == name
                ):
                    return process
        raise RuntimeError(f"{name} has no worker")

    def wait_ready(self) -> float:
        """Wait until all packages have been read. Return the seconds."""

        def is_ready() -> bool:
            if self._child.poll() is not None:
                raise RuntimeError(f"The router has ended\n{self.log_tail()}")
            try:
                return self._http.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

        return self._wait(is_ready, READY_WITHIN_S, 0.05)

    def wait_staged(self, name: str, within_s: float) -> float | None:
        """Wait until the model's memory is copied. Return the seconds, None after `within_s`."""
        with contextlib.suppress(TimeoutError):
            return self._wait(lambda: bool(self.sleep_of(name).get("copied")), within_s, 0.05)
        return None

    def wait_state(self, name: str, state: str, within_s: float) -> bool:
        """Wait until the model is in this state. False when that was not seen within the time."""
        with contextlib.suppress(TimeoutError):
            self._wait(lambda: self.model(name)["state"] == state, within_s, POLL_S)
            return True
        return False

    def _wait(self, condition: Callable[[], bool], within_s: float, poll_s: float) -> float:
        began = time.perf_counter()
        while not condition():
            if time.perf_counter() - began > within_s:
                raise TimeoutError(f"not within {within_s} s\n{self.log_tail()}")
            time.sleep(poll_s)
        return time.perf_counter() - began

    def log_tail(self) -> str:
        """The last that the router said."""
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> int:
        """Stop the router as Ctrl-C does. Return how many of its processes are still there."""
        self._http.close()
        if self._child.poll() is not None:
            return 0
        started = psutil.Process(self._child.pid).children(recursive=True)
        self._child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(ENDS_WITHIN_S)
        _, alive = psutil.wait_procs(started, timeout=5)
        return len(alive) + (self._child.poll() is None)


@contextlib.contextmanager
def running(
    packages: Path, state: Path, settings: Mapping[str, str], log: Path
) -> Iterator[Service]:
    """Start a router, and end it whatever happens. Its models end with it."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = {**own, "PYTHONPATH": path, "CALLME_STATE_DIR": str(state), **settings}
    argv = [sys.executable, "-m", "router.cli", "serve", "--packages", str(packages)]
    with log.open("ab") as file:
        child = subprocess.Popen(
            [*argv, "--port", str(port)], cwd=packages, env=env, stdout=file, stderr=file
        )
    service = Service(child, f"http://127.0.0.1:{port}", state, log)
    try:
        yield service
    finally:
        service.stop()
        child.kill()
        child.wait()
