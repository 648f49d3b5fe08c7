"""A package's own environment: which one a model starts with, and what is kept and deleted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from router.models import environment
from router.models.catalog import Package, read_package
from router.models.environment import MADE, NAME, Note
from router.models.install import State, state_of
from router.models.process_interface import StartError
from router.models.process_options import runnable
from router.models.requirements import read_requirements

NOTE = Note("digest", "3.11.7")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package without an environment of its own. It needs nothing."""
    made = tmp_path / "frog"
    made.mkdir()
    (made / "cog.yaml").write_text('run: "run.py:Runner"\n')
    return made


def make(folder: Path) -> Path:
    """Make an environment and use it from now on."""
    made = environment.next_one(folder)
    environment.begin(made)
    (made / "bin").mkdir()
    (made / "bin" / "python").symlink_to(sys.executable)
    environment.finish(made, NOTE)
    environment.publish(folder, made)
    return made


def read(folder: Path) -> Package:
    """The package as the router reads it."""
    return read_package(folder, {})


def test_a_half_changed_environment_is_not_started(folder: Path) -> None:
    """Neither with the package as it was read before, nor as it is read now with the router's own
    interpreter. `callme install` then has something to do, and after it the model starts."""
    own = make(folder)
    before = read(folder)
    environment.begin(own)  # as `callme install` does, before it changes the environment
    now = read(folder)
    assert (before.python, now.python) == (own / "bin" / "python", Path(sys.executable))
    for package in (before, now):
        with pytest.raises(StartError, match=r"or was interrupted: callme install frog$"):
            runnable(package)
    assert state_of(folder, read_requirements(folder)) is State.UNFINISHED
    environment.finish(own, NOTE)
    assert runnable(before).python == own / "bin" / "python"


def test_an_earlier_environment_is_started_while_the_present_one_changes(folder: Path) -> None:
    """It is whole. When it is gone, the present one is started."""
    first, before = make(folder), read(folder)
    second = make(folder)
    environment.begin(second)
    assert runnable(before) == before
    environment.finish(second, NOTE)
    (first / "bin" / "python").unlink()
    assert runnable(before).python == second / "bin" / "python"


def test_a_person_s_environment_stays_until_the_new_one_is_in_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the link cannot be put there, it is back. Afterwards nothing of it is left."""
    by_hand = folder / NAME
    (by_hand / "bin").mkdir(parents=True)
    (by_hand / "theirs").write_text("kept")
    replace = Path.replace

    def no_link(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "replace", no_link)
        make(folder)
    assert (by_hand / "theirs").read_text() == "kept"
    made = make(folder)
    environment.delete_unused(folder)
    assert by_hand.resolve() == made
    assert [path.name for path in (folder / MADE).iterdir()] == [made.name]


def test_the_present_environment_is_not_deleted_by_another_path(folder: Path) -> None:
    """The folder's path may be a link or be relative; the interrupted change is repaired later."""
    own = make(folder)
    environment.begin(own)
    (folder.parent / "link").symlink_to(folder)
    with contextlib.chdir(folder.parent):
        for path in (folder.parent / "link", Path("frog")):
            assert environment.next_one(path) == own.parent / "2"
            assert own.exists()


def test_a_program_with_a_relative_name_uses_its_environment(folder: Path) -> None:
    """It was started from its folder as `.venv/bin/python`."""
    made = make(folder)
    assert not environment.in_use(made)
    argv = [f"{NAME}/bin/python", "-c", "input()"]
    with subprocess.Popen(argv, cwd=folder, stdin=subprocess.PIPE):
        assert environment.in_use(made)
    assert not environment.in_use(made)


def test_a_process_that_cannot_be_read_may_use_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So nothing is deleted. One that has ended uses nothing."""

    def processes(error: type[psutil.Error]) -> list[SimpleNamespace]:
        def cmdline() -> list[str]:
            raise error(os.getpid())

        return [SimpleNamespace(cmdline=cmdline)]

    first, _second = make(folder), make(folder)
    for error, kept in ((psutil.AccessDenied, True), (psutil.NoSuchProcess, False)):
        monkeypatch.setattr(psutil, "process_iter", lambda error=error: processes(error))
        environment.delete_unused(folder)
        assert first.exists() is kept
