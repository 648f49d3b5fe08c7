"""Mistakes in callme.toml and in CALLME_…, told with the line and the name that was meant."""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from router.prediction import model_of
from router.settings import CONFIG_NAME, Settings, default_packages_dir

PREFIX = "CALLME_"
# What other servers call a setting of a model.
ELSEWHERE = {
    **dict.fromkeys(("min_ready", "min_containers", "min_replicas"), "keep_loaded"),
    **dict.fromkeys(("idle_timeout_s", "scaledown_window", "ttl"), "idle_to_sleep_s"),
    **dict.fromkeys(("max_queue", "max_queued"), "queue_limit"),
    **dict.fromkeys(("timeout", "timeout_s"), "prediction_timeout_s"),
}
NESTED = "__"
# Variables that are no settings: of the command line, and of the models' own processes.
OTHERS = frozenset(
    {"CONTROL_SOCKET", "KEY", "ROUTER_PID", "SLEEP_DEVICE", "SPOOL_DIR", "START", "TRACEBACK"}
    | {"URL"}
)
TESTS = ("TEST_", "CHAOS_", "FUZZ_", "PROPERTY_", "PYPI_", "NPM_")
TABLE = re.compile(r"\s*\[\[?([^\]]+)\]\]?\s*(?:#.*)?")
KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w.-]+(?:\s*\.\s*[\w-]+)*)\s*=""")
JsonPath = tuple[str | int, ...]


def explain(error: ValidationError, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each problem of settings that cannot be used. No value is shown."""
    folder = Path(environ.get(f"{PREFIX}PACKAGES_DIR") or default_packages_dir())
    text = _text(folder / CONFIG_NAME)
    told = []
    for problem in error.errors():
        place = problem["loc"]
        name = ".".join(map(str, place))
        if problem["type"] == "extra_forbidden":
            known = _fields(Settings, place[:-1])
            reason = f"unknown setting '{name}'{did_you_mean(str(place[-1]), known)}"
        else:
            reason = f"'{name}': {problem['msg']}"
        told.append(f"Cannot read {_where(place, text, environ)}: {reason}")
    return told


def explain_toml(error: tomllib.TOMLDecodeError) -> str:
    """Return a sentence for a callme.toml that is no TOML."""
    reason, _, place = str(error).partition(" (at line ")
    where = f", line {place.rstrip(')')}" if place else ""
    return f"Cannot read {CONFIG_NAME}{where}: {reason}"


def mistakes(
    settings: Settings, models: Collection[str], environ: Mapping[str, str]
) -> Iterable[str]:
    """Return a sentence for each setting that has no effect. `models`: those that are served."""
    text = _text(settings.packages_dir / CONFIG_NAME)
    for name in settings.models:
        if name not in models:
            where = _where(("models", name), text, environ)
            yield f"{where}: there is no model '{name}'{did_you_mean(name, models)}"
    for name, own in settings.models.items():
        if own.canary and (own.canary not in models or model_of(own.canary) != name):
            where = _where(("models", name, "canary"), text, environ)
            versions = [model for model in models if model.startswith(f"{name}@")]
            meant = did_you_mean(own.canary, versions)
            yield f"{where}: canary: '{name}' has no version '{own.canary}'{meant}"
    for name in settings.preload:
        if name != "all" and name not in models:
            where = _where(("preload",), text, environ)
            yield f"{where}: preload: there is no model '{name}'{did_you_mean(name, models)}"
    known = [field.upper() for field in Settings.model_fields]
    for variable in sorted(environ):
        name = variable.upper().removeprefix(PREFIX)
        first = name.partition(NESTED)[0]
        if name == variable.upper() or first in known or name in OTHERS or name.startswith(TESTS):
            continue
        meant = did_you_mean(name, known, PREFIX)
        yield f"{variable} is no setting{meant}"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return " (did you mean 'x'?)" for the known name that is nearest, or "" when none is near."""
    known = list(known)
    other = ELSEWHERE.get(name)
    near = [other] if other in known else get_close_matches(name, known, n=1)
    return f" (did you mean '{prefix}{near[0]}'?)" if near else ""


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """Return the line of callme.toml that sets it, counted from 1; of the table around it or below
    it when there is no such line; None when none can be found."""
    wanted = [str(part) for part in place if not isinstance(part, int)]
    table: list[str] = []
    near = None
    for number, line in enumerate(text.splitlines(), 1):
        if found := TABLE.fullmatch(line):
            table = _parts(found[1])
            if table == wanted:
                return number
            shared = min(len(table), len(wanted))
            if table[:shared] == wanted[:shared]:
                near = near or number
        elif (found := KEY.match(line)) and [*table, *_parts(found[1])] == wanted:
            return number
    return near


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in name.split(".")]


def _where(place: JsonPath, text: str, environ: Mapping[str, str]) -> str:
    """Where a setting was given: the variable, or the file with its line."""
    variable = PREFIX + NESTED.join(map(str, place)).upper()
    given = {name.upper() for name in environ}
    for name in (variable, f"{PREFIX}{str(place[0]).upper()}"):
        if name in given:
            return name
    line = line_of(text, place)
    return f"{CONFIG_NAME}, line {line}" if line else f"setting '{place[0]}'"


def _fields(model: type[BaseModel], place: Sequence[Any]) -> Collection[str]:
    """The settings that may be at this place: `models`, then a name, then its own settings."""
    for part in place:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a model's name
        models = [t for t in _types(field.annotation) if issubclass(t, BaseModel)]
        if models:
            model = models[0]
    return model.model_fields


def _types(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _types(part)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
