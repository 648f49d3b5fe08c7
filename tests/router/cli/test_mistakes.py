"""Mistakes that a newcomer makes: each is answered with what to do."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import typer
from modal import FilePatternMatcher
from typer.testing import CliRunner

from router.cli import app
from router.cli.client import Answer, RefusedError, Target
from router.cli.common import import_hint
from router.cli.deploy import new_folder_hint
from router.cli.doctor import check_distribution
from router.cli.new_templates import TEMPLATES
from router.cli.predict_inputs import forgotten_at
from router.cli.serve import require_free_port
from router.models.catalog import PackageError, read_package
from router.settings import Settings
from tests.waiting import free_port

ROOT = Path(__file__).resolve().parents[3]


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """By which program, and the flag for another one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(typer.Exit) as ended:
            require_free_port("127.0.0.1", port)
    said = capsys.readouterr().err
    assert ended.value.exit_code == 1
    assert f"Cannot listen on 127.0.0.1:{port}: '" in said
    assert f"(pid {os.getpid()}) uses it" in said
    assert f"take another port: --port {port + 1}" in said


def test_a_forgotten_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for a value that is the path of a file, quoted for the shell."""
    (tmp_path / "a cat.jpg").touch()
    monkeypatch.chdir(tmp_path)
    pairs = [("text", "hello"), ("image", "a cat.jpg")]
    assert forgotten_at(pairs) == "Did you mean the file? -i 'image=@a cat.jpg'"
    assert forgotten_at([("text", "hello"), ("long", "x" * 5000)]) == ""


def test_a_forgotten_i() -> None:
    """With the whole command, quoted for the shell."""
    done = CliRunner().invoke(app, ["predict", "./my frogs", "text=a cat"])
    assert done.exit_code == 2
    assert "callme predict './my frogs' -i 'text=a cat'" in done.stderr


def test_a_folder_that_the_router_has_not_read(tmp_path: Path) -> None:
    """Only this machine's router reads this machine's folder."""
    (tmp_path / "frog").mkdir()
    (tmp_path / "frog" / "cog.yaml").touch()
    settings = Settings(packages_dir=tmp_path)
    refused = RefusedError(Answer(404, {}, b'{"error": {"code": "unknown_model", "message": ""}}'))
    own, other = (Target("http://router", None, own=own) for own in (True, False))
    assert "reads the folder when it starts" in new_folder_hint(refused, own, settings, "frog")
    assert new_folder_hint(refused, own, settings, "toad") == ""
    assert new_folder_hint(refused, other, settings, "frog") == ""


@pytest.mark.parametrize("template", TEMPLATES)
def test_cog_accepts_what_a_new_package_leaves_out(template: str) -> None:
    """`cog build` refuses a .dockerignore that matches .cog, where it puts the schema. What the
    machine has installed is left out, and git leaves out all of .cog."""
    files = TEMPLATES[template][0]
    is_ignored = FilePatternMatcher(*files[".dockerignore"].splitlines())
    assert not is_ignored(Path(".cog"))
    assert not is_ignored(Path(".cog/openapi_schema.json"))
    made = (".cog/environments/1/bin/python", ".cog/install.log", ".venv/x", "a/__pycache__/b.pyc")
    assert [path for path in made if not is_ignored(Path(path))] == []
    assert ".cog" in files[".gitignore"].splitlines()


def test_a_mistake_in_a_cog_yaml(tmp_path: Path) -> None:
    """With line and column, and for a misspelled key the right one."""
    folder = tmp_path / "toast"
    folder.mkdir()
    (folder / "cog.yaml").write_text("build:\n  gpu: [true\nrun: run.py:Runner\n")
    with pytest.raises(PackageError, match=r"cannot be read, line 3, column \d+: "):
        read_package(folder, {})
    (folder / "cog.yaml").write_text("runs: run.py:Runner\n")
    with pytest.raises(PackageError, match=r"did you mean `run` by `runs`\?"):
        read_package(folder, {})


def test_an_import_that_fails() -> None:
    """The command that installs it. Other errors have no such hint."""
    reason = "its runner cannot be read: ModuleNotFoundError: No module named 'x' (run.py:4)"
    assert import_hint(reason, "./toast").endswith("Then: callme install ./toast")
    assert import_hint("its set-up failed: KeyError: 'ImportError'", "toast") == ""
    name = "ImportError: cannot import name 'x' from 'torch.nn' (run.py:4)"
    assert import_hint(name, "toast").startswith("Another version of torch.nn may have it: ")
    own = "ImportError: cannot import name 'Countre' from 'collections' (run.py:4)"
    assert import_hint(own, "toast") == ""
    library = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    assert "system_packages" in (said := import_hint(library, "toast"))
    assert "lacks libGL.so.1" in said


@pytest.fixture
def toast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the model `toast` in it."""
    (tmp_path / "toast").mkdir()
    (tmp_path / "toast" / "cog.yaml").write_text("run: run.py:Runner\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(tmp_path))
    monkeypatch.setenv("CALLME_PORT", str(free_port()))
    return tmp_path / "toast"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("predict tost", "Cannot find a model 'tost' (did you mean 'toast'?)"),
        ("install tost", "Cannot find a model 'tost' (did you mean 'toast'?)"),
        ("inputs ./tost", "Cannot find a folder './tost' (did you mean 'toast'?)"),
        ("predict ./empty", "Cannot find a model in './empty': there is no cog.yaml in it"),
        ("predict toast n=1", "Cannot use 'n=1': did you forget -i? callme predict toast -i n=1"),
        ("predict n=1", "Cannot find a model 'n=1': did you forget -i?"),
        ("predict toast -i n", "Cannot read -i 'n': it must be name=value or name=@path"),
        ("predict toast --json [1]", "Cannot read --json: it must be an object"),
        ("predict toast --jsn {}", "No such option: --jsn"),
        ("statsu", "No such command 'statsu'"),
        ("new Toast", "a model's name has lower-case letters"),
    ],
)
def test_what_is_typed_wrong(toast: Path, typed: str, said: str) -> None:
    """One sentence, with what was meant."""
    done = CliRunner().invoke(app, typed.split(), env={"COLUMNS": "200"})
    assert done.exit_code in (1, 2)
    assert said in done.stderr


