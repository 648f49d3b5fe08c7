"""Versions are pinned in one place; everything that repeats them agrees with it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import rattler
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PACKAGES = sorted(p.parent.name for p in ROOT.glob("*/cog.yaml"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
PIN = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?==([^;\s]+)")
NOT_INSTALLED = ("ray",)  # extras that `make setup` leaves out


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    """Name to version; every line must be an exact pin."""
    out = {}
    for line in lines:
        match = PIN.fullmatch(line.strip())
        assert match, f"not an exact pin: {line}"
        out[normal(match[1])] = match[2]
    return out


ALL = pins(PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra])


def test_pyproject_pins_each_name_once() -> None:
    """No two extras disagree, and Python is 3.11 to 3.13."""
    for extra in EXTRAS.values():
        for name, version in pins(extra).items():
            assert ALL[name] == version
    assert PROJECT["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_requirements_are_its_extra(package: str) -> None:
    """requirements.txt says what the extra says, no more and no less."""
    lines = (ROOT / package / "requirements.txt").read_text().splitlines()
    told = [line for line in lines if line.strip() and not line.startswith("#")]
    assert pins(told) == pins(EXTRAS[package])


@pytest.mark.parametrize("package", PACKAGES)
def test_a_packages_cog_yaml_agrees(package: str) -> None:
    """The same Python and the same SDK as everywhere."""
    build = yaml.safe_load((ROOT / package / "cog.yaml").read_text())["build"]
    assert build["python_version"] == "3.11"
    assert build["sdk_version"] == ALL["cog"]
    assert build["python_requirements"] == "requirements.txt"


def test_constraints_agree() -> None:
    """constraints.txt has every pin, and no local build's suffix."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints = pins([line for line in lines if line and not line.startswith("#")])
    assert {k: constraints.get(k) for k in ALL} == ALL
    assert not [v for v in constraints.values() if "+" in v]
    assert not constraints.keys() & {"torchvision", "torchaudio", "timm"}


def test_environment_yml() -> None:
    """Its keys, its name, strict match specs for conda, and pip's part equal to the pins."""
    assert set(ENVIRONMENT) == {"name", "channels", "dependencies"}
    assert ENVIRONMENT["name"] == "callme"
    conda = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    names = {str(rattler.MatchSpec(d, strict=True).name).split()[0] for d in conda}
    assert any("python" in n for n in names)
    assert "pip" in conda
    assert rattler.MatchSpec("python=3.11", strict=True).matches is not None
    (pip,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    wanted = pins(
        PROJECT["dependencies"] + [line for package in PACKAGES for line in EXTRAS[package]]
    )
    assert pins(pip) == wanted


def test_environment_yml_installs() -> None:
    """pip finds the whole pip section satisfied by what is installed, with no conflict."""
    (pip,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet", *pip],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_what_is_installed_is_what_is_pinned() -> None:
    """The tests run on the pinned versions, a build suffix aside."""
    from importlib.metadata import version

    left_out = {name for extra in NOT_INSTALLED for name in pins(EXTRAS[extra])}
    for name, pinned in ALL.items():
        if name in left_out:
            continue
        assert version(name).partition("+")[0] == pinned, name
