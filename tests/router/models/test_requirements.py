"""What a cog.yaml asks for, and what an environment lacks of it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from router.models import environment
from router.models.catalog import PackageError
from router.models.environment import Note
from router.models.install import InstallError, State, find_python, state_of
from router.models.requirements import lacking, line_of, read_requirements

BUILD = """\
build:
  python_version: 3.10
  python_requirements: needs.txt
  python_packages: [other==1]
  system_packages: [libnothing]
  pre_install: ["echo first"]
  run:
    - echo second
    - command: echo third
      mounts: []
"""
NEEDS = """\
# what it needs
--extra-index-url https://example.com/simple
orjson>=3   # for JSON
PyYAML == {yaml} --hash=sha256:00
no-such-thing[all]==9 ; python_version >= "3"
for-another==1 ; sys_platform == "win32"
-r more.txt
-e ./local
./wheels/x.whl
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with every kind of requirement."""
    (tmp_path / "cog.yaml").write_text(BUILD)
    (tmp_path / "needs.txt").write_text(NEEDS.format(yaml=version("PyYAML")))
    (tmp_path / "more.txt").write_text("psutil<1\nstructlog\\\n  >1\n")
    return tmp_path


def test_everything_is_read(folder: Path) -> None:
    """Nested files, continued lines, comments, options, and commands in both forms."""
    needs = read_requirements(folder)
    assert needs.python == "3.10"  # YAML reads the number 3.1
    assert needs.options == ("--extra-index-url https://example.com/simple",)
    assert "orjson>=3" in needs.lines
    assert needs.lines[-1] == "other==1"
    assert needs.system_packages == ("libnothing",)
    assert needs.commands == ("echo first", "echo second", "echo third")
    assert needs.names("pyyaml")
    assert not needs.names("torch")


def test_what_is_lacking(folder: Path) -> None:
    """By version and marker. What cannot be compared is lacking."""
    assert lacking(read_requirements(folder)) == [
        'no-such-thing[all]==9 ; python_version >= "3"',
        "psutil<1",
        "-e ./local",
        "./wheels/x.whl",
        "other==1",
    ]


def test_extras_are_looked_into(tmp_path: Path) -> None:
    """A distribution may be there without what one of its extras needs."""
    (tmp_path / "cog.yaml").write_text("build: {python_packages: [coglet, 'cog[tracing]']}\n")
    there = tmp_path / "site"
    for name, needs in (
        ("cog", "nowhere; extra == 'tracing'"),
        ("coglet", "elsewhere; extra=='x'"),
    ):
        info = there / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\nRequires-Dist: {needs}\n")
    assert lacking(read_requirements(tmp_path), [str(there)]) == ["cog[tracing]"]


def test_the_line_that_pip_means(folder: Path) -> None:
    """By the text of the requirement, or by its name alone."""
    needs = read_requirements(folder)
    assert line_of(needs, "No matching distribution found for orjson>=3") == "needs.txt:3"
    assert line_of(needs, "Failed to build 'no_such_thing'") == "needs.txt:5"
    assert line_of(needs, "No space left on device") == ""


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("build: 7", "`build` must be a mapping"),
        ("build: {python_requirements: gone.txt}", "'gone.txt' cannot be read: No such file"),
        ("build: {python_version: new}", '`build.python_version` must be like "3.11": new'),
        ("build: {python_packages: torch}", "`build.python_packages` must be a list of texts"),
        ("build: {run: [{mounts: []}]}", "`build.run` must be a list of commands"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, build: str, said: str) -> None:
    """With the key that is wrong."""
    (tmp_path / "cog.yaml").write_text(build)
    with pytest.raises(PackageError, match=said.replace("(", r"\(")):
        read_requirements(tmp_path)


@pytest.mark.slow
def test_the_states_of_an_environment(tmp_path: Path) -> None:
    """From none to one that is made, whose requirements change, and that is interrupted."""
    cog_yaml = tmp_path / "cog.yaml"
    cog_yaml.write_text("run: run.py:Runner\n")
    assert state_of(tmp_path, read_requirements(tmp_path)) is State.NONE_NEEDED
    cog_yaml.write_text("build: {python_packages: [nothing-like-it==1]}\n")
    needs = read_requirements(tmp_path)
    assert state_of(tmp_path, needs) is State.MISSING
    made = environment.next_one(tmp_path)
    environment.begin(made)
    python = made / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    assert state_of(tmp_path, needs) is State.MISSING
    environment.publish(tmp_path, made)
    assert state_of(tmp_path, needs) is State.UNFINISHED
    assert environment.own_python(tmp_path) is None
    environment.finish(made, Note(needs.digest(), "3.11.7"))
    assert state_of(tmp_path, needs) is State.READY
    assert environment.own_python(tmp_path) == python
    cog_yaml.write_text("build: {python_packages: [nothing-like-it==2]}\n")
    assert state_of(tmp_path, read_requirements(tmp_path)) is State.CHANGED
    (tmp_path / ".venv" / environment.NOTE).unlink()
    assert state_of(tmp_path, needs) is State.BY_HAND


@pytest.mark.slow
def test_a_python_that_is_not_there() -> None:
    """The message names those that are. Nothing is downloaded."""
    with pytest.raises(InstallError, match=r"names Python 3\.99, and this machine has .*3\.1"):
        find_python("3.99")
    assert find_python("") == Path(sys.executable)
