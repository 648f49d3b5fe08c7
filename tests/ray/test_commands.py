"""`callme ray`: a cluster of one machine, from its files to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

pytest.importorskip("ray.serve", reason="needs Ray: make test-ray installs ray[serve]")

from tests.ray.cluster import ROOT, copy_package
from tests.waiting import free_port, wait_until

pytestmark = pytest.mark.slow
HEAD = "127.0.0.1"
START_S = 300.0


class Commands:
    """A folder with an echo package, its cluster's files, and free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = copy_package("echo", folder)
        self.file = folder / "serve.yaml"
        self.port, self.dashboard, self.http = free_port(), free_port(), free_port()
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CALLME_STATE_DIR": str(folder / "state"),
            # A raylet gives its agents 15 s to start: little on a busy machine.
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_worker_niceness": "0",
        }

    def callme(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """`callme ray` with these arguments."""
        command = [sys.executable, "-m", "router.cli", "ray", *argv]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )

    def at_head(self, *argv: str) -> str:
        """The output of a command that asks the head; it must succeed."""
        done = self.callme(*argv, "--dashboard", f"http://{HEAD}:{self.dashboard}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def says(self) -> str:
        """The text that echo gives back."""
        url = f"http://{HEAD}:{self.http}/models/echo/predictions"
        answer = httpx.post(url, json={"input": {"text": "hi"}}, timeout=120)
        return str(answer.json()["output"]["text"]) if answer.status_code == 200 else answer.text


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    """With the first machine of a cluster running."""
    made = Commands(tmp_path)
    ports = ("--port", str(made.port), "--dashboard-port", str(made.dashboard))
    command = [sys.executable, "-m", "router.cli", "ray", "up", "--address", HEAD, *ports]
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [*command, "--gpus", "1"], cwd=tmp_path, env=made.env, stdout=log, stderr=log
        )
    try:
        yield made
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(60)


def test_from_its_files_to_its_end(commands: Commands) -> None:
    """init, up, deploy, status, new source, deploy again, down."""
    done = commands.callme("init", str(commands.package), "--head", HEAD, "--fronts", "1")
    assert done.returncode == 0, done.stderr
    units = sorted(path.name for path in commands.folder.glob("*.service"))
    assert units == [f"callme-ray-{role}.service" for role in ("front", "head", "worker")]
    again = commands.callme("init", str(commands.package), "--head", HEAD)
    assert (again.returncode, "it exists" in again.stderr) == (1, True)
    text = commands.file.read_text().replace("port: 8000", f"port: {commands.http}")
    text = text.replace("num_gpus: 0", "num_gpus: 1").replace("max_replicas: 3", "max_replicas: 1")
    commands.file.write_text(text)
    wait_until(lambda: _answers(commands), START_S)
    commands.at_head("deploy")
    wait_until(lambda: commands.says() == "hi", START_S)
    _check_status(commands)
    source = commands.package / "run.py"
    source.write_text(source.read_text().replace("text=text,", 'text=f"new {text}",'))
    commands.at_head("deploy")
    wait_until(lambda: commands.says() == "new hi", START_S)
    digest = yaml.safe_load(commands.file.read_text())["applications"][0]["args"]["digest"]
    assert digest not in text
    commands.at_head("down")
    wait_until(lambda: "echo" not in commands.at_head("status"), START_S)


def _check_status(commands: Commands) -> None:
    """One prediction runs and one waits: status says so, and how many GPUs are used."""
    url = f"http://{HEAD}:{commands.http}/models/echo/predictions"

    def columns() -> list[list[str]]:
        return [line.split() for line in commands.at_head("status").splitlines()]

    # Ray counts the GPUs in use every some seconds.
    wait_until(lambda: columns()[-1][1:] == ["alive", "yes", "1", "1"], START_S)
    models, model, _, machines, _ = columns()
    assert models == ["model", "status", "fronts", "replicas", "running", "waiting", "message"]
    assert model == ["echo", "running", "1", "running", "1", "running", "0", "0"]
    assert machines == ["machine", "state", "head", "gpus", "used", "gpus"]

    def load() -> list[int]:
        (model,) = json.loads(commands.at_head("status", "--json"))["models"]
        return [model["running"], model["waiting"]]

    with ThreadPoolExecutor(2) as clients:
        body = {"input": {"delay_s": 600}}
        for name in ("first", "second"):
            clients.submit(httpx.put, f"{url}/{name}", json=body, timeout=600)
        try:
            wait_until(lambda: load() == [1, 1], START_S)
        finally:
            for name in ("second", "first"):
                httpx.post(f"{url}/{name}/cancel", timeout=60)


def _answers(commands: Commands) -> bool:
    try:
        url = f"http://{HEAD}:{commands.dashboard}/api/version"
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
