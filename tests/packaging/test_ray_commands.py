"""`callme ray` without Ray: the files that it writes, what it refuses, how it calls Ray's tools.

tests/ray runs the same commands with Ray (`make test-ray`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.packaging.isolated import ROOT, UNCOPIED

TOOL = """#!{python}
import json, os, pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("ray, version {version}")
    sys.exit()
seen = {{"argv": sys.argv[1:], "env": dict(os.environ)}}
pathlib.Path({record!r}).write_text(json.dumps(seen))
"""
(PINNED,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)


class Machine:
    """A folder with two copies of echo, and `ray` and `serve` that write down how they are
    called."""

    def __init__(self, folder: Path, version: str = PINNED) -> None:
        self.folder = folder
        self.file = folder / "serve.yaml"
        for name in ("echo", "second"):
            ignored = shutil.ignore_patterns(*UNCOPIED)
            source = ROOT / "tests" / "packages" / "echo"
            shutil.copytree(source, folder / name, ignore=ignored)
        (folder / "bin").mkdir()
        for tool in ("ray", "serve"):
            path = folder / "bin" / tool
            record = str(folder / f"{tool}.json")
            path.write_text(TOOL.format(python=sys.executable, record=record, version=version))
            path.chmod(0o755)

    def callme(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """`callme ray`, in this folder."""
        env = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CALLME_KEYS": "web:" + 32 * "k",
            "CALLME_STATE_DIR": str(self.folder / "state"),
        }
        command = [sys.executable, "-m", "router.cli", "ray", *argv]
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )

    def init(self) -> None:
        """Write the files."""
        done = self.callme("init", "./echo", "./second", "--head", "10.0.0.1")
        assert done.returncode == 0, done.stderr

    def digests(self) -> dict[str, str]:
        """Those in serve.yaml, by application."""
        found = yaml.safe_load(self.file.read_text())["applications"]
        return {a["name"]: a["args"]["digest"] for a in found}

    def asked(self, tool: str) -> dict[str, object]:
        """How the tool was called."""
        return dict(json.loads((self.folder / f"{tool}.json").read_text()))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With the pinned version of Ray."""
    return Machine(tmp_path)


def test_only_what_has_changed_is_deployed_again(machine: Machine) -> None:
    """Its digest changes; the other package has the same source, and keeps its own."""
    machine.init()
    before = machine.digests()
    assert before["echo"] == before["second"]
    (machine.folder / "second" / "more.py").write_text("X = 1\n")
    done = machine.callme("deploy", "--dashboard", "http://10.0.0.1:8265")
    assert "second: new source" in done.stderr
    assert "echo:" not in done.stderr
    after = machine.digests()
    assert after["echo"] == before["echo"] != after["second"]
    asked = machine.asked("serve")
    assert asked["argv"] == ["deploy", "serve.yaml", "--address", "http://10.0.0.1:8265"]
    assert not [n for n in dict(asked["env"]) if n.startswith("CALLME_")]  # type: ignore[call-overload]


def test_the_units_are_understood(machine: Machine) -> None:
    """`systemd-analyze verify` says nothing of them, and they start what exists."""
    if not (verify := shutil.which("systemd-analyze")):
        pytest.skip("needs systemd-analyze")
    machine.init()
    for role, says in (("head", "--address 10.0.0.1"), ("front", "--front"), ("worker", "--join")):
        unit = machine.folder / f"callme-ray-{role}.service"
        text = unit.read_text()
        assert says in text
        unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M))
        done = subprocess.run(
            [verify, "verify", "--man=no", unit], capture_output=True, text=True, check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        assert not [line for line in lines if unit.name in line]


def test_machines_of_the_cluster(machine: Machine) -> None:
    """The head keeps the cluster's state, another one joins; both without the router's keys."""
    machine.callme("up", "--address", "127.0.0.1", "--port", "0", "--dashboard-port", "0")
    asked = machine.asked("ray")
    argv, env = list(asked["argv"]), dict(asked["env"])  # type: ignore[call-overload]
    assert {"--head", "--block", "--labels=callme=front", "--dashboard-host=127.0.0.1"} <= set(argv)
    assert env["RAY_gcs_storage_path"] == str(machine.folder / "state" / "ray-gcs")
    assert env["PYTHONPATH"] == str(ROOT / "deploy")
    assert "CALLME_KEYS" not in env
    machine.callme("up", "--join", "10.0.0.1", "--gpus", "2")
    argv = list(machine.asked("ray")["argv"])  # type: ignore[call-overload]
    assert {"--address=10.0.0.1:6379", "--num-gpus=2"} <= set(argv)
    assert "--labels=callme=front" not in argv


def test_what_is_refused(machine: Machine, tmp_path: Path) -> None:
    """Each with its reason: a public address, no role, a file that exists, another Ray."""
    assert "is not private" in machine.callme("up", "--address", "8.8.8.8").stderr
    assert "--join on another" in machine.callme("up").stderr
    machine.init()
    again = machine.callme("init", "./echo", "--head", "10.0.0.1")
    assert "it exists" in again.stderr
    other = Machine(tmp_path / "other", version="2.50.0")
    refused = other.callme("up", "--address", "127.0.0.1")
    assert (refused.returncode, "2.50.0 is installed" in refused.stderr) == (1, True)
    assert not (other.folder / "ray.json").exists()
