"""The catalogue of packages: every folder with a cog.yaml, read once at start."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import orjson
import yaml

from router.models.environment import own_python
from router.models.view import ViewError, read_view
from router.prediction import model_of

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# A version of a model: `caption@next`. The scheduler calls the remote of a model `caption@cog`.
VERSION = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
NO_VERSIONS = frozenset({"cog", "modal", "replicate"})
# The router's own paths. A model with one of these names would hide that path.
RESERVED = frozenset(
    {"docs", "events", "health", "metrics", "models", "openapi.json", "playground"}
    | {"predictions", "ready", "redoc", "static", "status", "usage", "v1"}
)


# The keys of a cog.yaml, from Cog's JSON schema.
CONFIG_KEYS = frozenset(
    {"build", "concurrency", "environment", "image", "model", "observability", "predict", "run"}
    | {"train", "weights"}
)
# Of `observability.traces`, from the same schema. The default continues traces and begins none.
DEFAULT_SAMPLER = "parentbased_always_off"
SAMPLERS = (
    *("always_on", "always_off", "traceidratio"),
    *("parentbased_always_on", DEFAULT_SAMPLER, "parentbased_traceidratio"),
)
# Limits for a cog.yaml. Real ones are far below them.
MAX_CONFIG_CHARS = 256 << 10
MAX_NODES = 10_000
MAX_DEPTH = 50


class PackageError(Exception):
    """The folder has a cog.yaml but cannot be served. The message says why."""


def read_package(folder: Path, env: Mapping[str, str], name: str = "") -> Package:
    """Return the package in `folder`, under the folder's name or `name`. Raises PackageError when
    it cannot be served."""
    name = name or folder.name
    model, is_version, version = name.partition("@")
    if not NAME.fullmatch(model):
        raise PackageError("its name must be lower-case letters, digits, '-' and '_'")
    if is_version and (not VERSION.fullmatch(version) or version in NO_VERSIONS):
        raise PackageError(
            "its version (after the @) must be lower-case letters, digits, '.', '-' and '_', and "
            f"none of {', '.join(sorted(NO_VERSIONS))}"
        )
    if model in RESERVED:
        raise PackageError("its name is one of the router's own paths")
    config = read_config(folder / "cog.yaml")
    if not isinstance(config, dict):
        raise PackageError("its cog.yaml is not a mapping")
    # `predict` is the deprecated name of the same key. Packages of other people still have it.
    runner = config.get("run") or config.get("predict")
    if not isinstance(runner, str) or not re.fullmatch(r"[\w./-]+\.py:\w+", runner):
        raise PackageError(f"its cog.yaml lacks `run: file.py:Class`{_did_you_mean(config)}")
    return Package(
        name=name,
        folder=folder,
        runner=runner,
        python=own_python(folder) or Path(sys.executable),
        max_concurrency=_read_concurrency(config),
        env={**_read_environment(config), **env},
        added_env=env,
        example=_read_example(folder),
        view=_read_view(folder),
        traces=_read_traces(config),
    )


def discover(folder: Path, env_of: Mapping[str, Mapping[str, str]]) -> dict[str, Package]:
    """Return every package in `folder` that can be served, by name (`survey` says more)."""
    return survey(folder, env_of)[0]


def survey(
    folder: Path, env_of: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Package], dict[str, str]]:
    """Return every package in `folder` by name, and for each that is left out the reason.

    One that cannot be served is logged and left out. `env_of["*"]` is added to every model's
    environment, then `env_of[name]` to that model's. A version gets its model's, too.
    """
    packages: dict[str, Package] = {}
    left_out: dict[str, str] = {}
    for cog_yaml in sorted(folder.glob("*/cog.yaml")):
        name = cog_yaml.parent.name
        try:
            names = dict.fromkeys(("*", model_of(name), name))
            env = {k: v for n in names for k, v in env_of.get(n, {}).items()}
            packages[name] = read_package(cog_yaml.parent.resolve(), env, name)
        except PackageError as error:
            log.warning("package left out", extra={"package": name, "reason": str(error)})
            left_out[name] = str(error)
    return packages, left_out


def _did_you_mean(config: Mapping[Any, Any]) -> str:
    written = [key for key in config if isinstance(key, str) and key not in CONFIG_KEYS]
    near = get_close_matches("run", written, n=1)
    return f" (did you mean `run` by `{near[0]}`?)" if near else ""


class _BoundedLoader(yaml.SafeLoader):
    """Refuses YAML that is nested deeper than MAX_DEPTH or would have more than MAX_NODES values.

    The values are counted as if each alias were replaced by its anchor (a "YAML bomb").
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # the size of each node, by the node's identity

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the node and count it. Raises yaml.YAMLError when a limit is exceeded."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._sizes:
            parts = node.value if isinstance(node.value, list) else []
            below = (n for part in parts for n in (part if isinstance(part, tuple) else (part,)))
            size = 1 + sum(self._sizes.get(id(n), 1) for n in below)
            if size > MAX_NODES:
                raise yaml.YAMLError(f"it has more than {MAX_NODES} values")
            self._sizes[id(node)] = size
        return node


