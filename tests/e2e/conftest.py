"""Packages and services that several tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, running_service
from tests.package_copies import copy_package, packages_in

# The files that take longest although they have few tests, begun first: otherwise one process
# still runs them when the others have nothing left to do.
LONGEST = (
    *("sleep", "sleep_packages", "newcomer", "tutorial", "install", "failures", "three_models"),
    *("which_line_failed", "cog_health", "output_files"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    first = [f"test_{name}.py" for name in LONGEST]
    items.sort(key=lambda item: first.index(n) if (n := item.path.name) in first else len(first))


@pytest.fixture(scope="session")
def echo_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the echo package under two names; no line of the router knows them."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("echo", "parrot"):
        copy_package("echo", folder / name)
    return folder


@pytest.fixture(scope="session")
def file_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that put out files, and one that takes one."""
    folder = tmp_path_factory.mktemp("file-packages")
    return packages_in(folder, "painter", "gallery", "echo")


@pytest.fixture(scope="module")
def echo(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of the echo packages, shared by a module's tests."""
    state = tmp_path_factory.mktemp("service") / "state"
    with running_service(echo_packages, state) as service:
        yield service
