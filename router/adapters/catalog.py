"""Which packages there are: every folder with a cog.yaml, read once at start."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from router.domain.package import Package

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# Paths of the router's own, which a model of that name would hide.
RESERVED = frozenset(
    {"docs", "events", "health", "metrics", "models", "openapi.json", "playground"}
    | {"predictions", "ready", "redoc", "static", "status", "v1"}
)


class PackageError(Exception):
    """The folder has a cog.yaml but cannot be served; the message says why."""


def read_package(folder: Path, env: Mapping[str, str]) -> Package:
    """The package in `folder`. Raises PackageError."""
    name = folder.name
    if not NAME.fullmatch(name):
        raise PackageError("its name must be lower-case letters, digits, '-' and '_'")
    if name in RESERVED:
        raise PackageError("its name is a path of the router's own")
    try:
        config = yaml.safe_load((folder / "cog.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PackageError("its cog.yaml cannot be read") from error
    if not isinstance(config, dict):
        raise PackageError("its cog.yaml is not a mapping")
    # `predict` is the deprecated name of the same key; other people's packages have it.
    runner = config.get("run") or config.get("predict")
    if not isinstance(runner, str) or not re.fullmatch(r"[\w./-]+\.py:\w+", runner):
        raise PackageError("its cog.yaml lacks `run: file.py:Class`")
    own_python = folder / ".venv" / "bin" / "python"
    return Package(
        name=name,
        folder=folder,
        runner=runner,
        python=own_python if own_python.exists() else Path(sys.executable),
        max_concurrency=_read_concurrency(config),
        env={**_read_environment(config), **env},
        example=_read_example(folder),
    )


def discover(folder: Path, env_of: Mapping[str, Mapping[str, str]]) -> dict[str, Package]:
    """Every package in `folder`, by name. What cannot be served is logged and left out.

    `env_of[name]`: what to add to that model's environment; `env_of["*"]`: to all others'.
    """
    packages: dict[str, Package] = {}
    for cog_yaml in sorted(folder.glob("*/cog.yaml")):
        name = cog_yaml.parent.name
        try:
            env = {**env_of.get("*", {}), **env_of.get(name, {})}
            packages[name] = read_package(cog_yaml.parent.resolve(), env)
        except PackageError as error:
            log.warning("package left out", extra={"package": name, "reason": str(error)})
    return packages


def _read_environment(config: Mapping[str, Any]) -> dict[str, str]:
    """cog.yaml's `environment`, which Cog puts into the image: the package counts on it."""
    lines = config.get("environment") or []
    if not isinstance(lines, list) or not all(isinstance(s, str) and "=" in s for s in lines):
        raise PackageError("its cog.yaml's `environment` must be a list of NAME=value")
    return {name: value for name, _, value in (s.partition("=") for s in lines)}


def _read_concurrency(config: Mapping[str, Any]) -> int:
    """The deprecated `concurrency: max: n`; today a runner says it by `@concurrent(max=n)`."""
    concurrency = config.get("concurrency")
    at_once = concurrency.get("max", 1) if isinstance(concurrency, dict) else 1
    if not isinstance(at_once, int) or at_once < 1:
        raise PackageError("its cog.yaml's `concurrency.max` must be a positive integer")
    return at_once


def _read_example(folder: Path) -> Mapping[str, Any]:
    try:
        example = orjson.loads((folder / "example.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return example if isinstance(example, dict) else {}
