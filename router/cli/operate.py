"""`callme restart`, `load`, `unload`, `promote`, `rollback`: what the operator wants of one model;
`callme inputs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from router.cli.client import (
    KeyOption,
    RefusedError,
    RouterClient,
    Target,
    UnreachableError,
    Url,
    fail_refused,
    fail_unreachable,
    find_router,
)
from router.cli.common import (
    Json,
    console,
    err_console,
    fail,
    import_hint,
    print_json,
    read_settings,
)
from router.cli.deploy import new_folder_hint, package_folder
from router.cli.progress import shown_progress
from router.models.catalog import read_package
from router.models.process_interface import StartError
from router.models.schemas import describe
from router.models.tracebacks import last_traceback, with_location
from router.settings import Settings

POLL_S = 0.1
# A model that waits for room for longer than this is not loaded now: others use the memory.
FULL_S = 2.0
READY = frozenset({"ready", "busy"})
GONE = frozenset({"stopped", "failed", "asleep"})

Model = Annotated[str, typer.Argument(help="The model's name.")]


def add_commands(app: typer.Typer) -> None:
    """Add `restart`, `load`, `unload`, `promote`, `rollback` and `inputs`."""
    app.command()(restart)
    app.command()(load)
    app.command()(unload)
    app.command()(promote)
    app.command()(rollback)
    app.command()(inputs)


def restart(model: Model, url: Url = None, key: KeyOption = None) -> None:
    """Start a model again with its present code. What runs on it ends first."""
    _operate("restart", model, url, key)


def load(model: Model, url: Url = None, key: KeyOption = None) -> None:
    """Load a model now, if there is room for it."""
    _operate("load", model, url, key)


def unload(model: Model, url: Url = None, key: KeyOption = None) -> None:
    """Free a model's memory. Its next prediction loads it again."""
    _operate("unload", model, url, key)


def promote(model: Model, url: Url = None, key: KeyOption = None) -> None:
    """Send all requests for a model to its canary. What runs ends where it is."""
    _turn("promote", model, url, key)


def rollback(model: Model, url: Url = None, key: KeyOption = None) -> None:
    """Send no request for a model to its canary. What runs ends where it is."""
    _turn("rollback", model, url, key)


def _turn(verb: str, model: str, url: str | None, key: str | None) -> None:
    target = find_router(read_settings(), url, key)

    async def ask() -> dict[str, Any]:
        async with RouterClient(target) as router:
            answer = await router.send("POST", f"/models/{quote(model, safe='')}/{verb}")
            canary: dict[str, Any] = answer.json()["canary"]
            return canary

    try:
        version = asyncio.run(ask())["version"]
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        fail_refused(error)
    serving = version if verb == "promote" else model
    back = f"; back: callme rollback {model}" if verb == "promote" else ""
    console.print(f"{serving} serves all requests for {model} from now on{back}", soft_wrap=True)


def _operate(verb: str, model: str, url: str | None, key: str | None) -> None:
    settings = read_settings()
    target = find_router(settings, url, key)
    try:
        console.print(asyncio.run(_ask(target, verb, model)), soft_wrap=True)
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        hint = import_hint(str(error), model) or new_folder_hint(error, target, settings, model)
        fail_refused(error, hint=hint)
    except StartError as error:
        hint = import_hint(str(error), model)
        fail(str(error), f"{hint}\n  more: callme logs {model}".removeprefix("\n  "))
    except KeyboardInterrupt:
        fail("Stopped waiting; the router goes on.", code=130)


async def _ask(target: Target, verb: str, model: str) -> str:
    """Ask the router, wait until it is done, and return what to print. Raises StartError when the
    model did not start."""
    async with RouterClient(target) as router:
        path = f"/models/{quote(model, safe='')}/{verb}"
        before = await _state(router, model)
        state = (await router.send("POST", path)).json()["state"]
        if verb == "unload":
            while (await _state(router, model)).get("state") not in GONE:
                await asyncio.sleep(POLL_S)
            return f"{model} is unloaded"
        if verb == "load" and state in READY:
            return f"{model} is loaded already"
        async with shown_progress(router.target, model):
            return await _wait_loaded(router, model, before["loads"])


