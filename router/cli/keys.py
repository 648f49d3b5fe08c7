"""`callme keys create|list|revoke|open-to-this-machine`: who may call. The commands work with and
without a running router."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from router.cli.common import Json, console, err_console, fail, print_json, read_settings
from router.keys.key import who_is_served
from router.keys.key_store import KeyFile, KeyFileError, StoredKey

Name = Annotated[str, typer.Argument(help="The key's name in logs and limits, such as `web`.")]


def add_commands(app: typer.Typer) -> None:
    """Add `keys` and its subcommands."""
    keys = typer.Typer(help="Create, list and revoke keys.", no_args_is_help=True)
    keys.command()(create)
    keys.command(name="list")(list_keys)
    keys.command()(revoke)
    keys.command()(open_to_this_machine)
    app.add_typer(keys, name="keys")


def create(
    name: Name,
    *,
    per_minute: Annotated[
        int | None, typer.Option(help="The most requests a minute.", min=1)
    ] = None,
    at_once: Annotated[int | None, typer.Option(help="The most requests at a time.", min=1)] = None,
    holder: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="The key's holder; default: its own name. All keys of one holder see the same "
            "predictions and files.",
        ),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="It sees the predictions of all holders, and /status.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is shown only now. A running router accepts it at once."""
    try:
        secret = _file().create(name, per_minute, at_once, holder=holder, admin=admin)
    except KeyFileError as error:
        fail(str(error))
    if as_json:
        print_json({"id": name, "key": secret})
        return
    typer.echo(secret)
    err_console.print(
        f"Key '{name}' is made. Copy it now: the router stores only what verifies it.\n"
        "From now on every caller needs a key."
    )


def list_keys(as_json: Json = False) -> None:
    """List the keys with their limits. Keys of CALLME_KEYS are settings and are not listed."""
    settings = read_settings()
    file = KeyFile(settings.state)
    try:
        keys, closed = file.read(), file.is_closed()
    except KeyFileError as error:
        fail(str(error))
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    configured = len(settings.keys) + len(settings.admin_keys)
    served = who_is_served(len(keys) + configured, closed)
    console.print(f"{served[0].upper()}{served[1:]}.", soft_wrap=True, markup=False)
    if not keys:
        return
    table = Table("name", "for", "sees", "made", "a minute", "at a time", box=None)
    for key in keys:
        table.add_row(*_row(key))
    console.print(table)


def revoke(name: Name) -> None:
    """Remove a key. A running router refuses it at once."""
    settings = read_settings()
    keys = KeyFile(settings.state)
    try:
        keys.revoke(name)
        left = len(keys.read()) + len(settings.keys) + len(settings.admin_keys)
    except KeyFileError as error:
        fail(str(error))
    console.print(f"Key '{name}' is revoked.")
    if not left:
        console.print(f"Now there is {who_is_served(0, closed=True)}.", soft_wrap=True)


def open_to_this_machine() -> None:
    """Serve programs of this machine without a key again. A running router does so at once.

    Then everything that reaches the port like such a program is served too: ssh -R, socat, a proxy
    that adds no header.
    """
    settings = read_settings()
    if settings.keys or settings.admin_keys:
        fail("Cannot open: there are keys in CALLME_KEYS, CALLME_ADMIN_KEYS or callme.toml.")
    try:
        KeyFile(settings.state).open_to_this_machine()
    except KeyFileError as error:
        fail(str(error))
    console.print(f"Now there is {who_is_served(0, closed=False)}.", soft_wrap=True)


def _row(key: StoredKey) -> tuple[str, ...]:
    made = datetime.datetime.fromtimestamp(key.created_at).astimezone()
    limits = (key.requests_per_minute, key.concurrent_requests)
    sees = "all (admin)" if key.admin else "its own"
    whose = (key.id, key.holder or key.id, sees)
    return (*whose, f"{made:%Y-%m-%d %H:%M}", *(str(n) if n else "as set" for n in limits))


def _shown(key: StoredKey) -> dict[str, Any]:
    shown = {k: v for k, v in asdict(key).items() if k != "verifier"}
    return {**shown, "holder": key.holder or key.id}


def _file() -> KeyFile:
    return KeyFile(read_settings().state)
