"""The Modal app: what the real `modal deploy` asks Modal for."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.isolated import ROOT, files_in_image
from tests.packaging.modal_control_plane import ControlPlane, control_plane

DEPLOY = ROOT / "deploy"
PACKAGES = sorted(p.parent.name for p in ROOT.glob("*/cog.yaml"))
EVERYTHING = {
    "build": {
        "python_version": "3.11",
        "sdk_version": "0.23.1",
        "python_requirements": "requirements.txt",
        "system_packages": ["ffmpeg", "libsndfile1"],
        "run": ["echo one > /one", {"command": "echo two > /two"}],
    },
    "run": "run.py:Runner",
    "environment": ["OMP_WAIT_POLICY=PASSIVE", "URL=http://x/?a=b"],
}
EVERYTHING_RUN = """
from cog import BaseRunner, concurrent
class Runner(BaseRunner):
    @concurrent(max=7)
    async def run(self, text: str) -> str:
        return text
"""


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """A control plane that has not been asked anything."""
    with control_plane() as plane:
        yield plane


def deploy(plane: ControlPlane, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """The real `modal deploy`, with nothing of this machine's own Modal account."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MODAL_")}
    told = {
        "HOME": str(home),
        "MODAL_SERVER_URL": plane.url,
        "MODAL_TOKEN_ID": "ak-test",
        "MODAL_TOKEN_SECRET": "as-test",
    }
    return subprocess.run(
        [str(Path(sys.executable).parent / "modal"), "deploy", str(DEPLOY / "modal_app.py")],
        cwd=home,
        env={**env, **told, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def dockerfile(plane: ControlPlane) -> list[str]:
    """Every line that builds the image, in order, without each layer's FROM base."""
    layers = [r["image"]["dockerfileCommands"] for r in plane.requests("ImageGetOrCreate")]
    return [line for layer in layers for line in layer if line != "FROM base"]


def the_function(plane: ControlPlane) -> dict[str, Any]:
    """The one function that was asked for."""
    (request,) = plane.requests("FunctionCreate")
    return dict(request["function"])


def concurrency_of(folder: Path) -> int:
    """n of `@concurrent(max=n)` in run.py, by eye as it were; 1 without."""
    found = re.search(r"@(?:cog\.)?concurrent\(max=(\w+)\)", (folder / "run.py").read_text())
    if found is None or found[1].isdigit():
        return int(found[1]) if found else 1
    (value,) = re.findall(rf"^{found[1]} = (\d+)", (folder / "run.py").read_text(), re.M)
    return int(value)


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_deploys(plane: ControlPlane, tmp_path: Path, name: str) -> None:
    """CUDA, Python, requirements and the folder from cog.yaml; GPU, snapshot, volume, token."""
    done = deploy(plane, tmp_path, MODEL=name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert plane.unknown == []
    build = yaml.safe_load((ROOT / name / "cog.yaml").read_text())["build"]
    lines = dockerfile(plane)
    assert re.match(rf"FROM nvidia/cuda:{re.escape(build['cuda'])}\.\d+-cudnn-devel-", lines[0])
    (install,) = [line for line in lines if "uv pip install" in line]
    assert "requirements.txt" in install
    layers = [r["image"] for r in plane.requests("ImageGetOrCreate")]
    sent = {f["filename"]: f["data"] for layer in layers for f in layer.get("contextFiles", [])}
    (data,) = [data for path, data in sent.items() if path.endswith("requirements.txt")]
    assert base64.b64decode(data) == (ROOT / name / "requirements.txt").read_bytes()
    files = {f["filename"] for r in plane.requests("MountGetOrCreate") for f in r.get("files", [])}
    modules = {f"/root/{name}.py" for name in ("modal_front", "cog_server", "cog_image")}
    assert {"/src/run.py", "/src/cog.yaml", *modules} <= files
    sources = {f.removeprefix("/src/") for f in files if f.startswith("/src/")}
    assert sources == files_in_image(ROOT / name)
    assert "runner_schema.py run.py:Runner" in lines[-1]
    function = the_function(plane)
    assert function["resources"]["gpuConfig"] == {"count": 1, "gpuType": "L4"}
    assert function["maxConcurrentInputs"] == concurrency_of(ROOT / name)
    assert function["checkpointingEnabled"] is True
    assert function["experimentalOptions"] == {"enable_gpu_snapshot": "True"}
    assert [m["mountPath"] for m in function["volumeMounts"]] == ["/weights"]
    assert function["autoscalerSettings"] == {
        "minContainers": 0,
        "maxContainers": 3,
        "scaledownWindow": 300,
    }
    webhook = function["methodDefinitions"]["web"]["webhookConfig"]
    assert (webhook["type"], webhook["requiresProxyAuth"]) == ("WEBHOOK_TYPE_ASGI_APP", True)
    (published,) = plane.requests("AppPublish")
    assert published["name"] == f"callme-{name}"


def made_package(folder: Path, config: dict[str, Any]) -> Path:
    """A package that has everything that cog.yaml can ask for."""
    folder.mkdir()
    (folder / "cog.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.py").write_text(EVERYTHING_RUN)
    (folder / "requirements.txt").write_text("numpy==2.4.6\n")
    return folder


def test_what_cog_yaml_says_and_what_is_set(plane: ControlPlane, tmp_path: Path) -> None:
    """System packages, run commands, environment, concurrency; every setting of the deploy."""
    made_package(tmp_path / "everything", EVERYTHING)
    done = deploy(
        plane,
        tmp_path,
        **{"MODEL": "everything", "PACKAGES_DIR": str(tmp_path), "SNAPSHOT": "off"},
        **{"SCALEDOWN_S": "60", "MIN_CONTAINERS": "1", "MAX_CONTAINERS": "9"},
        **{"SECRETS": "huggingface,other", "PREDICT_TIMEOUT_S": "120", "SETUP_TIMEOUT_S": "99"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = dockerfile(plane)
    assert lines[0].startswith("FROM python:3.11")
    text = "\n".join(lines)
    assert re.search(r"apt-get install .*ffmpeg.*libsndfile1", text)
    assert "cog==0.23.1" in text  # requirements.txt does not name it
    assert text.index("RUN echo one > /one") < text.index("RUN echo two > /two")
    assert "ENV OMP_WAIT_POLICY=PASSIVE" in text
    assert "ENV SNAPSHOT=off" in text
    assert re.search(r"ENV URL=.?http://x/\?a=b", text)
    function = the_function(plane)
    assert "gpuType" not in function["resources"].get("gpuConfig", {})
    assert function["maxConcurrentInputs"] == 7
    assert not function.get("checkpointingEnabled", False)
    assert (function["timeoutSecs"], function["startupTimeoutSecs"]) == (120, 99)
    assert function["autoscalerSettings"] == {
        "minContainers": 1,
        "maxContainers": 9,
        "scaledownWindow": 60,
    }
    asked = [r["deploymentName"] for r in plane.requests("SecretGetOrCreate")]
    assert asked == ["huggingface", "other"]


def test_what_cannot_be_deployed_is_told(plane: ControlPlane, tmp_path: Path) -> None:
    """Before Modal is asked for anything, in words: no MODEL, no such folder, no such CUDA."""
    build = {"python_version": "3.11", "gpu": True, "cuda": "12.7"}
    made_package(tmp_path / "wrong", {**EVERYTHING, "build": build})
    wrong = {"MODEL": "wrong", "PACKAGES_DIR": str(tmp_path)}
    for settings, told in (
        ({}, "MODEL must name a folder"),
        ({"MODEL": "nosuch"}, "MODEL must name a folder"),
        (wrong, "`build.cuda` must be one of"),
    ):
        done = deploy(plane, tmp_path, **settings)
        assert done.returncode != 0
        assert told in done.stdout + done.stderr
    assert plane.calls == []


def test_the_fronts_versions_are_the_projects() -> None:
    """What Modal's image gets beside the package is pinned as in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (DEPLOY / "modal_app.py").read_text()
    (named,) = re.findall(r"FRONT_PACKAGES = \(([^)]*)\)", text)
    pinned = re.findall(r'"([^"]+)"', named)
    assert pinned
    assert set(pinned) <= set(project["dependencies"])
