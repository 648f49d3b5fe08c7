"""`callme build`, `push` and `modal deploy`: the other tools are called as they should be."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.packaging.isolated import ROOT
from tests.packaging.modal_control_plane import control_plane

CALLME = Path(sys.executable).parent / "callme"
COG_STAND_IN = """#!{python}
import json, os, pathlib, sys
seen = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ)}}
pathlib.Path({record!r}).write_text(json.dumps(seen))
print("built")
sys.exit({status})
"""


def callme(*argv: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The real command."""
    return subprocess.run(
        [str(CALLME), *argv],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def cog_on_path(tmp_path: Path, status: int = 0) -> tuple[dict[str, str], Path]:
    """An environment with a `cog` that writes down how it was called."""
    record = tmp_path / "record.json"
    cog = tmp_path / "bin" / "cog"
    cog.parent.mkdir()
    text = COG_STAND_IN.format(python=sys.executable, record=str(record), status=status)
    cog.write_text(text)
    cog.chmod(cog.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{cog.parent}:{os.environ['PATH']}", "CALLME_KEYS": "web:" + 32 * "k"}, record


def test_build_calls_cog_in_the_folder(tmp_path: Path) -> None:
    """With a tag, further options, and none of the router's own settings, which hold keys."""
    env, record = cog_on_path(tmp_path)
    done = callme("build", "grounding", "--no-cache", env=env)
    assert done.returncode == 0, done.stderr
    assert "built" in done.stdout
    seen = json.loads(record.read_text())
    assert seen["argv"] == ["build", "--tag", "callme-grounding", "--no-cache"]
    assert seen["cwd"] == str(ROOT / "grounding")
    assert not [name for name in seen["env"] if name.startswith("CALLME_")]


def test_push_names_the_place(tmp_path: Path) -> None:
    """A folder will do as well as a name; cog's own failure is passed on."""
    env, record = cog_on_path(tmp_path, status=7)
    done = callme("push", "tests/packages/echo", "r8.im/me/echo", env=env)
    assert done.returncode == 7
    assert json.loads(record.read_text())["argv"] == ["push", "r8.im/me/echo"]


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    """No cog: what to install, or the way without it. No such model."""
    env = {"PATH": str(tmp_path)}
    without = callme("build", "grounding", env=env)
    assert without.returncode == 1
    assert "there is no `cog`" in without.stderr
    assert "python deploy/container.py grounding" in without.stderr
    nosuch = callme("push", "nosuch", "r8.im/me/nosuch", env=env)
    assert nosuch.returncode == 1
    assert "Cannot find a model 'nosuch'" in nosuch.stderr


def test_modal_deploy_is_a_real_deploy(tmp_path: Path) -> None:
    """Against the stand-in of Modal's control plane: what is chosen here arrives there."""
    with control_plane() as plane:
        env = {
            "HOME": str(tmp_path),
            "MODAL_SERVER_URL": plane.url,
            "MODAL_TOKEN_ID": "ak-test",
            "MODAL_TOKEN_SECRET": "as-test",
        }
        options = ["--gpu", "H100", "--max-containers", "2", "--no-snapshot", "--weights", "demo"]
        done = callme("modal", "deploy", "sketch2real", *options, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    (request,) = plane.requests("FunctionCreate")
    function = request["function"]
    assert function["appName"] == "callme-sketch2real"
    assert function["resources"]["gpuConfig"]["gpuType"] == "H100"
    assert function["autoscalerSettings"]["maxContainers"] == 2
    assert not function.get("checkpointingEnabled", False)
    lines = [
        line
        for layer in plane.requests("ImageGetOrCreate")
        for line in layer["image"]["dockerfileCommands"]
    ]
    assert "ENV WEIGHTS=demo" in lines
