"""The systemd units and the named tunnel's configuration, by the tools that read them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = ("callme.service", "cloudflared.service")
# systemd's measure, 0 (best) to 10; 252 says 1.7 and 1.6, later ones may ask for more.
MOST_EXPOSED = 2.5


def program(name: str) -> str:
    """The program's path; skips the test, naming it, where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} on PATH")
    return found


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with programs that exist in the place of those of an installed box."""
    for name in UNITS:
        text = (DEPLOY / name).read_text()
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M)
        (tmp_path / name).write_text(text.replace("file:/opt/callme", f"file:{ROOT}"))
    return tmp_path


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(units: Path, name: str) -> None:
    """`systemd-analyze verify` says nothing at all: no unknown key, value or reference."""
    verify = [program("systemd-analyze"), "verify", "--man=no", str(units / name)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    said = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if str(units) in line or name in line
    ]
    assert (done.returncode, said) == (0, []), done.stdout + done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_hardened(units: Path, name: str) -> None:
    """`systemd-analyze security` finds it well closed."""
    analyze = program("systemd-analyze")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(units / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    if found is None and "offline" in done.stderr:
        pytest.skip("needs systemd 250 or later, for security --offline")
    assert found is not None, done.stdout + done.stderr
    print(f"{name}: exposure {found[1]}")
    assert float(found[1]) <= MOST_EXPOSED, done.stdout


def test_the_units_agree_with_the_project() -> None:
    """The command exists, the state folder is the one that may be written, ports agree."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "callme.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith(".venv/bin/callme serve")
    assert "CALLME_STATE_DIR=/var/lib/callme" in service["Environment"]
    assert service["StateDirectory"] == service["CacheDirectory"] == "callme"
    tunnel = yaml.safe_load((DEPLOY / "cloudflared.yml").read_text())
    assert tunnel["ingress"][0]["service"] == "http://127.0.0.1:7777"


def test_the_tunnel_leads_nowhere_else() -> None:
    """One host name, and 404 for every other; the rules of cloudflared's ingress."""
    config = yaml.safe_load((DEPLOY / "cloudflared.yml").read_text())
    *named, last = config["ingress"]
    assert all(rule["hostname"] for rule in named)
    assert last == {"service": "http_status:404"}
    assert set(config) <= {"tunnel", "metrics", "grace-period", "ingress"}


def test_cloudflared_understands_the_configuration() -> None:
    """`cloudflared tunnel ingress validate`, where there is a cloudflared."""
    validate = [program("cloudflared"), "tunnel", "--config", str(DEPLOY / "cloudflared.yml")]
    done = subprocess.run(
        [*validate, "ingress", "validate"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
