"""`callme models`, `callme status`, `callme logs`: the state of a running router."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
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
from router.cli.common import Json, console, err_console, print_json, read_settings
from router.models.catalog import discover
from router.settings import Settings

FOLLOW_EVERY_S = 0.5
SERVES = frozenset({"ready", "busy", "asleep", "waking"})
COLOURS = {
    **{"ready": "green", "busy": "green", "starting": "yellow"},
    **{"unhealthy": "red", "failed": "red"},
}


def add_commands(app: typer.Typer) -> None:
    """Add `models`, `status` and `logs`."""
    app.command()(models)
    app.command()(status)
    app.command()(logs)


def models(url: Url = None, key: KeyOption = None, as_json: Json = False) -> None:
    """List the models and, if a router runs, their states."""
    settings = read_settings()
    target = find_router(settings, url, key)
    try:
        running = asyncio.run(_get(target, "/status"))["models"]
    except UnreachableError as error:
        if not target.own:
            fail_unreachable(error)
        running = None
    except RefusedError as error:
        fail_refused(error, as_json)
    found = _found(settings, running) if target.own else dict(running or {})
    if as_json:
        print_json(found)
        return
    if running is None:
        err_console.print(f"No router runs; the packages in {settings.packages_dir}:")
    table = Table("model", "state", "memory", "waiting", "folder", box=None)
    for name, model in found.items():
        state = _coloured(model.get("state", "-"))
        waiting = str(len(model["queue"])) if "queue" in model else "-"
        table.add_row(name, state, _mib(model), waiting, _place(model))
    console.print(table)


def status(url: Url = None, key: KeyOption = None, as_json: Json = False) -> None:
    """Show what runs, waits and fails, and how memory is shared."""
    state = _look(find_router(read_settings(), url, key), "/status", as_json)
    if as_json:
        print_json(state)
        return
    memory = state["memory"]
    console.print(
        f"up {state['uptime_s']:.0f} s   memory {memory['held_bytes'] >> 20} of "
        f"{memory['budget_bytes'] >> 20} MiB" + ("   stopping" if state["draining"] else "")
    )
    # Fits 80 columns: a name of more than 14 letters takes several lines. --json has everything.
    table = Table(box=None)
    table.add_column("model", overflow="fold")
    for column in ("state", "running", "waiting", "memory", "load s", "run s", "crashed"):
        table.add_column(column, no_wrap=True)
    for name, model in state["models"].items():
        table.add_row(
            *(name, _coloured(model["state"]), str(len(model["running"]))),
            *(str(len(model["queue"])), _mib(model)),
            *(_seconds(model["load_s"]), _seconds(model["service_s"]), str(model["crashes"])),
        )
    console.print(table)
    for name, reason in state.get("left_out", {}).items():
        console.print(f"[red]{name}[/red] is not served: {escape(reason)}")
    for name, model in state["models"].items():
        if canary := model.get("canary"):
            console.print(compared(name, canary), markup=False)
    for name, model in state["models"].items():
        if reason := model.get("unreadable"):
            console.print(f"[red]{name}[/red]: {escape(reason)}")
        elif reason := model.get("last_failure"):
            wait_s = math.ceil(model["retry_in_s"])
            retry = f"; tried again in {wait_s} s" if wait_s else ""
            if model["state"] in SERVES:  # it has been started again since
                console.print(f"{name}, before its last start: {escape(reason)}")
            else:
                console.print(f"[red]{name}[/red]: {escape(reason)}{retry}")


def compared(model: str, canary: dict[str, Any]) -> str:
    """One line about a model and its canary: the share, and what became of both."""
    parts = [f"{canary['share']:.0%} of {model} to {canary['version']}"]
    for name, record in canary["compared"].items():
        ended = record["succeeded"] + record["failed"]
        run = f", run {record['run_p50_s']:.2g} s" if record["succeeded"] else ""
        parts.append(f"{name}: {record['failed']} of {ended} failed{run}")
    return "; ".join(parts)


def logs(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    lines: Annotated[
        int, typer.Option("--lines", "-n", help="The number of lines, 200 at most.", min=1)
    ] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines as they come.")
    ] = False,
    url: Url = None,
    key: KeyOption = None,
    as_json: Json = False,
) -> None:
    """Print the last lines that a model's process printed."""
    target = find_router(read_settings(), url, key)
    path = f"/models/{quote(model, safe='')}/logs"
    shown: list[str] = _look(target, path, as_json)["lines"]
    if as_json:
        print_json(shown[-lines:])
        return
    for line in shown[-lines:]:
        typer.echo(line)
    if follow:
        try:
            asyncio.run(_follow(target, path, shown))
        except KeyboardInterrupt:
            return


async def _follow(target: Target, path: str, shown: Sequence[str]) -> None:
    async with RouterClient(target) as router:
        while True:
            await asyncio.sleep(FOLLOW_EVERY_S)
            try:
                now = (await router.get(path))["lines"]
            except UnreachableError as error:
                fail_unreachable(error)
            for line in new_lines(shown, now):
                typer.echo(line)
            shown = now


def new_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """The new lines of a log. `now` are its last lines now, `before` its last lines at the previous
    call. New is what follows in `now` after the longest end of `before` that `now` begins with."""
    for overlap in range(min(len(before), len(now)), 0, -1):
        if list(before[-overlap:]) == list(now[:overlap]):
            return now[overlap:]
    return now


def _look(target: Target, path: str, as_json: bool) -> Any:
    try:
        return asyncio.run(_get(target, path))
    except UnreachableError as error:
        fail_unreachable(error)
    except RefusedError as error:
        fail_refused(error, as_json)


async def _get(target: Target, path: str) -> Any:
    async with RouterClient(target) as router:
        return await router.get(path)


def _found(settings: Settings, running: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Every package in the folder and every model that runs at a remote, with its state in the
    running router."""
    states = running or {}
    found = {
        name: {"folder": str(package.folder), **states.get(name, {})}
        for name, package in discover(settings.packages_dir.resolve(), {}).items()
    }
    remote = states if running is not None else _remote(settings)
    return {**remote, **found}


def _remote(settings: Settings) -> dict[str, dict[str, Any]]:
    """The models that run only at a remote, and need no folder here."""
    return {
        name: {"backend": model.remote_kind}
        for name, model in settings.models.items()
        if model.remote_kind == model.backend
    }


def _place(model: dict[str, Any]) -> str:
    """The model's folder, or its back-end if it has none."""
    return model.get("folder") or f"({model.get('backend', 'remote')})"


def _coloured(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/{colour}]" if colour else state


def _mib(model: dict[str, Any]) -> str:
    size = model.get("memory_bytes")
    return f"{size >> 20} MiB" if size else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
