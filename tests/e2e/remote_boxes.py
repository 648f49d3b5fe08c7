"""Routers whose models run on other routers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.e2e.service import Service, running_service
from tests.package_copies import copy_package

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
        copy_package("echo", packages / "echo")
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