def test_a_runner_that_cog_cannot_use(toast: Path) -> None:
    """The line of the package that is meant, and no code of the router or of Cog."""
    for source, said in (
        ("class Runer:\n    pass\n", "run.py has no 'Runner', which cog.yaml names (did you mean"),
        (
            "class Runner:\n    def run(self, text) -> str:\n        return text\n",
            "missing type annotation for input: text (run.py:2)",
        ),
        ("class Runner:\n    pass\n", "(run.py:1)"),
    ):
        (toast / "run.py").write_text(source)
        done = CliRunner().invoke(app, ["inputs", "toast"])
        assert said in done.stderr
        assert "Traceback" not in done.output


def test_help_has_no_types_in_it() -> None:
    """`--port PORT`, not `<int range>`; nothing beside a flag."""
    said = CliRunner().invoke(app, ["up", "--help"], env={"COLUMNS": "120"}).output
    assert "PORT" in said
    assert not re.search(r"<\w[\w \[\]]*>", said), said


def test_the_other_project_that_is_called_callme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `pip install callme`, doctor says which one this is. An older copy of this one is no
    other project."""
    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "callme-0.14.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: callme\nVersion: 0.14.2\n")
    (info / "top_level.txt").write_text("router\n")
    others = [f for f in check_distribution() if "0.14.2" in f.found]
    assert others == []
    (info / "top_level.txt").write_text("callme\n")
    (other,) = [f for f in check_distribution() if "0.14.2" in f.found]
    assert other.found == "callme 0.14.2 is another project; this one is callme-gpu"
    assert other.fix.endswith("-m pip uninstall callme")


def test_make_without_a_python(tmp_path: Path) -> None:
    """One sentence. Nothing is made, nothing is downloaded."""
    make, bash = shutil.which("make"), shutil.which("bash")
    assert make
    assert bash
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "bash").symlink_to(bash)

    def makes() -> str:
        argv = [make, "setup", f"SHELL={bash}"]
        env = {"PATH": str(tools)}
        done = subprocess.run(
            argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        return done.stdout

    assert makes().startswith("Cannot set up: there is no Python on PATH. Install Python 3.11, ")
    old = tools / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1; exit 1\n')
    old.chmod(0o755)
    assert f"3.13 is needed, {old} is Python 3.9.1. Say make PYTHON=" in makes()
    assert not (tmp_path / ".venv").exists()