async def _wait_loaded(router: RouterClient, model: str, loads: int) -> str:
    """Wait for one more load than `loads`, and return what to print."""
    full = 0.0
    while True:
        now = await _state(router, model)
        state, wanted = now["state"], now["wanted"]
        if now["loads"] > loads:
            return f"{model} is ready: loaded in {now['load_s']:.1f} s"
        if state == "failed" and not wanted:
            raise StartError(f"Cannot start '{model}': {now['last_failure']}")
        if state in GONE:
            full += POLL_S
            if not wanted or full > FULL_S:
                why = "memory is full" if wanted else "somebody else has unloaded it"
                return f"{model} starts with its next prediction: {why}"
        await asyncio.sleep(POLL_S)


async def _state(router: RouterClient, model: str) -> dict[str, Any]:
    found: dict[str, Any] = (await router.get("/status"))["models"].get(model, {})
    return found


def inputs(
    model: Annotated[str, typer.Argument(help="A model's name, or the folder of its package.")],
    *,
    url: Url = None,
    key: KeyOption = None,
    as_json: Json = False,
) -> None:
    """List a model's inputs: their types, limits and defaults."""
    settings = read_settings()
    try:
        schema = asyncio.run(_schema(settings, model, find_router(settings, url, key)))
    except RefusedError as error:
        fail_refused(error, as_json)
    except StartError as error:
        lines = last_traceback(error.log)
        for line in lines if len(lines) > 1 else ():
            err_console.print(line, markup=False, soft_wrap=True)
        reason = with_location(f"Cannot read '{model}': {error}", error.location)
        fail(reason, import_hint(reason, model))
    found = {row[0]: row for row in input_rows(schema)}
    properties = schema["components"]["schemas"]["Input"].get("properties", {})
    if as_json:
        print_json(properties)
        return
    table = Table("input", "type", "default", "limits", "description", box=None)
    for row in found.values():
        table.add_row(*map(escape, row))
    console.print(table if found else f"{model} has no inputs")


async def _schema(settings: Settings, model: str, target: Target) -> Mapping[str, Any]:
    """The model's OpenAPI document: from a running router, else from its package. Raises StartError
    when the package cannot be read."""
    is_folder = os.sep in model or model in (".", "..")
    if not is_folder:
        with contextlib.suppress(UnreachableError):
            async with RouterClient(target) as router:
                found: Mapping[str, Any] = await router.get(
                    f"/models/{quote(model, safe='')}/openapi.json"
                )
                return found
    return (await describe(read_package(package_folder(model), {}))).schema


def input_rows(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, type, default, limits and description of each input, in the runner's order."""
    schemas = schema["components"]["schemas"]
    inputs = schemas["Input"]
    required = inputs.get("required", ())
    properties = inputs.get("properties", {})
    for name, given in sorted(properties.items(), key=lambda item: item[1].get("x-order", 0)):
        field = dict(given)
        for part in given.get("allOf", ()):  # choices
            field = {**schemas.get(part.get("$ref", "").rpartition("/")[2], {}), **field}
        default = field.get("default")
        shown = "required" if name in required else _shown(default)
        description = str(given.get("description", ""))
        yield name, type_name(field), shown, limits(field), description


def type_name(field: Mapping[str, Any]) -> str:
    """The type in one or two words: `file`, `list of text`."""
    kind = field.get("type", "any")
    if kind == "array":
        return f"list of {type_name(field.get('items', {}))}"
    named = {"uri": "file", "password": "secret"}.get(str(field.get("format")))
    return named or {"string": "text", "boolean": "true/false"}.get(kind, str(kind))


def limits(field: Mapping[str, Any]) -> str:
    """The choices, or the smallest and largest value or length."""
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    low, high = field.get("minimum"), field.get("maximum")
    unit = ""
    if low is None and high is None:
        low, high, unit = field.get("minLength"), field.get("maxLength"), " characters"
    if low is None and high is None:
        return str(field.get("pattern", ""))
    if low is None:
        return f"up to {high:g}{unit}"
    return f"from {low:g}{unit}" if high is None else f"{low:g} to {high:g}{unit}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) and value else json.dumps(value)
