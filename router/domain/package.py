"""A Cog package as the router sees it: a folder, a runner, and what the runner takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Package:
    """One folder with a cog.yaml.

    `runner` is `file.py:Class` as in cog.yaml; `python` the interpreter that runs it;
    `streams` whether its output can be had element by element;
    `env` what is added to its process's environment; `example` the flat JSON object of
    example.json, if the folder has one (`@file` values are relative to the folder).
    """

    name: str
    folder: Path
    runner: str
    python: Path
    max_concurrency: int = 1
    streams: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)


def does_stream(schema: Mapping[str, Any]) -> bool:
    """Whether the model of this OpenAPI document, as `cog build` writes it, lets its output be
    had element by element: its runner has `@streaming`."""
    operation = schema.get("paths", {}).get("/predictions", {}).get("post", {})
    return operation.get("x-cog-streaming") is True


def yields_files(schema: Mapping[str, Any]) -> bool:
    """Whether each element of the output is a file."""
    output = schema.get("components", {}).get("schemas", {}).get("Output", {})
    items = output.get("items") if output.get("type") == "array" else None
    return isinstance(items, Mapping) and items.get("format") == "uri"
