"""Copies of the packages in tests/packages, with their schemas.

The router makes a schema that is missing, with a process of half a second. Most tests are not about
this, and start many routers.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from router.models.catalog import read_package
from router.models.schemas import describe

PACKAGES = Path(__file__).parent / "packages"


def copy_package(name: str, target: Path) -> None:
    """Copy tests/packages/`name` to the folder `target`, which must not exist."""
    source = _with_schema(name)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def packages_in(folder: Path, *names: str) -> Path:
    """Copy the packages of these names into `folder`, made if needed, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        copy_package(name, folder / name)
    return folder


@functools.cache
def _with_schema(name: str) -> Path:
    """The package's own folder, with its schema of the present sources."""
    folder = PACKAGES / name
    with ThreadPoolExecutor(1) as thread:  # an event loop may run in this one
        thread.submit(asyncio.run, describe(read_package(folder, {}))).result()
    return folder
