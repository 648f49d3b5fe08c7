"""Mistakes that a newcomer makes: each is answered with what to do."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import typer

from router.cli.common import import_hint
from router.cli.predict_inputs import forgotten_at
from router.cli.serve import require_free_port
from router.models.catalog import PackageError, read_package


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
