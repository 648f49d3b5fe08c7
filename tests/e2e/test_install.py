"""A package whose requirements the router does not have: said, installed, changed, interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from router.cli import app
from router.models.environment import own_python
from tests import wheels
from tests.waiting import free_port, wait_until

CALLME = (sys.executable, "-m", "router.cli")
ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys

import pond
from cog import BaseRunner


class Runner(BaseRunner):
    def run(self) -> str:
        return f"{pond.DEPTH} {sys.prefix}"
"""


class Shore:
    """A folder with the package `frog`, which needs the library `pond`. Without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.frog = folder, folder / "frog"
        found = folder / "wheels"
        found.mkdir()
        self.frog.mkdir()
        wheels.pack(found)
        for number in ("1", "2"):
            wheels.make(found, "pond", number, {"pond.py": f"DEPTH = {number}\n"})
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("CALLME_", "PIP_"))}
        self.env |= {"CALLME_PACKAGES_DIR": str(folder), "CALLME_PORT": str(free_port())}
        self.env |= {"PYTHONPATH": str(ROOT), "PIP_CONFIG_FILE": os.devnull, "COLUMNS": "200"}
        self.env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(found)}
        (self.frog / "run.py").write_text(RUN)
        self.asks("pond==1")

    def asks(self, *packages: str, more: str = "") -> None:
        """Write the frog's cog.yaml."""
        build = f"build:\n  python_packages: {json.dumps(packages)}\n{more}"
        (self.frog / "cog.yaml").write_text(f'{build}run: "run.py:Runner"\n')

    def types(self, *arguments: str, code: int = 0) -> str:
        """Return what `callme …` prints on both streams."""
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - self.env.keys():
                patch.delenv(name)
            done = CliRunner().invoke(app, list(arguments), env=self.env)
        assert done.exit_code == code, done.output
        return done.output

    def predicts(self) -> str:
        """Return what the frog says: how deep its pond is, and where its Python is."""
        return self.types("predict", "frog").strip()


@pytest.fixture(scope="module")
def shore(tmp_path_factory: pytest.TempPathFactory) -> Shore:
    """One for all tests here, which tell one story in their order."""
    return Shore(tmp_path_factory.mktemp("shore"))


def test_a_failed_import_says_what_to_do(shore: Shore) -> None:
    """With the command, in `predict`, `inputs` and `doctor`."""
    hint = "If requirements.txt does not name it, add it there. Then: callme install frog"
    for command in ("predict", "inputs"):
        said = shore.types(command, "frog", code=1)
        assert "ModuleNotFoundError: No module named 'pond' (run.py:4)" in said
        assert hint in said
    said = shore.types("doctor", code=1)
    assert "frog: it has no environment of its own, and the router has no pond==1\n" in said
    assert "     callme install frog\n" in said


def test_what_is_lacking_is_installed(shore: Shore) -> None:
    """The model then runs with that Python, and its log is kept. Again, nothing is done."""
    said = shore.types("install", "frog")
    assert "· frog  installs pond==1\n" in said
    assert "✓ frog  installed into .venv, with Python 3.1" in said
    assert shore.predicts() == f"1 {(shore.frog / '.venv').resolve()}"
    assert "Successfully installed" in (shore.frog / ".cog" / "install.log").read_text()
    assert "its own environment is up to date" in shore.types("install", "frog")


def test_what_cannot_be_installed_changes_nothing(shore: Shore) -> None:
    """The message names what is not to be had, and the model goes on with what it has."""
    shore.asks("pond==3")
    said = shore.types("install", "frog", code=1)
    assert "frog  not installed: Could not find a version that satisfies the requirement" in said
    assert "pond==3" in said
    assert "frog: its requirements have changed" in shore.types("doctor")
    assert shore.predicts().startswith("1 ")


def test_up_installs_what_has_changed(shore: Shore) -> None:
    """Before it serves. With --reload also later, before it restarts the model."""
    shore.asks("pond==2")
    screen = shore.folder / "screen"
    with screen.open("w") as file:
        argv = [*CALLME, "up", "--reload"]
        up = subprocess.Popen(argv, cwd=shore.folder, env=shore.env, stdout=file, stderr=file)
    try:
        wait_until(lambda: "✓ frog  ready" in screen.read_text(), 250)
        assert "installs pond==2, as its requirements have changed" in screen.read_text()
        assert shore.predicts().startswith("2 ")
        shore.asks("pond==1")
        wait_until(lambda: screen.read_text().count("✓ frog  ready") == 2, 250)
        assert shore.predicts().startswith("1 ")
    finally:
        up.terminate()
        up.wait(60)