def read_config(path: Path) -> Any:
    """Read a cog.yaml. Raises PackageError when it cannot be read; it says why and where."""
    try:
        text = path.read_text()
        if len(text) > MAX_CONFIG_CHARS:
            raise PackageError(f"its cog.yaml is longer than {MAX_CONFIG_CHARS >> 10} KiB")
        return yaml.load(text, _BoundedLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise PackageError(f"its cog.yaml cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = getattr(error, "problem", None) or str(error)
        reason = " ".join(said.split())[:300]
        raise PackageError(f"its cog.yaml cannot be read{where}: {reason}") from error


def _read_environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Return cog.yaml's `environment`. Cog puts it into the image, so the package may need it."""
    lines = config.get("environment") or []
    if not isinstance(lines, list) or not all(isinstance(s, str) and "=" in s for s in lines):
        raise PackageError("its cog.yaml's `environment` must be a list of NAME=value")
    return {name: value for name, _, value in (s.partition("=") for s in lines)}


def _read_traces(config: Mapping[str, Any]) -> dict[str, str]:
    """Return `observability.traces` as the variables that `cog build` makes of it. Empty when it
    does not enable them."""
    observability = config.get("observability") or {}
    traces = observability.get("traces") if isinstance(observability, dict) else None
    if not isinstance(traces, dict) or traces.get("enabled") is not True:
        return {}
    sampler = traces.get("sampler", DEFAULT_SAMPLER)
    if sampler not in SAMPLERS:
        names = ", ".join(SAMPLERS)
        raise PackageError(f"its cog.yaml's `observability.traces.sampler` must be one of {names}")
    env = {"COG_TRACE_CONFIGURED": "true", "COG_TRACE_ENABLED": "true"}
    ratio = traces.get("sampler_arg")
    if sampler.endswith("ratio") != (ratio is not None):
        raise PackageError(
            "its cog.yaml's `observability.traces.sampler_arg` must be there for a ratio sampler, "
            "and only for one"
        )
    if ratio is not None and not re.fullmatch(r"0(\.\d+)?|1(\.0+)?", str(ratio)):
        raise PackageError(
            "its cog.yaml's `observability.traces.sampler_arg` must be a number from 0 to 1"
        )
    env["COG_TRACE_SAMPLER"] = sampler
    if ratio is not None:
        env["COG_TRACE_SAMPLER_ARG"] = str(ratio)
    return env


def _read_concurrency(config: Mapping[str, Any]) -> int:
    """Return n of the deprecated `concurrency: max: n`, which is now `@concurrent(max=n)`."""
    concurrency = config.get("concurrency")
    at_once = concurrency.get("max", 1) if isinstance(concurrency, dict) else 1
    if not isinstance(at_once, int) or at_once < 1:
        raise PackageError("its cog.yaml's `concurrency.max` must be a positive integer")
    return at_once


def _read_example(folder: Path) -> Mapping[str, Any]:
    try:
        example = orjson.loads((folder / "example.json").read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        fields = {
            "package": folder.name,
            "reason": error.strerror if isinstance(error, OSError) else str(error),
        }
        log.warning("example.json cannot be read; there will be no example", extra=fields)
        return {}
    return example if isinstance(example, dict) else {}


def _read_view(folder: Path) -> Mapping[str, Any]:
    try:
        return read_view(folder)
    except ViewError as error:
        fields = {"package": folder.name, "reason": str(error)}
        log.warning("view.json cannot be used; the shape of the output decides", extra=fields)
        return {}


@dataclass(frozen=True, slots=True)
class Package:
    """One folder with a cog.yaml.

    `runner` is `file.py:Class` as in cog.yaml. `python` is the interpreter that runs it.
    `streams`: whether its output can be read element by element. `env` is added to its process's
    environment; `added_env` is the part of it that comes from the router's settings. `example` is
    the flat JSON object of example.json, if the folder has one (`@file` values are relative to the
    folder). `view` is its view.json (`router.models.view`). `traces`: the variables with which
    coglet reports spans, if its cog.yaml asks for that.
    """

    name: str
    folder: Path
    runner: str
    python: Path
    max_concurrency: int = 1
    streams: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    added_env: Mapping[str, str] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)
    traces: Mapping[str, str] = field(default_factory=dict)


def does_stream(schema: Mapping[str, Any]) -> bool:
    """Whether the model's output can be read element by element: its runner has `@streaming`.

    `schema`: the model's OpenAPI document, as `cog build` writes it.
    """
    operation = schema.get("paths", {}).get("/predictions", {}).get("post", {})
    return operation.get("x-cog-streaming") is True


def yields_files(schema: Mapping[str, Any]) -> bool:
    """Whether each element of the output is a file."""
    output = schema.get("components", {}).get("schemas", {}).get("Output", {})
    items = output.get("items") if output.get("type") == "array" else None
    return isinstance(items, Mapping) and items.get("format") == "uri"
