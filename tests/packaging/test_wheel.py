"""The router installed from its wheel, outside of any checkout, by each Python that it supports."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.packaging.isolated import ROOT, UV
from tests.waiting import free_port, wait_until

install = importlib.import_module("install")  # of deploy/, which isolated.py puts on the path

PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the files that git has: others are not there for the next person."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "router", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, listed)):
        (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "src" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder / "src")], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_what_is_in_it(wheel: Path) -> None:
    """Every file of the router, and nothing but the router."""
    with zipfile.ZipFile(wheel) as content:
        names = {n for n in content.namelist() if ".dist-info/" not in n}
    own = {str(p.relative_to(ROOT)) for p in (ROOT / "router").rglob("*.py")}
    own |= {str(p.relative_to(ROOT)) for p in (ROOT / "router/pages/static").rglob("*.*")}
    assert names == own


def python_of(version: str) -> str:
    """The interpreter; skips where this machine has none."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return sys.executable
    found = shutil.which(f"python{version}")
    # A version manager may have put a program of that name there that runs nothing.
    works = found and not subprocess.run([found, "-c", ""], check=False).returncode
    if found is None or not works:
        pytest.skip(f"there is no python{version} on this machine")
    return found


@pytest.mark.parametrize("version", PYTHONS)
def test_it_serves_a_folder(wheel: Path, tmp_path: Path, version: str) -> None:
    """`callme up --packages DIR`, in a fresh environment and an empty current folder: the package
    is loaded and answers, and what the router keeps lies beside it."""
    env = tmp_path / "env"
    subprocess.run([python_of(version), "-m", "venv", "--without-pip", env], check=True)
    settings = install.pip_settings()  # uv takes a tenth of pip's time
    command: list[str | Path] = [UV, "pip", "install", "--quiet", *install.uv_options(settings)]
    command += ["--python", env / "bin" / "python", "--constraint", ROOT / "constraints.txt", wheel]
    subprocess.run(command, env=install.uv_environment(settings), check=True)
    packages, here = tmp_path / "packages", tmp_path / "empty"
    here.mkdir()
    shutil.copytree(ROOT / "tests" / "packages" / "echo", packages / "echo")
    port = free_port()
    inherited = ("HOME", "PATH", "TMPDIR", "LANG")
    child = subprocess.Popen(
        [env / "bin" / "callme", "up", "--packages", packages, "--port", str(port)],
        cwd=here,
        env={k: os.environ[k] for k in inherited if k in os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/ready") or child.poll() is not None)
        made = httpx.post(f"{url}/echo", files={"text": (None, "hello")}, timeout=240)
        assert (made.status_code, made.json()["text"]) == (200, "hello")
        assert (packages / "var" / "predictions.sqlite3").is_file()
        assert list(here.iterdir()) == []
    finally:
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=240)
    assert "Serving" in said, said
    assert "Stopped. Nothing is left running." in said, said


def answers(url: str) -> bool:
    """Whether it is answered 200."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