def test_a_model_that_runs_keeps_its_environment(shore: Shore) -> None:
    """Another one is made beside it, and takes its place at the next start. One that fails changes
    nothing. What nobody uses any more is deleted."""
    environments = shore.frog / ".cog" / "environments"
    argv = [*CALLME, "up", "--no-install"]
    screen = shore.folder / "screen"
    with screen.open("w") as file:
        up = subprocess.Popen(argv, cwd=shore.folder, env=shore.env, stdout=file, stderr=file)
    try:
        wait_until(lambda: "✓ frog  ready" in screen.read_text(), 250)
        first = shore.predicts().partition(" ")[2]
        said = shore.types("install", "--again", "frog")
        assert "the model runs with the earlier one until: callme restart frog" in said
        assert shore.predicts() == f"1 {first}"
        assert len(list(environments.iterdir())) == 2
        shore.asks("pond==3")
        shore.types("install", "--again", "frog", code=1)
        assert shore.predicts() == f"1 {first}"
        shore.asks("pond==1")
        shore.types("restart", "frog")
        second = shore.predicts().partition(" ")[2]
        assert second == str((shore.frog / ".venv").resolve()) != first
        shore.asks("pond==2")
        said = shore.types("install", "frog")
        assert "changed under the running model: callme restart frog" in said
        assert "the earlier one" not in said
        shore.types("unload", "frog")
        shore.types("install", "--again", "frog")  # deletes what no process runs with
        third = shore.predicts().partition(" ")[2]
        assert [str(made) for made in environments.iterdir()] == [third]
    finally:
        up.terminate()
        up.wait(60)


def test_what_the_machine_lacks_is_listed(shore: Shore) -> None:
    """Commands of cog.yaml run only if that is asked for, with the package's own Python."""
    command = "python -c 'import pond' && echo made > here"
    shore.asks("pond==1", more=f"  system_packages: [bash]\n  run: [{json.dumps(command)}]\n")
    said = shore.types("install", "frog")
    assert f"callme install --system does:\n        {command}\n" in said
    assert "apt-get" not in said  # bash is there
    assert not (shore.frog / "here").exists()
    shore.types("install", "--system", "frog")
    assert (shore.frog / "here").read_text() == "made\n"


@pytest.fixture
def silent_index() -> Iterator[str]:
    """An index that takes requests and never answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/simple"


def test_an_interrupted_one_is_not_used(shore: Shore, silent_index: str) -> None:
    """Not even when the process is killed. The next installation completes it."""
    env = {k: v for k, v in shore.env.items() if k != "PIP_NO_INDEX"}
    shore.asks("pond==2", "nowhere")
    argv = [*CALLME, "install", "frog"]
    work = subprocess.Popen(
        argv, cwd=shore.folder, env={**env, "PIP_INDEX_URL": silent_index}, start_new_session=True
    )
    log = shore.frog / ".cog" / "install.log"
    wait_until(lambda: "install" in log.read_text() and own_python(shore.frog) is None, 60)
    assert "another `callme install` works on it" in shore.types("install", "frog", code=1)
    os.killpg(work.pid, signal.SIGKILL)
    work.wait(60)
    assert own_python(shore.frog) is None
    assert "was interrupted" in shore.types("doctor", code=1)
    shore.asks("pond==2")
    assert "✓ frog  installed" in shore.types("install", "frog")
    assert shore.predicts().startswith("2 ")


def test_an_environment_made_by_hand_is_left_alone(shore: Shore) -> None:
    """Used as it is. What it lacks is said."""
    (shore.frog / ".venv" / "callme.json").unlink()
    assert shore.predicts().startswith("2 ")
    assert "was not made by callme install" in shore.types("install", "frog")
    shore.asks("pond==1")
    assert "and lacks pond==1: install that there" in shore.types("install", "frog", code=1)


def test_a_folder_that_a_person_made_is_replaced_when_it_is_asked_for(shore: Shore) -> None:
    """But not while a process runs with it, which would lose its files."""
    link = shore.frog / ".venv"
    made = link.resolve()
    link.unlink()
    made.rename(link)
    argv = [str(link / "bin" / "python"), "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(argv) as used:
        try:
            said = shore.types("install", "--again", "frog", code=1)
        finally:
            used.kill()  # also when that failed: the end of `with` waits for it
        assert "a model runs with .venv: callme unload frog, then again" in said
    assert "✓ frog  installed" in shore.types("install", "--again", "frog")
    assert link.is_symlink()
    assert shore.predicts().startswith("1 ")
