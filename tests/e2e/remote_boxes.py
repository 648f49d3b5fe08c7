"""Routers whose models run on other routers."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.e2e.service import ROOT, Service, running_service

BOX_KEY = "box-" + 32 * "k"


@contextlib.contextmanager
def front(
    folder: Path,
    toml: str,
    env: Mapping[str, str] | None = None,
    *,
    with_echo: bool = False,
    port: int = 0,
) -> Iterator[Service]:
    """The box that clients call, with this callme.toml and, if asked for, the echo package."""
    packages = folder / "packages"
    packages.mkdir(parents=True)
    (packages / "callme.toml").write_text(toml)
    if with_echo:
        ignored = shutil.ignore_patterns(".cog", "__pycache__")
        shutil.copytree(ROOT / "tests" / "packages" / "echo", packages / "echo", ignore=ignored)
    with running_service(packages, folder / "state", env, port=port) as service:
        yield service


def cog_remote(name: str, url: str, more: str = "", backend: str = "cog") -> str:
    """callme.toml's part for a model on another box of ours."""
    return f"""
[models.{name}]
backend = "{backend}"
{more}
[models.{name}.remote]
kind = "cog"
url = "{url}/models/echo"
key = "{BOX_KEY}"
"""
