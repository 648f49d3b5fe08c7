"""The real service for tests: a uvicorn process, its models' processes, and proof of their end."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import trustme

from tests.waiting import LIMIT_S, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


def command_line(process: psutil.Process) -> list[str]:
    """Its arguments; [] once it has ended, a zombie included: it may while it is listed."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def children_of(process: psutil.Process, recursive: bool = False) -> list[psutil.Process]:
    """What it has started and not ended yet; [] once it has ended itself."""
    try:
        return process.children(recursive=recursive)
    except psutil.Error:
        return []


def kill(processes: Iterable[psutil.Process]) -> None:
    """kill -9 each; one that has just ended by itself is no failure of the test."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


@dataclass
class Service:
    """A running service. `http` is a client of its address."""

    child: subprocess.Popen[bytes]
    http: httpx.Client
    state: Path
    log_path: Path

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return str(self.http.base_url).rstrip("/")

    def descendants(self) -> list[psutil.Process]:
        """Every process that the service has started, and theirs."""
        return children_of(psutil.Process(self.child.pid), recursive=True)

    def servers(self) -> list[psutil.Process]:
        """The models' coglet servers."""
        return [p for p in self.descendants() if "cog.server.http" in command_line(p)]

    def workers(self) -> list[psutil.Process]:
        """The models' worker processes: children of coglet servers."""
        return [c for s in self.servers() for c in children_of(s)]

    def spooled(self) -> list[str]:
        """Names of the files in the spool."""
        return sorted(p.name for p in (self.state / "spool").iterdir())

    def model(self, name: str) -> dict[str, Any]:
        """The model's part of /status, as this machine's own programs see it."""
        local = {"Authorization": f"Bearer {(self.state / 'local_key').read_text()}"}
        view: dict[str, Any] = self.http.get("/status", headers=local).json()["models"][name]
        return view

    def when_ended(self, accepted: httpx.Response) -> dict[str, Any]:
        """The prediction of an answer 202, which a busy machine gives after a minute, once it has
        ended. Fails after five minutes."""
        url = accepted.json()["urls"]["get"]

        def ended() -> dict[str, Any] | None:
            record: dict[str, Any] = self.http.get(url).json()
            return None if record["status"] in ("starting", "processing") else record

        record: dict[str, Any] = wait_until(ended, 300.0)
        return record

    def stop(self, number: int = signal.SIGINT, timeout_s: float = LIMIT_S) -> int:
        """Send the signal as Ctrl-C would, wait for the end, prove that nothing is left."""
        started = [*self.descendants()]
        self.child.send_signal(number)
        code = self.child.wait(timeout_s)
        _, alive = psutil.wait_procs(started, timeout=60)
        assert not alive, f"left behind: {[command_line(p) for p in alive]}"
        return code

    def log(self) -> str:
        """What the service printed."""
        return self.log_path.read_text(errors="replace")


@dataclass(frozen=True)
class Tls:
    """A certificate for 127.0.0.1 with its key, and whom to trust for it; made in a folder."""

    server: Path
    authority: Path

    @classmethod
    def make(cls, folder: Path) -> Tls:
        """A new one."""
        made = cls(folder / "server.pem", folder / "authority.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(made.authority)
        chain = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        chain.write_to_path(made.server)
        return made

    def argv(self) -> Sequence[str]:
        """For uvicorn."""
        return ["--ssl-keyfile", str(self.server), "--ssl-certfile", str(self.server)]


@contextlib.contextmanager
def running_service(
    packages: Path,
    state: Path,
    env: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    port: int = 0,
    *,
    tls: Tls | None = None,
) -> Iterator[Service]:
    """Start the service as README says and stop it at the end, whatever the test did."""
    port = port or free_port()
    command = argv or [str(Path(sys.executable).parent / "uvicorn"), "api:app"]
    state.parent.mkdir(parents=True, exist_ok=True)
    log_path = state.parent / f"{state.name}.log"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [*command, "--port", str(port), *(tls.argv() if tls else ())],
            cwd=ROOT,
            env={
                **clean,
                "CALLME_PACKAGES_DIR": str(packages),
                "CALLME_STATE_DIR": str(state),
                **(env or {}),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    # Reading the system's authorities takes 45 ms of processor time: not for a plain address.
    verify = ssl.create_default_context(cafile=tls.authority) if tls else False
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    with httpx.Client(base_url=url, timeout=240, verify=verify) as http:
        service = Service(child, http, state, log_path)
        try:
            wait_until(lambda: _answers(service))
            yield service
        finally:
            if child.poll() is None:
                service.stop()


def _answers(service: Service) -> bool:
    assert service.child.poll() is None, service.log()
    try:
        return service.http.get("/health").status_code == 200
    except httpx.TransportError:
        return False
