"""What is read from a package's cog.yaml and runner for its image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.isolated import ROOT, cog_image

BUILD = {"python_version": "3.11", "python_requirements": "requirements.txt"}
RUN = "class Runner:\n    def run(self, text: str) -> str:\n        return text\n"


def package(folder: Path, config: dict[str, Any], run: str = RUN, pins: str = "cog==1\n") -> Path:
    """A folder with these contents."""
    (folder / "cog.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.py").write_text(run)
    (folder / "requirements.txt").write_text(pins)
    return folder


def parts(folder: Path, **config: Any) -> Any:
    """Read from a package with these differences."""
    return cog_image.read_image_parts(
        package(folder, {"build": BUILD, "run": "run.py:Runner", **config})
    )


@pytest.mark.parametrize("name", sorted(p.parent.name for p in ROOT.glob("*/cog.yaml")))
def test_every_package_can_be_read(name: str) -> None:
    """The project's own: a CUDA image of the version that cog.yaml names."""
    read = cog_image.read_image_parts(ROOT / name)
    cuda = yaml.safe_load((ROOT / name / "cog.yaml").read_text())["build"]["cuda"]
    assert read.cuda_image.startswith(f"nvidia/cuda:{cuda}.")
    assert (read.runner, read.requirements) == ("run.py:Runner", "requirements.txt")
    assert read.concurrency >= 1
    assert read.packages == ()  # its requirements name cog


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"build": {**BUILD, "gpu": True, "cuda": "12.7"}}, "build.cuda"),
        ({"build": {**BUILD, "gpu": True}}, "build.cuda"),
        ({"run": "elsewhere"}, "run: file.py:Class"),
        ({"run": "run.py:Runner; rm -rf /"}, "run: file.py:Class"),
        ({"build": {**BUILD, "run": [{"command": "x", "mounts": []}]}}, "mounts"),
        ({"environment": ["NO_VALUE"]}, "NAME=value"),
        ({"environment": {"A": "b"}}, "NAME=value"),
    ],
)
def test_what_has_no_image_is_told(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    """In words, and before anything is built."""
    with pytest.raises(cog_image.CannotDeployError, match=told):
        parts(tmp_path, **config)


@pytest.mark.parametrize("text", ["", "[]", "build: [", "- a"])
def test_a_cog_yaml_that_is_none(tmp_path: Path, text: str) -> None:
    """Empty, a list, broken."""
    folder = package(tmp_path, {})
    (folder / "cog.yaml").write_text(text)
    with pytest.raises(cog_image.CannotDeployError):
        cog_image.read_image_parts(folder)


@pytest.mark.parametrize(
    ("decorator", "expected"),
    [
        ("@concurrent(max=4)", 4),
        ("@cog.concurrent(max=5)", 5),
        ("@other(max=6)", 1),
        ("@concurrent(min=7)", 1),
    ],
)
def test_concurrency_is_read_from_the_source(tmp_path: Path, decorator: str, expected: int) -> None:
    """Of the runner's own class; another class's does not count."""
    other = "class Other:\n    @concurrent(max=9)\n    async def run(self): ...\n"
    run = f"{other}class Runner:\n    {decorator}\n    async def run(self): ...\n"
    folder = package(tmp_path, {"build": BUILD, "run": "run.py:Runner"}, run)
    assert cog_image.read_image_parts(folder).concurrency == expected


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ("cog==1\n", ()),
        ("  cog>=1\n", ()),
        ("cog-extras==1\n", ("cog==0.23.1",)),
        ("cogent==1\n", ("cog==0.23.1",)),
    ],
)
def test_cog_is_added_where_nothing_names_it(
    tmp_path: Path, pins: str, expected: tuple[str, ...]
) -> None:
    """Cog's own build does so too; a name that only begins alike is another's."""
    config = {"build": {**BUILD, "sdk_version": "0.23.1"}, "run": "run.py:Runner"}
    folder = package(tmp_path, config, pins=pins)
    assert cog_image.read_image_parts(folder).packages == expected


def test_the_schema_command_writes_the_schema(tmp_path: Path) -> None:
    """As a shell runs it, in the folder, also where the runner prints while it is imported."""
    run = "print('noise')\nfrom cog import BaseRunner\n" + RUN.replace(
        "Runner:", "Runner(BaseRunner):"
    )
    folder = package(tmp_path, {"build": BUILD, "run": "run.py:Runner"}, run)
    script = ROOT / "router" / "models" / "runner_schema.py"
    command = cog_image.schema_command(str(script), "run.py:Runner")
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], cwd=folder, env=env, check=True)
    schema = json.loads((folder / ".cog" / "openapi_schema.json").read_text())
    assert list(schema["components"]["schemas"]["Input"]["properties"]) == ["text"]


def test_dockerignore_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    """Comments and blanks are none; slashes and spaces around a pattern mean nothing."""
    assert cog_image.read_dockerignore(tmp_path) == []
    text = "\ufeff# a comment\n\n/tools\n  samples/ \n!/samples/kept.png\n**/*.pyc\n #no comment\n"
    (tmp_path / ".dockerignore").write_text(text, encoding="utf-8")
    assert cog_image.read_dockerignore(tmp_path) == [
        "tools", "samples/", "!samples/kept.png", "**/*.pyc", "#no comment",
    ]  # fmt: skip
