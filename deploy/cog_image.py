"""What a package's image is made of, read from its cog.yaml and its runner without running it.

`cog build` derives a Dockerfile from these; Modal's image and the plain Docker recipe are made
from the same parts, in the same order: base, system packages, requirements, run commands,
source. Standard library and PyYAML only: it is read on Modal too.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# Cog's own choice for each CUDA version (pkg/config/cuda_compatibility.json of cog 0.23.1: the
# newest patch, on the newest Ubuntu). There is none for 12.7.
CUDA_TAGS = {
    "11.8": "11.8.0-cudnn8-devel-ubuntu22.04",
    "12.0": "12.0.1-cudnn8-devel-ubuntu22.04",
    "12.1": "12.1.1-cudnn8-devel-ubuntu22.04",
    "12.2": "12.2.2-cudnn8-devel-ubuntu22.04",
    "12.3": "12.3.2-cudnn9-devel-ubuntu22.04",
    "12.4": "12.4.1-cudnn-devel-ubuntu22.04",
    "12.5": "12.5.1-cudnn-devel-ubuntu22.04",
    "12.6": "12.6.3-cudnn-devel-ubuntu24.04",
    "12.8": "12.8.1-cudnn-devel-ubuntu24.04",
    "12.9": "12.9.1-cudnn-devel-ubuntu24.04",
    "13.0": "13.0.3-cudnn-devel-ubuntu24.04",
    "13.1": "13.1.2-cudnn-devel-ubuntu24.04",
    "13.2": "13.2.1-cudnn-devel-ubuntu24.04",
}
# What no image needs, whatever the package's .dockerignore says: caches, and environments of the
# machine that it is built on.
UNCOPIED = (".venv", ".cog", ".git", "**/__pycache__", ".mypy_cache", ".ruff_cache")


class CannotDeployError(Exception):
    """The package cannot be made into an image; the message says what to change."""


@dataclass(frozen=True)
class ImageParts:
    """cuda_image: "" without a GPU. requirements: file name in the folder, "" for none.
    packages: requirements that are named in cog.yaml itself. concurrency: predictions at once."""

    runner: str
    python_version: str
    cuda_image: str = ""
    system_packages: tuple[str, ...] = ()
    requirements: str = ""
    packages: tuple[str, ...] = ()
    run_commands: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 1

    @property
    def gpu(self) -> bool:
        """Whether the package wants one."""
        return bool(self.cuda_image)


def read_image_parts(folder: Path) -> ImageParts:
    """The parts of the package in `folder`. Raises CannotDeployError."""
    try:
        config = yaml.safe_load((folder / "cog.yaml").read_text())
        build = dict(config.get("build") or {})
        runner = str(config.get("run") or config.get("predict"))
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise CannotDeployError(f"Cannot read {folder.name}/cog.yaml: {error}") from error
    if not re.fullmatch(r"[\w./-]+\.py:\w+", runner):
        raise CannotDeployError(f"Cannot deploy {folder.name}: cog.yaml lacks `run: file.py:Class`")
    requirements = str(build.get("python_requirements") or "")
    return ImageParts(
        runner=runner,
        python_version=str(build.get("python_version") or ""),
        cuda_image=_cuda_image(build) if build.get("gpu") else "",
        system_packages=tuple(build.get("system_packages") or ()),
        requirements=requirements,
        packages=_packages(folder, requirements, build),
        run_commands=tuple(_command(c) for c in build.get("run") or ()),
        environment=_environment(config.get("environment") or ()),
        concurrency=_concurrency(folder, runner, config),
    )


def read_dockerignore(folder: Path) -> list[str]:
    """The patterns of the package's .dockerignore, as Docker reads the file (moby/patternmatcher,
    ignorefile.go): no comments, no leading slashes. Empty where there is no such file."""
    path = folder / ".dockerignore"
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
    patterns = []
    for line in lines:
        pattern = line.strip()
        if pattern and not line.startswith("#"):
            negation = "!" if pattern.startswith("!") else ""
            patterns.append(negation + pattern.removeprefix("!").strip().lstrip("/"))
    return patterns


def _cuda_image(build: Mapping[str, Any]) -> str:
    cuda = str(build.get("cuda") or "")
    tag = CUDA_TAGS.get(".".join(cuda.split(".")[:2]))
    if tag is None:
        known = ", ".join(CUDA_TAGS)
        raise CannotDeployError(
            f"Cannot choose a base image: `build.cuda` must be one of {known}, got '{cuda}'"
        )
    return f"nvidia/cuda:{tag}"


def _packages(folder: Path, requirements: str, build: Mapping[str, Any]) -> tuple[str, ...]:
    """The deprecated `python_packages`, and Cog itself where nothing else names it."""
    named = [str(p) for p in build.get("python_packages") or ()]
    listed = (folder / requirements).read_text().splitlines() if requirements else []
    has_cog = any(re.match(r"cog\b(?!-)", line.strip()) for line in [*listed, *named])
    if not has_cog:
        version = build.get("sdk_version")
        named.append(f"cog=={version}" if version else "cog")
    return tuple(named)


def _command(entry: object) -> str:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Mapping) and set(entry) == {"command"}:
        return str(entry["command"])
    raise CannotDeployError("Cannot run `build.run` with mounts: only Cog's own build has them")


def _environment(lines: object) -> dict[str, str]:
    if not isinstance(lines, list | tuple) or not all("=" in str(line) for line in lines):
        raise CannotDeployError("Cannot read `environment`: it must be a list of NAME=value")
    return {name: value for name, _, value in (str(line).partition("=") for line in lines)}


def _concurrency(folder: Path, runner: str, config: Mapping[str, Any]) -> int:
    """`@concurrent(max=n)` on the runner's `run`, read from the source as Cog reads it."""
    file_name, _, class_name = runner.partition(":")
    module = ast.parse((folder / file_name).read_text())
    for node in ast.walk(module):
        if not isinstance(node, ast.ClassDef) or node.name != class_name:
            continue
        for method in node.body:
            if isinstance(method, ast.AsyncFunctionDef | ast.FunctionDef) and method.name in (
                "run",
                "predict",
            ):
                for decorator in method.decorator_list:
                    if found := _max_of(decorator):
                        return found
    deprecated = config.get("concurrency") or {}
    return int(deprecated.get("max") or 1)


def _max_of(decorator: ast.expr) -> int:
    """n of `@concurrent(max=n)` or `@cog.concurrent(max=n)`, 0 for any other decorator."""
    if not isinstance(decorator, ast.Call):
        return 0
    name = decorator.func
    told = name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")
    for keyword in decorator.keywords:
        if (
            told == "concurrent"
            and keyword.arg == "max"
            and isinstance(keyword.value, ast.Constant)
        ):
            return int(str(keyword.value.value))
    return 0


def schema_command(script: str, runner: str) -> str:
    """The shell command that writes what `cog build` puts into the image: the runner's schema.

    script: the path of runner_schema.py there. Run in the package's folder.
    """
    pick = "import json,sys; print(json.dumps(json.loads(sys.stdin.read())['schema']))"
    read = f"python {shlex.quote(script)} {shlex.quote(runner)} | tail -n 1"
    return f'mkdir -p .cog && {read} | python -c "{pick}" > .cog/openapi_schema.json'
