"""Other versions of PyPI's packages than the environment's, installed once into var/pypi; a test
that needs one is skipped without it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import ROOT

CACHE = Path(os.environ.get("CALLME_PYPI_CACHE", ROOT / "var" / "pypi"))
INSTALL_S = 240


def pypi_folder(package: tuple[str, str]) -> Path:
    """A folder to put on PYTHONPATH, with `package` (name, version) and what it needs."""
    wanted = "==".join(package)
    folder = CACHE / wanted
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # another run of the tests may be at it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".installed").exists():
            _install(wanted, folder)
            (folder / ".installed").touch()
    return folder


def _install(wanted: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    constraints = str(ROOT / "constraints.txt")
    lines = Path(constraints).read_text().splitlines()
    name = wanted.partition("==")[0]
    kept = folder / "constraints.txt"  # the pin of the package itself is what differs
    kept.write_text("\n".join(line for line in lines if not line.startswith(f"{name}==")))
    try:
        done = subprocess.run(
            [*command, "-c", str(kept), wanted],
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"needs {wanted} from PyPI: not there after {INSTALL_S} s")
    if done.returncode != 0:
        pytest.skip(f"needs {wanted} from PyPI: {done.stderr.strip()[-300:]}")


def python(folder: Path, script: str, given: dict[str, Any], env: dict[str, str]) -> Any:
    """What the script prints last, a line of JSON, when it is given this on its input."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
