"""`callme ray` without Ray: what it writes, and what it says when there is no cluster."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from router.cli import app
from tests.waiting import free_port

HERE = Path(__file__).parent
ECHO = HERE.parents[1] / "packages" / "echo"


@pytest.fixture
def cluster_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A serve.yaml of two models, one on GPUs, with fronts on two machines."""
    monkeypatch.chdir(tmp_path)
    for name in ("echo", "large"):
        shutil.copytree(ECHO, tmp_path / name, ignore=shutil.ignore_patterns(".cog"))
    config = tmp_path / "large" / "cog.yaml"
    config.write_text(config.read_text().replace("build:", 'build:\n  gpu: true\n  cuda: "13.0"'))
    _run("init", str(tmp_path / "echo"), str(tmp_path / "large"), "--head", "10.0.0.1")
    return tmp_path / "serve.yaml"


def _run(*argv: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["ray", *argv])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


def _manifest(*argv: str) -> dict[str, Any]:
    return dict(yaml.safe_load(_run("kubernetes", "--image", "callme:1", *argv)))


def test_the_rayservice_is_what_kuberay_requires(cluster_file: Path) -> None:
    """Its fields and types are those of KubeRay's CRD, and its own further rules hold."""
    found = _manifest()
    schema = yaml.safe_load((HERE / "rayservice_schema.yaml").read_text())
    jsonschema.validate(found, schema)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayService")
    cluster = found["spec"]["rayClusterConfig"]
    # KubeRay's validation.go: labels are no start parameter, and a pod needs a container.
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"] == {}
        assert len(group["template"]["spec"]["containers"]) == 1


def test_the_rayservice_has_the_same_cluster(cluster_file: Path) -> None:
    """serve.yaml word for word, a pod for each machine with a front, and up to three GPUs."""
    spec = _manifest("--memory", "64Gi")["spec"]
    assert spec["serveConfigV2"] == cluster_file.read_text()
    cluster = spec["rayClusterConfig"]
    assert cluster["headGroupSpec"]["labels"] == {"callme": "front"}
    front, gpu = cluster["workerGroupSpecs"]
    assert (front["labels"], front["minReplicas"], front["maxReplicas"]) == (
        {"callme": "front"},
        1,
        1,
    )
    assert (gpu["labels"], gpu["minReplicas"], gpu["maxReplicas"]) == ({}, 0, 3)
    (container,) = gpu["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["limits"]["memory"] == "64Gi"


def test_the_rayservice_has_the_digests_of_now(cluster_file: Path) -> None:
    """A new source of one package changes its digest, and not the file."""
    before = cluster_file.read_text()
    source = cluster_file.parent / "echo" / "run.py"
    source.write_text(source.read_text() + "\n")
    after = _manifest()["spec"]["serveConfigV2"]
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    assert Counter(old == new for old, new in lines)[False] == 1
    assert cluster_file.read_text() == before


def test_another_port_is_refused(cluster_file: Path) -> None:
    """KubeRay's service of a cluster leads to 8000."""
    cluster_file.write_text(cluster_file.read_text().replace("port: 8000", "port: 8001"))
    assert "must be 8000" in _run("kubernetes", "--image", "callme:1", code=1)


def test_status_without_a_cluster() -> None:
    """It says whom it asked, and what to do."""
    printed = _run("status", "--dashboard", f"http://127.0.0.1:{free_port()}", code=1)
    assert "Cannot ask the head's dashboard" in printed
    assert "Run this on the head" in printed
